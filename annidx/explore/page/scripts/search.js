// Owns a search field with completion (a combobox), wherever it stands on the page.

import { ask } from "./api.js";
import { clip, make, number, shorten } from "./dom.js";

const PAUSE_MS = 60;
const LIMIT = 12;

// Gives the field `input` and its list `list` a life; calls pick(item) with what was chosen.
export function makeSearch(input, list, pick) {
  let items = [];
  let active = -1;
  let latest = 0;
  let shown = null; // the text that the list is for
  let timer;
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  input.setAttribute("aria-expanded", "false");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Items found");

  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };

  const point = (place) => {
    active = place;
    [...list.children].forEach((option, i) => {
      option.setAttribute("aria-selected", String(i === place));
      if (i === place) {
        input.setAttribute("aria-activedescendant", option.id);
        option.scrollIntoView({ block: "nearest" });
      }
    });
  };

  const choose = (place) => {
    const item = items[place];
    if (!item) return;
    input.value = "";
    close();
    pick(item);
  };

  const show = (found, text) => {
    items = found.items;
    shown = text;
    const options = items.map((item, place) => {
      const option = make("li", { role: "option", id: `${list.id}-${place}`, "aria-selected": "false" },
        clip(shorten(item.title || item.id)));
      if (item.title) option.append(clip(shorten(item.id)));
      option.addEventListener("mousedown", (event) => event.preventDefault());
      option.addEventListener("click", () => choose(place));
      return option;
    });
    if (!items.length) {
      const searched = found.searched < found.of
        ? `Nothing in the first ${number.format(found.searched)} items. A whole id is always found.`
        : "Nothing found";
      options.push(make("li", { className: "none", role: "option", "aria-disabled": "true", "aria-selected": "false" }, searched));
    }
    list.replaceChildren(...options);
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    if (items.length) point(0);
    else active = -1;
  };

  const look = async () => {
    const turn = ++latest;
    const text = input.value;
    if (!text) return close();
    try {
      const found = await ask("search", { text, limit: LIMIT });
      if (turn === latest && document.activeElement === input) show(found, text);
    } catch {
      close();
    }
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE_MS);
  });
  input.addEventListener("blur", () => {
    latest += 1;
    close();
  });
  input.addEventListener("keydown", async (event) => {
    if (event.key === "Escape") {
      if (list.hidden) input.value = "";
      close();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) await look();
      else if (items.length) {
        const step = event.key === "ArrowDown" ? 1 : items.length - 1;
        point((active + step) % items.length);
      }
    } else if (event.key === "Enter" && input.value) {
      event.preventDefault();
      clearTimeout(timer);
      if (list.hidden || shown !== input.value) await look();
      choose(Math.max(0, active));
    }
  });
}
