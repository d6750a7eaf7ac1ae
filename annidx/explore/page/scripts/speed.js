// Owns the panel of recall against time: measuring, the plot, the table, the target of all queries.

import { ask } from "./api.js";
import { duration, find, make, number } from "./dom.js";
import { state } from "./state.js";

const CURVE = [0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995];
const WIDTH = 400;
const HEIGHT = 240;
const EDGE = { left: 46, right: 14, top: 12, bottom: 34 };

let measured = new Map();
let latest = null;

async function measure(target) {
  const note = find("speed-note");
  note.textContent = measured.size ? "Measuring…" : "Finding the true neighbours first…";
  const answer = await ask("measure", { target });
  measured.set(answer.target, answer);
  latest = answer;
  const faster = answer.exact_microseconds / answer.microseconds;
  note.textContent = `Aimed at ${answer.target}: ${(100 * answer.recall).toFixed(1)} % of the true ${answer.k} neighbours found, `
    + `${duration(answer.microseconds)} a query. Comparing with every item takes ${duration(answer.exact_microseconds)}, `
    + `${number.format(Number(faster.toPrecision(2)))} times as long. ${answer.queries} items asked.`;
  show();
}

async function run(targets) {
  const buttons = [find("measure"), find("measure-all")];
  for (const button of buttons) button.disabled = true;
  try {
    for (const target of targets) await measure(target);
  } catch (error) {
    find("speed-note").textContent = error.message;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function show() {
  const all = [...measured.values()].sort((a, b) => a.target - b.target);
  find("speed-table").hidden = !all.length;
  find("speed-table").tBodies[0].replaceChildren(...all.map((one) => make("tr", {},
    make("td", {}, String(one.target)), make("td", {}, one.recall.toFixed(4)), make("td", {}, one.microseconds.toFixed(1)))));
  find("plot").replaceChildren(...(all.length ? [plot(all)] : []));
}

function plot(all) {
  const times = all.map((one) => one.microseconds);
  const [low, high] = [Math.min(...times) / 1.25, Math.max(...times) * 1.25];
  const bottom = Math.min(0.9, Math.floor(Math.min(...all.map((one) => one.recall)) * 10) / 10);
  const x = (time) => EDGE.left + ((Math.log(time / low)) / Math.log(high / low)) * (WIDTH - EDGE.left - EDGE.right);
  const y = (recall) => HEIGHT - EDGE.bottom - ((recall - bottom) / (1 - bottom)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Plot of recall against microseconds a query; the table below has the numbers" });
  for (let i = 0; i <= 4; i++) {
    const recall = bottom + ((1 - bottom) * i) / 4;
    drawing.append(svg("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(recall), y2: y(recall) }),
      svg("text", { x: EDGE.left - 6, y: y(recall) + 4, "text-anchor": "end" }, String(Number(recall.toFixed(3)))));
    const time = low * (high / low) ** (i / 4);
    drawing.append(svg("text", { x: x(time), y: HEIGHT - EDGE.bottom + 15, "text-anchor": i === 4 ? "end" : "middle" }, String(Number(time.toPrecision(2)))));
  }
  drawing.append(svg("text", { x: WIDTH / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "microseconds a query"));
  const line = [...all].sort((a, b) => a.microseconds - b.microseconds).map((one) => `${x(one.microseconds)},${y(one.recall)}`);
  drawing.append(svg("polyline", { class: "curve", points: line.join(" ") }));
  for (const one of all) {
    drawing.append(svg("circle", { cx: x(one.microseconds), cy: y(one.recall), r: one === latest ? 6 : 4, class: one === latest ? "latest" : "" }));
  }
  return drawing;
}

// Another file: what was measured belongs to the one before.
export function forget() {
  measured = new Map();
  latest = null;
  find("speed-note").textContent = "";
  show();
}

export function start(defaultRecall, again) {
  const slider = find("target");
  slider.value = defaultRecall;
  find("target-shown").textContent = slider.value;
  slider.addEventListener("input", () => {
    find("target-shown").textContent = slider.value;
  });
  slider.addEventListener("change", async () => {
    state.recall = Number(slider.value);
    await run([state.recall]);
    again();
  });
  find("measure").addEventListener("click", () => run([Number(slider.value)]));
  find("measure-all").addEventListener("click", () => run(CURVE));
}
