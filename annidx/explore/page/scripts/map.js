// Owns the map: drawing points, query, neighbours, walk and radio on a canvas; zoom, touch and keys.
// It must not ask the server for anything.

/* global d3 */

import { find, nameOf, number, shorten } from "./dom.js";

const canvas = find("canvas");
const context = canvas.getContext("2d");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const LABEL = 26;
const HIT_PIXELS = 18;
const MOVE_MS = 450;
const MARGIN = 0.9;

let points = { rows: [], labels: [], x: [], y: [], shade: [], generation: 0 };
let tree = d3.quadtree();
let shown = { item: null, neighbours: [], walk: [], cursor: -1, seeds: [], playlist: [], playing: -1 };
let colours = {};
let size = { width: 1, height: 1 };
let view = d3.zoomIdentity;
let hovered = -1;
let waiting = false;
let open = () => {};

// ---- places and colours ----

const scale = () => (Math.min(size.width, size.height) / 2) * MARGIN;
const baseX = (x) => size.width / 2 + x * scale();
const baseY = (y) => size.height / 2 - y * scale();
const screen = ([x, y]) => [view.applyX(baseX(x)), view.applyY(baseY(y))];
const isIn = ([x, y], by = 0) => x > -by && y > -by && x < size.width + by && y < size.height + by;

function readColours() {
  const probe = document.createElement("span");
  canvas.parentElement.append(probe);
  const value = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  for (const name of ["card", "text", "quiet", "query", "near", "walk", "radio"]) colours[name] = value(name);
  const ramp = d3.interpolateRgb(value("shade-low"), value("shade-high"));
  colours.ramp = Array.from({ length: 16 }, (_, i) => ramp(i / 15));
  probe.remove();
}

// ---- drawing ----

export function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

function dot([x, y], radius, colour, ring) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  if (ring) {
    context.lineWidth = 2;
    context.strokeStyle = ring;
    context.stroke();
  }
}

function line(places, colour, width, dashes = []) {
  if (places.length < 2) return;
  context.beginPath();
  places.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dashes);
  context.stroke();
  context.setLineDash([]);
}

