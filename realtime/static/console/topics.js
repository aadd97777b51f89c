// Topics that have subscribers, and of one: who is present, and what was published.

import { call } from "./api.js";
import { $, el, fill, repeat, say, show } from "./dom.js";
import { bytes, count, many, moment } from "./words.js";

const PAGE = 100;
const MOST = 1000;
let pages = 1;
let topic = "";
let older = 20;
let members = 50;

// -- the list ---------------------------------------------------------------------------------

const list = repeat(5, async () => {
  const prefix = $("prefix").value.trim();
  const found = [];
  let after = "";
  for (let page = 0; page < pages && after !== undefined; page += 1) {
    const query = new URLSearchParams({ prefix, after, limit: PAGE });
    const answer = await call("GET", `/topics?${query}`);
    found.push(...answer.topics);
    after = answer.after;
  }
  if (prefix !== $("prefix").value.trim()) return;
  show($("topics-more"), after !== undefined);
  show($("topics-empty"), !found.length);
  fill($("topic-rows"), found, (each) => each.topic, makeRow, (row, each) => {
    say(row.lastElementChild, count(each.subscribers));
    row.classList.toggle("open", each.topic === topic);
  });
}, (error) => say($("topics-state"), error ? error.message : ""));

function makeRow({ topic: name }) {
  const link = el("a", { href: `#topics/${encodeURIComponent(name)}` }, name);
  return el("tr", {}, el("th", { scope: "row", className: "long" }, link), el("td", { className: "number" }));
}

$("prefix").addEventListener("input", () => { pages = 1; list.start(); });
$("topics-more").addEventListener("click", () => { pages += 1; list.start(); });
$("topics-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("prefix").value.trim();
  if (name) location.hash = `#topics/${encodeURIComponent(name)}`;
});

// -- one topic --------------------------------------------------------------------------------

const detail = repeat(5, async () => {
  const shown = topic;
  if (!shown) return;
  const path = `/topics/${encodeURIComponent(shown)}`;
  const [presence, history] = await Promise.allSettled([
    call("GET", `${path}/presence?limit=${members}`),
    call("GET", `${path}/history?reverse=true&limit=${older}`),
  ]);
  if (shown !== topic) return;
  part(presence, "presence-state", showPresence, () => fill($("members"), [], String));
  part(history, "history-state", showHistory, () => fill($("publications"), [], String));
}, (error) => error && say($("topics-state"), error.message));

function part(result, place, showIt, clear) {
  if (result.status === "fulfilled") {
    showIt(result.value);
    return;
  }
  clear();
  say($(place), result.reason.message);
}

function showPresence(page) {
  say($("presence-state"), page.users ? `${many(page.users, "user")}, ${many(page.connections, "connection")}` : "Nobody.");
  show($("members-more"), page.after !== undefined && members < MOST);
  fill($("members"), page.members, (member) => member.user_id, (member) => {
    const name = member.username ?? member.user_id;
    return el("li", {}, el("a", { href: `#users/${encodeURIComponent(member.user_id)}` }, name), el("span", { className: "soft" }));
  }, (item, member) => {
    const state = member.state === undefined ? "" : ` ${JSON.stringify(member.state)}`;
    say(item.lastElementChild, `${member.connections > 1 ? ` ×${member.connections}` : ""}${state}`);
  });
}

function showHistory(page) {
  const shown = page.publications;
  say($("history-state"), shown.length ? "" : "Nothing is kept now.");
  show($("history-more"), shown.length === older && older < MOST);
  fill($("publications"), shown, (each) => `${page.epoch} ${each.offset}`, (each) => {
    const text = JSON.stringify(each.payload);
    const head = el("p", { className: "meta" }, el("b", {}, `#${each.offset}`), el("span", {}, each.from_user), el("span", {}, moment(each.timestamp)));
    return el("li", {}, head, el("p", { className: "payload" }, text.length > 2000 ? `${text.slice(0, 2000)}… (${bytes(text.length)})` : text));
  });
}

$("members-more").addEventListener("click", () => { members = Math.min(members * 4, MOST); detail.start(); });
$("history-more").addEventListener("click", () => { older = Math.min(older * 4, MOST); detail.start(); });

function open(name) {
  if (name === topic) return;
  topic = name;
  older = 20;
  members = 50;
  say($("topic-title"), name || "No topic is open");
  show($("topic-hint"), !name);
  show($("topic-body"), Boolean(name));
  for (const id of ["members", "publications"]) $(id).replaceChildren();
  for (const id of ["presence-state", "history-state"]) say($(id), name ? "…" : "");
  for (const id of ["members-more", "history-more"]) show($(id), false);
  for (const row of $("topic-rows").children) row.classList.toggle("open", row.dataset.key === name);
  $("topic-publish").href = `#publish/topic/${encodeURIComponent(name)}`;
  $("topic-trace").href = `#trace/topic/${encodeURIComponent(name)}`;
  // On a narrow screen it is below the list.
  if (name) $("topic-title").focus();
}

export default {
  title: "Topics",
  show: (name = "") => { open(name); list.start(); detail.start(); },
  hide: () => { list.stop(); detail.stop(); },
};
