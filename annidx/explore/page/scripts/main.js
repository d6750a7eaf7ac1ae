// Owns the start of the page and what holds it together: tabs, theme, the file's generations.

import { ask, onReach } from "./api.js";
import { find, make, number, shorten } from "./dom.js";
import { showFile, showMemory } from "./file.js";
import * as map from "./map.js";
import * as near from "./near.js";
import * as radio from "./radio.js";
import { makeSearch } from "./search.js";
import * as speed from "./speed.js";
import { state } from "./state.js";

const LOOK_MS = 2000;

// ---- tabs and theme ----

const tabs = [...find("tabs").children];

function select(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    find(one.getAttribute("aria-controls")).hidden = !chosen;
  }
}

function startTabs() {
  for (const tab of tabs) tab.addEventListener("click", () => select(tab));
  find("tabs").addEventListener("keydown", (event) => {
    const place = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (place < 0 || to === undefined) return;
    event.preventDefault();
    const tab = tabs[to % tabs.length];
    select(tab);
    tab.focus();
  });
}

const THEMES = ["auto", "light", "dark"];

function startTheme() {
  const button = find("theme");
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `◐ ${theme}`;
    button.setAttribute("aria-label", `Theme: ${theme}`);
    map.recolour();
  };
  let theme = THEMES.find((one) => one === localStorage.getItem("annidx-theme")) || "auto";
  apply(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("annidx-theme", theme);
    apply(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", map.recolour);
}

// ---- the file and its generations ----

function showAbout(about) {
  state.about = about;
  const name = (about.info.path || "explore").split("/").pop();
  find("file-name").textContent = shorten(name, 60);
  find("file-summary").textContent = `${number.format(about.items)} items · ${about.info.metric} · ${about.info.dim} dimensions`;
  near.showSets(about.sets);
  showFile(about);
  find("map-choice").hidden = about.maps.length < 2;
  find("map-method").replaceChildren(...about.maps.map((one) =>
    make("option", { value: one, selected: one === state.method }, one === "umap" ? "UMAP" : "principal axes")));
}

async function drawMap() {
  if (state.method === "umap") find("map-note").textContent = "UMAP is at work: this takes a minute or more…";
  map.setPoints(await ask("map", { map: state.method }));
}

async function takeOver() {
  showAbout(await ask("about"));
  speed.forget();
  await drawMap();
  await near.again();
  radio.again();
}

async function look() {
  try {
    const status = await ask("status", find("panel-file").hidden ? {} : { memory: true });
    if (status.in_memory !== null) showMemory(status.in_memory);
    if (status.generation !== state.about.generation) {
      await takeOver();
      find("news").textContent = `A new file has taken over: ${number.format(status.items)} items.`;
    } else if (status.refused) {
      find("news").textContent = `A new file is there but cannot be used: ${shorten(status.refused, 300)}`;
    }
  } catch {
    // The banner tells.
  }
  setTimeout(look, LOOK_MS);
}

function showReach(reached) {
  const gone = find("gone");
  if (gone.hidden === reached) return;
  gone.hidden = reached;
  gone.textContent = reached ? "" : "The server has stopped. Start annidx explore again and open the address it prints.";
}

// ---- start ----

async function start() {
  onReach(showReach);
  state.refresh = takeOver;
  state.radioChanged = radio.again;
  startTabs();
  map.start((which) => {
    select(find("tab-near"));
    near.openItem(which);
  });
  startTheme();
  near.start();
  radio.start();
  const openFound = (item) => {
    select(find("tab-near"));
    near.openItem({ id: item.id });
  };
  makeSearch(find("search-text"), find("search-list"), openFound);
  makeSearch(find("seed-text"), find("seed-matches"), (item) => radio.addSeed(item));
  find("seed").addEventListener("click", () => {
    if (!state.item) return;
    radio.addSeed(state.item);
    select(find("tab-radio"));
    find("tab-radio").focus();
  });
  find("surprise").addEventListener("click", () => {
    select(find("tab-near"));
    near.openItem(map.anyPoint());
  });
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    find("search-text").focus();
  });
  const about = await ask("about");
  showAbout(about);
  speed.start(about.info.default_recall, near.again);
  find("map-method").addEventListener("change", async () => {
    state.method = find("map-method").value;
    await drawMap();
    await near.again();
    radio.again();
  });
  await Promise.all([drawMap(), near.openItem({ id: near.idOfAddress() ?? about.start })]);
  document.body.dataset.ready = "yes";
  ask("search", { text: "", limit: 1 }).catch(() => {}); // completion is made ready meanwhile
  setTimeout(look, LOOK_MS);
}

start().catch((error) => {
  find("near-note").textContent = error.message;
});
