// Owns the panel of neighbours: the open item, the list, the filters, the walk back and forward.

import { ask } from "./api.js";
import { clip, distance, duration, find, make, nameOf, number, shorten, walkByKeys } from "./dom.js";
import * as map from "./map.js";
import { state } from "./state.js";

const LONGEST_ADDRESS = 500;

let latest = 0;

function address(id) {
  return id.length <= LONGEST_ADDRESS ? `#item=${encodeURIComponent(id)}` : "#item-too-long";
}

export function idOfAddress() {
  const match = /^#item=(.*)$/.exec(location.hash);
  try {
    return match ? decodeURIComponent(match[1]) : null;
  } catch {
    return null;
  }
}

// Opens an item, {id} or {row, generation}. `step`: "push" a new one, or the place in the walk.
export async function openItem(which, step = "push") {
  const turn = ++latest;
  let answer;
  try {
    answer = await ask("near", {
      ...which,
      k: Number(find("near-k").value),
      recall: state.recall,
      map: state.method,
      ...state.filters(),
    });
  } catch (error) {
    if (turn !== latest) return;
    if (error.status === 409) return void state.refresh();
    find("near-note").textContent = error.status === 404
      ? `${shorten(which.id || "")}: the file holds no such item` : error.message;
    return;
  }
  if (turn !== latest) return;
  remember(answer.item, step);
  state.item = answer.item;
  showAnswer(answer);
  map.show({ item: answer.item, neighbours: answer.neighbours, walk: state.walk.slice(0, state.cursor + 1) });
  map.reveal([answer.item.at, ...answer.neighbours.slice(0, 20).map((one) => one.at)]);
}

function remember(item, step) {
  if (step === "push") {
    if (state.item && state.item.id === item.id) {
      state.walk[state.cursor] = item;
      return;
    }
    state.walk = [...state.walk.slice(0, state.cursor + 1), item];
    state.cursor = state.walk.length - 1;
    const entry = { id: item.id, cursor: state.cursor };
    if (state.cursor === 0) history.replaceState(entry, "", address(item.id));
    else history.pushState(entry, "", address(item.id));
  } else {
    state.cursor = step;
    state.walk[step] = item;
  }
  find("back").disabled = state.cursor === 0;
  find("forward").disabled = state.cursor >= state.walk.length - 1;
}

function showAnswer({ item, neighbours, microseconds }) {
  const name = nameOf(item);
  find("item-title").textContent = name;
  document.title = `${shorten(item.title || item.id, 40)} · annidx explore`;
  const id = find("item-id");
  id.hidden = !item.title && name === item.id;
  id.replaceChildren("id ", make("bdi", {}, shorten(item.id, 2000)));
  const aim = state.recall === null ? "" : `, aiming at ${state.recall}`;
  find("near-note").textContent =
    `${neighbours.length} of ${number.format(state.about.items)} items in ${duration(microseconds)}${aim}`;
  const lengths = neighbours.map((one) => Math.abs(one.distance ?? 0));
  const longest = Math.max(...lengths, 1e-30);
  find("near-list").replaceChildren(...neighbours.map((one, i) => {
    const bar = make("span", { className: "measure" });
    bar.style.width = `${(100 * lengths[i]) / longest}%`;
    const button = make("button", { type: "button", className: "open" },
      make("span", { className: "rank", "aria-hidden": "true" }, String(i + 1)),
      clip(nameOf(one)),
      make("span", { className: "distance" }, make("span", { className: "hidden" }, state.about.larger_is_nearer ? "product " : "distance "), distance(one.distance)),
      bar);
    button.addEventListener("click", async () => {
      await openItem({ id: one.id });
      find("item-title").focus();
      find("panel-near").scrollTop = 0;
    });
    return make("li", {}, button);
  }));
}

export function showSets(sets) {
  const names = Object.keys(sets);
  find("sets").hidden = !names.length;
  state.sets = Object.fromEntries(names.filter((name) => state.sets[name]).map((name) => [name, state.sets[name]]));
  find("set-list").replaceChildren(...names.map((name) => {
    const choice = make("select", {},
      make("option", { value: "" }, "all items"), make("option", { value: "only" }, "only these"), make("option", { value: "without" }, "without these"));
    choice.value = state.sets[name] || "";
    choice.addEventListener("change", () => {
      state.sets[name] = choice.value;
      again();
      state.radioChanged();
    });
    return make("li", {}, make("label", {}, clip(`${shorten(name, 60)} (${number.format(sets[name])})`), choice));
  }));
}

// Asks for the open item once more, after a change of file, filter or target.
export function again() {
  if (state.item) return openItem({ id: state.item.id }, state.cursor);
}

export function start() {
  find("back").addEventListener("click", () => history.back());
  find("forward").addEventListener("click", () => history.forward());
  find("near-k").addEventListener("change", again);
  walkByKeys(find("near-list"), "button.open");
  addEventListener("popstate", (event) => {
    if (event.state) openItem({ id: event.state.id }, event.state.cursor);
    else if (idOfAddress() !== null) openItem({ id: idOfAddress() });
  });
}
