// Owns what several panels share: the file, the open item, the walk, filters and target.

export const state = {
  about: null,
  item: null,
  walk: [],
  cursor: -1,
  recall: null,
  method: "axes",
  sets: {},
  filters: () => {
    const named = (wanted) => Object.keys(state.sets).filter((name) => state.sets[name] === wanted);
    return { only: named("only"), without: named("without") };
  },
  // Set by main.js.
  refresh: () => {},
  radioChanged: () => {},
};
