// The console: logging in, and which of its parts is seen.

import { login, loggedIn, logout, onEnd, useToken, whoAmI } from "./api.js";
import { $, say, show } from "./dom.js";
import overview from "./overview.js";
import publish from "./publish.js";
import topics from "./topics.js";
import trace from "./trace.js";
import users from "./users.js";

const views = { overview, topics, users, publish, trace };
let current = null;

const notice = (text) => say($("notice"), text);

// `#topics/chat.general` shows the part `topics` with that argument.
function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  const chosen = name in views ? name : "overview";
  const open = loggedIn();
  const wanted = open ? chosen : null;
  if (current !== null && current !== wanted) views[current].hide();
  current = wanted;
  show($("login"), !open);
  show($("nav"), open);
  show($("account"), open);
  say($("who"), whoAmI());
  for (const each of Object.keys(views)) show($(each), each === wanted);
  for (const link of $("nav").children) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = open ? `${views[chosen].title} · Realtime console` : "Realtime console";
  if (open) views[chosen].show(...rest.map(decode));
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function enter(form, act) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    notice("");
    try {
      await act();
      form.reset();
      route();
      $("main").focus();
    } catch (error) {
      notice(error.message);
    }
    button.disabled = false;
  });
}

enter($("login-form"), () => login($("username").value, $("password").value));
enter($("token-form"), () => useToken($("token").value.trim()));

function leave(text) {
  for (const view of Object.values(views)) view.leave?.();
  notice(text);
  route();
  $("username").focus();
}

onEnd((text) => leave(text));
$("logout").addEventListener("click", async () => {
  for (const view of Object.values(views)) view.leave?.();
  await logout();
  // What was seen goes with who saw it.
  location.reload();
});
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
addEventListener("hashchange", route);
route();
if (!loggedIn()) $("username").focus();
