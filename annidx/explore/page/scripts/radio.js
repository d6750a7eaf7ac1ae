// Owns the radio: seeds, dislikes, diversity, and the playlist that plays over the map.

import { ask } from "./api.js";
import { clip, duration, find, make, nameOf, walkByKeys } from "./dom.js";
import * as map from "./map.js";
import { state } from "./state.js";

const SECONDS_A_PIECE = 1.6;
const LENGTH = 20;
const PAUSE_MS = 150;

let seeds = [];
let dislikes = [];
let playlist = [];
let playing = -1;
let ticking = null;
let latest = 0;
let timer;

const has = (list, item) => list.some((one) => one.id === item.id);

export function addSeed(item) {
  dislikes = dislikes.filter((one) => one.id !== item.id);
  if (!has(seeds, item)) seeds.push(item);
  change();
}

function addDislike(item) {
  seeds = seeds.filter((one) => one.id !== item.id);
  if (!has(dislikes, item)) dislikes.push(item);
  change();
}

function chips(list, items, verb, remove) {
  list.replaceChildren(...items.map((item) => {
    const button = make("button", { type: "button", "aria-label": `${verb} ${nameOf(item, 60)}` }, "✕");
    button.addEventListener("click", () => {
      remove(item);
      const rest = list.querySelector("button") || find("seed-text");
      rest.focus();
    });
    return make("li", {}, clip(nameOf(item, 60)), button);
  }));
}

// A new playlist from seeds that changed.
export function change() {
  chips(find("seed-list"), seeds, "Remove the seed", (item) => {
    seeds = seeds.filter((one) => one !== item);
    change();
  });
  chips(find("dislike-list"), dislikes, "No longer less of", (item) => {
    dislikes = dislikes.filter((one) => one !== item);
    change();
  });
  find("dislikes").hidden = !dislikes.length;
  clearTimeout(timer);
  timer = setTimeout(() => fetchList([]), PAUSE_MS);
}

async function fetchList(before) {
  const turn = ++latest;
  if (!seeds.length) {
    stop();
    playlist = [];
    playing = -1;
    find("radio-note").textContent = "";
    return show([]);
  }
  try {
    const answer = await ask("radio", {
      seeds: seeds.map((one) => one.id),
      dislikes: dislikes.map((one) => one.id),
      heard: before.map((one) => one.id),
      length: LENGTH,
      diversity: Number(find("diversity").value),
      map: state.method,
      ...state.filters(),
    });
    if (turn !== latest) return;
    playlist = [...before, ...answer.playlist];
    if (!before.length) playing = ticking ? 0 : -1;
    const end = answer.playlist.length < LENGTH ? ": there are no more" : "";
    find("radio-note").textContent = `${answer.playlist.length} chosen in ${duration(answer.microseconds)}${end}`;
    show(answer.seeds);
    if (!before.length) map.reveal([...answer.seeds, ...playlist].map((one) => one.at));
  } catch (error) {
    if (turn === latest) find("radio-note").textContent = error.message;
  }
}

function show(placed) {
  const buttons = playlist.map((item, i) => {
    const open = make("button", { type: "button", className: "open" },
      make("span", { className: "rank", "aria-hidden": "true" }, String(i + 1)), clip(nameOf(item)), make("span"));
    open.addEventListener("click", () => go(i));
    const less = make("button", { type: "button", className: "less", "aria-label": `Less like ${nameOf(item, 60)}`, title: "Less like this" }, "less");
    less.addEventListener("click", () => {
      addDislike(item);
      find("play").focus();
    });
    return make("li", {}, open, less);
  });
  find("playlist").replaceChildren(...buttons);
  for (const id of ["play", "next", "more"]) find(id).disabled = !playlist.length;
  map.show({ seeds: placed, playlist });
  mark();
}

function mark() {
  find("playlist").querySelectorAll("button.open").forEach((button, i) => {
    if (i === playing) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  map.show({ playing });
}

function go(place) {
  playing = place;
  mark();
  if (playlist[place]) map.reveal([playlist[place].at]);
}

async function next() {
  if (playing + 1 >= playlist.length) await fetchList(playlist);
  if (playing + 1 < playlist.length) go(playing + 1);
  else stop();
}

function stop() {
  clearInterval(ticking);
  ticking = null;
  find("play").textContent = "Play";
}

function toggle() {
  if (ticking) return stop();
  ticking = setInterval(next, SECONDS_A_PIECE * 1000);
  find("play").textContent = "Pause";
  next();
}

// After a new file or map: the same seeds, asked again.
export function again() {
  if (seeds.length) fetchList([]);
}

export function start() {
  find("diversity").addEventListener("input", () => {
    find("diversity-shown").textContent = find("diversity").value;
    change();
  });
  find("play").addEventListener("click", toggle);
  find("next").addEventListener("click", next);
  find("more").addEventListener("click", () => fetchList(playlist));
  walkByKeys(find("playlist"), "button.open");
}
