// Owns the panel that tells what the file holds and how much of it is in memory.

import { bytes, find, make, number, shorten } from "./dom.js";

const MOST_SECTIONS = 12;

export function showMemory(share) {
  find("memory").value = share;
  find("memory-shown").textContent = `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

export function showFile(about) {
  const info = about.info;
  const facts = [
    ["file", info.path || "in memory"],
    ["items", number.format(info.items)],
    ["vectors", `${number.format(info.dim)} dimensions, kept as ${info.dtype}`],
    ["metric", info.metric],
    ["ids", info.ids === "int" ? "integers" : "text"],
    ["size", `${bytes(info.file_bytes)}, ${bytes(about.code_bytes)} of it beside the vectors`],
    ["leaves", number.format(info.leaves)],
    ["aims at", `recall ${info.default_recall}`],
    ["seen here", `file ${about.generation}`],
    ["identity", info.identity],
    ["written by", `annidx ${info.library_version}, format ${info.format_version}`],
  ];
  find("facts").replaceChildren(...facts.flatMap(([name, value]) =>
    [make("dt", {}, name), make("dd", {}, make("bdi", {}, shorten(String(value), 400)))]));
  const sections = [...info.sections].sort((a, b) => b.bytes - a.bytes).filter((one) => one.bytes).slice(0, MOST_SECTIONS);
  find("sections").replaceChildren(...sections.map((one) => {
    const bar = make("span", { className: "bar" });
    bar.style.width = `${(100 * one.bytes) / sections[0].bytes}%`;
    return make("li", {}, make("span", {}, one.name.replaceAll("_", " ")), make("span", { className: "quiet" }, bytes(one.bytes)), bar);
  }));
  find("metadata").hidden = !info.metadata;
  find("metadata-text").textContent = info.metadata ? JSON.stringify(info.metadata, null, 2) : "";
  showMemory(about.in_memory);
}
