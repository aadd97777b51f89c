// A chart of the last hour, by uPlot, with its values in words beside it.

import uPlot from "./uplot.js";
import { el, say } from "./dom.js";
import { clock } from "./words.js";

const HEIGHT = 150;
// Steps of an axis that has whole numbers only.
const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
const sync = uPlot.sync("hour");
const charts = [];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of charts) chart.redraw(false);
});

// `series` are {label, colour, format, whole}. Answers an element, and `set`, which takes the times and
// a list of values for each series.
export function makeChart(title, series) {
  const readouts = series.map(() => el("b", { className: "value" }, "–"));
  const when = el("span", { className: "soft when" });
  const legend = el("p", { className: "legend" });
  series.forEach((each, number) => {
    const label = series.length > 1 ? el("span", { className: `key ${each.colour}` }, each.label) : null;
    legend.append(el("span", { className: "item" }, readouts[number], " ", label ?? ""));
  });
  const host = el("div", { className: "plot", tabIndex: 0, role: "img" });
  const spoken = el("span", { className: "hidden", role: "status" });
  const card = el("section", { className: "card chart" }, el("div", { className: "head" }, el("h3", {}, title), when), legend, host, spoken);

  const read = (chart) => {
    const index = chart.cursor.idx;
    const [times, ...values] = chart.data;
    const at = index ?? last(values[0]);
    say(when, index === null || index === undefined ? "" : clock(times[index] * 1000));
    values.forEach((list, number) => {
      const value = at < 0 ? null : list[at];
      say(readouts[number], value === null || value === undefined ? "–" : series[number].format(value));
    });
  };

  const axis = { stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const chart = new uPlot(
    {
      width: 300,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, sync: { key: sync.key }, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: true }, y: { range: (_, low, high) => [0, ceiling(high)] } },
      axes: [
        { ...axis, space: 70, size: 26, values: (_, times) => times.map((time) => clock(time * 1000).slice(0, 5)) },
        { ...axis, incrs: series[0].whole ? WHOLE : undefined, size: 46, space: 34, values: (_, values) => values.map((value) => series[0].format(value)) },
      ],
      series: [
        {},
        ...series.map((each, number) => ({
          stroke: () => colour(`--${each.colour}`),
          fill: number === 0 ? () => colour(`--${each.colour}-fill`) : undefined,
          width: 1.5,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [read] },
    },
    [[], ...series.map(() => [])],
    host,
  );
  charts.push(chart);
  new ResizeObserver(() => {
    if (host.clientWidth > 0) chart.setSize({ width: host.clientWidth, height: HEIGHT });
  }).observe(host);
  host.addEventListener("keydown", (event) => {
    if (move(chart, event)) say(spoken, [when, ...readouts].map((each) => each.textContent).join(" "));
  });
  host.addEventListener("blur", () => point(-10));

  const set = (times, values) => {
    chart.setData([times, ...values], false);
    chart.batch(() => {
      chart.setScale("x", { min: times[0], max: times.at(-1) });
    });
    read(chart);
    host.setAttribute("aria-label", describe(title, series, values));
  };
  return { card, set };
}

function last(values) {
  for (let index = values.length - 1; index >= 0; index -= 1) {
    if (values[index] !== null) return index;
  }
  return -1;
}

// A round number with some room below it.
function ceiling(high) {
  if (!(high > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(high * 1.1));
  return Math.ceil((high * 1.1) / unit / 0.5) * unit * 0.5;
}

// The arrow keys do what the mouse does.
function move(chart, event) {
  const times = chart.data[0];
  const step = event.shiftKey ? 12 : 1;
  const from = chart.cursor.idx ?? last(chart.data[1]);
  const to = { ArrowLeft: from - step, ArrowRight: from + step, Home: 0, End: last(chart.data[1]) }[event.key];
  if (event.key === "Escape") point(-10);
  if (to === undefined || !times.length) return false;
  event.preventDefault();
  const index = Math.min(Math.max(to, 0), times.length - 1);
  point(chart.valToPos(times[index], "x"));
  return true;
}

// All charts are of the same width and hour, and are read together.
function point(left) {
  for (const chart of charts) chart.setCursor({ left, top: left });
}

function describe(title, series, values) {
  const parts = series.map((each, number) => {
    const known = values[number].filter((value) => value !== null);
    if (!known.length) return `${each.label}: nothing yet`;
    const numbers = [known.at(-1), Math.min(...known), Math.max(...known)].map(each.format);
    return `${each.label}: now ${numbers[0]}, lowest ${numbers[1]}, highest ${numbers[2]}`;
  });
  return `${title} over the last hour. ${parts.join("; ")}.`;
}