function drawPoints() {
  const radius = Math.min(4.5, 1.6 * Math.sqrt(view.k) * (size.width > 700 ? 1.15 : 0.9));
  context.globalAlpha = 0.62;
  const groups = Array.from({ length: 16 }, () => []);
  for (let i = 0; i < points.x.length; i++) {
    const at = screen([points.x[i], points.y[i]]);
    if (isIn(at, 5)) groups[Math.min(15, Math.floor(points.shade[i] * 16))].push(at);
  }
  groups.forEach((group, shade) => {
    context.fillStyle = colours.ramp[shade];
    context.beginPath();
    for (const [x, y] of group) {
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.fill();
  });
  context.globalAlpha = 1;
}

// Writes texts where no other one stands yet; the first ones have the right of way.
class Labels {
  constructor() {
    this.boxes = [];
    this.written = new Set();
  }

  name(item, ...how) {
    this.write(nameOf(item, LABEL), screen(item.at), ...how);
  }

  write(text, [x, y], colour, weight = "", must = false, size = 12.5) {
    if (this.written.has(text)) return;
    context.font = `${weight} ${size}px system-ui, sans-serif`;
    const width = context.measureText(text).width;
    for (const [left, top] of [[x + 9, y - 8], [x - 9 - width, y - 8], [x - width / 2, y - 24], [x - width / 2, y + 8]]) {
      const box = [left - 2, top - 1, left + width + 2, top + 17];
      if (this.boxes.some((b) => b[0] < box[2] && box[0] < b[2] && b[1] < box[3] && box[1] < b[3])) continue;
      this.put(text, left, top, colour, box);
      return;
    }
    if (must) this.put(text, x + 9, y - 8, colour, [x + 7, y - 9, x + 11 + width, y + 9]);
  }

  put(text, left, top, colour, box) {
    this.written.add(text);
    this.boxes.push(box);
    context.textBaseline = "top";
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = colours.card;
    context.strokeText(text, left, top + 1);
    context.fillStyle = colour;
    context.fillText(text, left, top + 1);
  }

  keepFree([x, y], radius) {
    this.boxes.push([x - radius, y - radius, x + radius, y + radius]);
  }
}

function labelPoints(labels) {
  // The more the map is spread out, the more of its points are named.
  const room = Math.floor((size.width * size.height) / 26_000);
  let written = 0;
  for (let i = 0; i < points.x.length && written < room; i++) {
    const place = (i * 2_654_435) % points.x.length; // spread over the sample, the same each time
    const at = screen([points.x[place], points.y[place]]);
    if (!isIn(at, -10)) continue;
    const before = labels.boxes.length;
    labels.write(shorten(points.labels[place], LABEL), at, colours.quiet);
    written += labels.boxes.length - before;
  }
}

function draw() {
  const ratio = devicePixelRatio || 1;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  drawPoints();
  const labels = new Labels();
  const walk = shown.walk.filter(Boolean).map((item) => screen(item.at));
  line(walk, colours.walk, 2.5, [7, 5]);
  for (const at of walk) dot(at, 4, colours.walk, colours.card);
  const way = shown.playlist.map((item) => screen(item.at));
  line(way, colours.radio, 2.5);
  way.forEach((at, i) => dot(at, i === shown.playing ? 8 : 4.5, colours.radio, colours.card));
  for (const seed of shown.seeds) dot(screen(seed.at), 5.5, colours.card, colours.radio);
  if (shown.item) {
    const middle = screen(shown.item.at);
    context.globalAlpha = 0.35;
    for (const one of shown.neighbours) line([middle, screen(one.at)], colours.near, 1.2);
    context.globalAlpha = 1;
    for (const one of shown.neighbours) dot(screen(one.at), 5, colours.near, colours.card);
    dot(middle, 8, colours.query, colours.card);
    labels.keepFree(middle, 8);
    labels.name(shown.item, colours.query, "700", true, 15);
  }
  const playing = shown.playlist[shown.playing];
  if (playing) labels.name(playing, colours.radio, "700", true, 14);
  if (hovered >= 0) {
    const at = screen([points.x[hovered], points.y[hovered]]);
    dot(at, 6, colours.text, colours.card);
    labels.write(shorten(points.labels[hovered], 2 * LABEL), at, colours.text, "600", true, 14);
  }
  for (const one of shown.neighbours.slice(0, 12)) labels.name(one, colours.near, "600");
  for (const one of shown.playlist) labels.name(one, colours.radio, "600");
  labelPoints(labels);
}

// ---- moving ----

const zoom = d3.zoom().scaleExtent([0.5, 200]).on("zoom", (event) => {
  view = event.transform;
  redraw();
});
const surface = d3.select(canvas);

const moved = () => (calm.matches ? surface : surface.transition().duration(MOVE_MS));

// Brings places into view, when one of them is not, or all lie in one spot of it.
export function reveal(places) {
  const some = places.filter(Boolean).map(([x, y]) => [baseX(x), baseY(y)]);
  if (!some.length) return;
  const [low, high] = [0, 1].map((end) => [0, 1].map((axis) => {
    const values = some.map((place) => place[axis]);
    return end ? Math.max(...values) : Math.min(...values);
  }));
  const seen = some.every(([x, y]) => isIn([view.applyX(x), view.applyY(y)], -30));
  const spread = Math.max(high[0] - low[0], high[1] - low[1]);
  const least = Math.min(size.width, size.height);
  if (seen && (some.length === 1 || spread * view.k > least / 6)) return;
  const fits = Math.min((0.62 * size.width) / Math.max(1, high[0] - low[0]), (0.62 * size.height) / Math.max(1, high[1] - low[1]));
  const k = some.length === 1 ? view.k : Math.max(0.6, Math.min(12, fits));
  const to = d3.zoomIdentity.translate(size.width / 2, size.height / 2).scale(k)
    .translate(-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2);
  moved().call(zoom.transform, to);
}

function nearest(x, y) {
  const reach = HIT_PIXELS / view.k;
  const found = tree.find(view.invertX(x), view.invertY(y), reach);
  return found === undefined ? -1 : found;
}

// The item with a place of its own (neighbours, radio, walk) that was hit, or null.
function hitItem(x, y) {
  const items = [...shown.neighbours, ...shown.playlist, ...shown.seeds, ...shown.walk.filter(Boolean)];
  return items.find((item) => {
    const at = screen(item.at);
    return Math.hypot(at[0] - x, at[1] - y) < 10;
  }) || null;
}

function plant() {
  tree = d3.quadtree().x((i) => baseX(points.x[i])).y((i) => baseY(points.y[i]))
    .addAll([...points.x.keys()]);
}

function hover(place) {
  if (place === hovered) return;
  hovered = place;
  canvas.style.cursor = place < 0 ? "grab" : "pointer";
  redraw();
}

function openPoint(place) {
  if (place >= 0) open({ row: points.rows[place], generation: points.generation });
}

// ---- keys ----

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function step([dx, dy]) {
  const from = hovered >= 0 ? [points.x[hovered], points.y[hovered]] : (shown.item ? shown.item.at : [0, 0]);
  const [x, y] = screen(from);
  let best = -1;
  let least = Infinity;
  for (let i = 0; i < points.x.length; i++) {
    if (i === hovered) continue;
    const [px, py] = screen([points.x[i], points.y[i]]);
    const along = (px - x) * dx + (py - y) * dy;
    const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (along < 6 || aside > along) continue;
    const cost = along + 2 * aside;
    if (cost < least) [best, least] = [i, cost];
  }
  if (best < 0) return;
  hover(best);
  reveal([[points.x[best], points.y[best]]]);
  find("map-spoken").textContent = shorten(points.labels[best], 2 * LABEL);
}

function press(event) {
  if (WAYS[event.key]) step(WAYS[event.key]);
  else if (event.key === "Enter" || event.key === " ") openPoint(hovered);
  else if (event.key === "+" || event.key === "=") zoomBy(1.5);
  else if (event.key === "-") zoomBy(1 / 1.5);
  else if (event.key === "0") showAll();
  else if (event.key === "Escape") hover(-1);
  else return;
  event.preventDefault();
}

const zoomBy = (factor) => moved().call(zoom.scaleBy, factor);
const showAll = () => moved().call(zoom.transform, d3.zoomIdentity);

// ---- what others call ----

export function setPoints(map) {
  points = map;
  hovered = -1;
  plant();
  const what = map.method === "umap" ? "UMAP" : "two principal axes";
  find("map-note").textContent = `${number.format(map.rows.length)} items on ${what}`;
  redraw();
}

// One of the map's items, by chance.
export function anyPoint() {
  const place = Math.floor(Math.random() * points.rows.length);
  return { row: points.rows[place], generation: points.generation };
}

export function show(changes) {
  shown = { ...shown, ...changes };
  redraw();
}

export function recolour() {
  readColours();
  redraw();
}

export function start(onOpen) {
  open = onOpen;
  readColours();
  new ResizeObserver(([entry]) => {
    size = { width: entry.contentRect.width, height: entry.contentRect.height };
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(size.width * ratio);
    canvas.height = Math.round(size.height * ratio);
    plant();
    draw();
  }).observe(canvas.parentElement);
  surface.call(zoom).on("dblclick.zoom", null);
  canvas.addEventListener("pointermove", (event) => hover(nearest(event.offsetX, event.offsetY)));
  canvas.addEventListener("pointerleave", () => hover(-1));
  canvas.addEventListener("click", (event) => {
    const item = hitItem(event.offsetX, event.offsetY);
    if (item) open({ id: item.id });
    else openPoint(nearest(event.offsetX, event.offsetY));
  });
  canvas.addEventListener("keydown", press);
  find("zoom-in").addEventListener("click", () => zoomBy(1.5));
  find("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  find("zoom-all").addEventListener("click", showAll);
}
