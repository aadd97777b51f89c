// The last hour of all nodes, or of one, and the nodes there are.

import { call } from "./api.js";
import { makeChart } from "./charts.js";
import { $, el, fill, repeat, say, show } from "./dom.js";
import { count, rate, seconds, span } from "./words.js";

const HOUR = 3600;
// Samples by node and second.
const nodes = new Map();
let latest = 0;
let period = 5;
let now = 0;

const connections = makeChart("Connections", [{ label: "Connections", colour: "accent", format: count, whole: true }]);
const messages = makeChart("Messages a second", [
  { label: "out", colour: "accent", format: rate },
  { label: "in", colour: "blue", format: rate },
]);
const errors = makeChart("Errors a second", [{ label: "Errors", colour: "bad", format: rate }]);
const lag = makeChart("Event-loop lag", [{ label: "Lag", colour: "wait", format: seconds }]);
$("charts").append(connections.card, messages.card, errors.card, lag.card);

const samples = repeat(5, async () => {
  const answer = await call("GET", `/console/samples?after=${latest}`);
  ({ period, now } = answer);
  for (const { node_id, samples } of answer.nodes) {
    if (!nodes.has(node_id)) nodes.set(node_id, new Map());
    const own = nodes.get(node_id);
    let before = 0;
    for (const [second, ...numbers] of samples) {
      if (own.has(second)) continue;
      before ||= [...own.keys()].at(-1) ?? second - period;
      own.set(second, [Math.max(second - before, period), ...numbers]);
      before = second;
    }
  }
  // A node may be a beat behind the others.
  latest = Math.max(latest, ...answer.nodes.map((node) => node.samples.at(-1)?.[0] ?? 0)) - 2 * period;
  latest = Math.max(latest, 0);
  forget();
  choose();
  draw();
}, (error) => say($("overview-state"), error ? error.message : ""));

const info = repeat(5, async () => {
  const { nodes: found } = await call("GET", "/info");
  show($("nodes"), found !== undefined);
  fill($("node-rows"), found ?? [], (node) => node.node_id, makeNode, updateNode);
}, (error) => error && say($("overview-state"), error.message));

$("node").addEventListener("change", draw);

function forget() {
  for (const [name, own] of nodes) {
    for (const second of own.keys()) {
      if (second > now - HOUR - 60) break;
      own.delete(second);
    }
    if (!own.size) nodes.delete(name);
  }
}

function choose() {
  const select = $("node");
  show($("node-choice"), nodes.size > 1);
  const options = ["", ...nodes.keys()];
  fill(select, options, (name) => name, (name) => el("option", { value: name }, name || "All together"));
  if (!options.includes(select.value)) select.value = "";
}

function draw() {
  const chosen = $("node").value;
  const sources = chosen && nodes.has(chosen) ? [nodes.get(chosen)] : [...nodes.values()];
  const end = Math.floor(now / period) * period;
  const times = Array.from({ length: HOUR / period + 1 }, (_, number) => end - HOUR + number * period);
  const columns = [[], [], [], [], []];
  for (const time of times) {
    const found = sources.map((own) => own.get(time)).filter(Boolean);
    const sum = (place, each) => found.length ? found.reduce((total, sample) => total + each(sample[place], sample[0]), 0) : null;
    columns[0].push(sum(1, (value) => value));
    for (const place of [2, 3, 4]) columns[place - 1].push(sum(place, (value, elapsed) => value / elapsed));
    columns[4].push(found.length ? Math.max(...found.map((sample) => sample[5])) : null);
  }
  connections.set(times, [columns[0]]);
  messages.set(times, [columns[2], columns[1]]);
  errors.set(times, [columns[3]]);
  lag.set(times, [columns[4]]);
}

function makeNode(node) {
  const state = el("td");
  return el("tr", {}, el("th", { scope: "row", className: "id" }, node.node_id), state, el("td", { className: "number" }), el("td", { className: "number" }), el("td", { className: "number version" }));
}

function updateNode(row, node) {
  const [, state, connections, up, version] = row.children;
  const healthy = node.status === "healthy";
  if (state.dataset.state !== node.status) {
    state.dataset.state = node.status;
    state.replaceChildren(el("span", { className: `dot ${healthy ? "good" : "bad"}` }), ` ${node.status}`);
  }
  say(connections, count(node.connections));
  say(up, span(node.uptime_seconds));
  say(version, node.version);
}

export default {
  title: "Overview",
  show: () => { samples.start(); info.start(); },
  hide: () => { samples.stop(); info.stop(); },
};
