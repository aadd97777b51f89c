// Connections, of everybody or of one user, and closing them.

import { call } from "./api.js";
import { $, el, fill, repeat, say, show, sureButton } from "./dom.js";
import { count, day, many } from "./words.js";

const PAGE = 100;
let user = "";
let pages = 1;
let told = "";

const list = repeat(5, async () => {
  const asked = user;
  const found = [];
  let after = "";
  for (let page = 0; page < pages && after !== undefined; page += 1) {
    const query = new URLSearchParams({ limit: PAGE });
    if (asked) query.set("user", asked);
    if (after) query.set("after", after);
    const answer = await call("GET", `/connections?${query}`);
    found.push(...answer.connections);
    after = answer.after;
  }
  if (asked !== user) return;
  show($("users-more"), after !== undefined);
  show($("users-empty"), !found.length);
  say($("users-empty"), asked ? `${asked} has no connection.` : "No connection is open.");
  show($("close-all"), found.length > 0);
  fill($("connection-rows"), found, (each) => each.connection_id, makeRow, (row, each) => {
    say(row.children[2], count(each.subscriptions));
  });
}, (error) => say($("users-state"), error ? error.message : told));

function makeRow(each) {
  const name = each.username ?? each.user_id;
  const who = el("th", { scope: "row", className: "long" }, el("a", { href: `#users/${encodeURIComponent(each.user_id)}` }, name));
  const close = sureButton("Close", "Sure?", () => end(each.connection_id));
  close.setAttribute("aria-label", `Close connection ${each.connection_id} of ${name}`);
  return el("tr", {}, who, el("td", { className: "id" }, each.connection_id), el("td", { className: "number" }), el("td", { className: "number" }, close));
}

async function end(id) {
  try {
    await call("DELETE", `/connections/${encodeURIComponent(id)}`);
    told = `Connection ${id} was closed.`;
  } catch (error) {
    told = error.status === 404 ? `Connection ${id} had ended already.` : error.message;
  }
  say($("users-state"), told);
  list.start();
}

async function endAll() {
  try {
    const { closed } = await call("DELETE", `/users/${encodeURIComponent(user)}/connections`);
    told = `${many(closed, "connection")} of ${user} ${closed === 1 ? "was" : "were"} closed.`;
  } catch (error) {
    told = error.message;
  }
  say($("users-state"), told);
  list.start();
}

$("close-all").append(sureButton("Close all connections", "Really close all?", endAll));

$("users-more").addEventListener("click", () => { pages += 1; list.start(); });
$("users-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("user").value.trim();
  const hash = name ? `#users/${encodeURIComponent(name)}` : "#users";
  if (location.hash === hash) open(name);
  else location.hash = hash;
});

async function account(name) {
  say($("account-line"), "…");
  let line;
  try {
    const found = await call("GET", `/console/users/${encodeURIComponent(name)}`);
    const roles = found.roles.length ? found.roles.join(", ") : "no role";
    line = `${found.username} is ${found.id}, with ${roles}, since ${day(found.created_at * 1000)}${found.disabled ? "; disabled, so may not log in" : ""}.`;
  } catch (error) {
    line = error.status === 404 ? "No account here has this name; another issuer may know it." : error.message;
  }
  if (name === user) say($("account-line"), line);
}

function open(name) {
  if (name !== user) {
    $("connection-rows").replaceChildren();
    show($("users-empty"), false);
    told = "";
    say($("users-state"), "");
  }
  user = name;
  pages = 1;
  if (document.activeElement !== $("user")) $("user").value = name;
  show($("account-box"), Boolean(name));
  show($("close-all"), false);
  $("user-trace").href = `#trace/user/${encodeURIComponent(name)}`;
  if (name) account(name);
  list.start();
}

export default { title: "Users", show: (name = "") => open(name), hide: () => list.stop() };
