// Owns small helpers for elements and texts. All foreign text goes in as text, never as HTML.

export const find = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "dir") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const SHOWN_CHARACTERS = 200;

// Control characters, and those that would turn the direction of what follows, are shown as a mark.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

export function shorten(text, most = SHOWN_CHARACTERS) {
  const seen = [...text.slice(0, 2 * most + 2)];
  const cut = seen.length > most || text.length > 2 * most + 2;
  const kept = (cut ? seen.slice(0, most) : seen).join("").replace(UNSEEN, "\u2423");
  if (!kept.trim()) return text ? "(blank)" : "(empty id)";
  return cut ? `${kept}…` : kept;
}

export const nameOf = (item, most) => shorten(item.title || item.id, most);

// One line of a text whose direction is its own.
export const clip = (text) => make("span", { className: "clip", dir: "auto" }, text);

export const number = new Intl.NumberFormat("en");

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 999.5 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit ? Number(count.toPrecision(3)) : count} ${units[unit]}`;
}

export function duration(microseconds) {
  if (microseconds < 1000) return `${Number(microseconds.toPrecision(2))} µs`;
  if (microseconds < 1e6) return `${Number((microseconds / 1e3).toPrecision(3))} ms`;
  return `${Number((microseconds / 1e6).toPrecision(3))} s`;
}

export const distance = (value) => (value === null ? "∞" : String(Number(value.toPrecision(4))));

// Arrow keys, Home and End go through the buttons of a list.
export function walkByKeys(list, selector) {
  list.addEventListener("keydown", (event) => {
    const all = [...list.querySelectorAll(selector)];
    const place = all.indexOf(document.activeElement);
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: all.length - 1 }[event.key];
    if (place < 0 || to === undefined || !all[to]) return;
    event.preventDefault();
    all[to].focus();
  });
}
