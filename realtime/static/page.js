"use strict";

// Logs in, keeps one WebSocket open, shows what arrives. Tokens live in this script's memory
// only, and what comes from others reaches the page as text only.

const $ = (id) => document.getElementById(id);
const FIRST_TOPIC = "chat.general";
const MOST_MESSAGES = 500;

const CLOSED = {
  1001: "The server is going away.",
  1002: "The server did not understand the connection.",
  1003: "The server takes text only.",
  1006: "The connection was lost, or the server refused it.",
  1009: "That message was too large for the server.",
  1012: "The server is restarting.",
  4001: "The login has expired.",
  4002: "This page read too slowly.",
  4003: "The server heard nothing of this page for too long.",
  4004: "Too many messages in too short a time.",
  4005: "The server lost its place in a topic.",
  4500: "This session has been ended.",
  4501: "An operator closed the connection.",
  4502: "The server could not read what this page sent.",
};

let session = null; // What POST /sessions answered.
let socket = null;
let attempts = 0;
let timer = 0;
let wanted = ""; // The topic last asked for by the form.
const topics = new Set([FIRST_TOPIC]);

// -- REST ---------------------------------------------------------------------------------------

async function call(method, path, body, token) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error(explain(answer?.error)), { status: response.status });
  return answer;
}

function explain(error) {
  if (!error) return "The server gave an answer that makes no sense.";
  const wait = error.details?.retry_after_ms;
  if (error.code === "INVALID_CREDENTIALS") return "The username or the password is wrong.";
  if (error.code === "RATE_LIMITED") {
    return wait ? `Too fast: wait ${Math.ceil(wait / 1000)} s, then try again.` : "Too fast: wait a moment.";
  }
  return error.details?.topic ? `${error.message}: ${error.details.topic}` : error.message;
}

async function pollHealth() {
  let text, look;
  try {
    const health = await (await fetch("/health")).json();
    const count = health.active_connections;
    const most = health.max_connections.toLocaleString();
    text = `${count.toLocaleString()} ${count === 1 ? "connection" : "connections"} of ${most}`;
    look = health.status === "healthy" ? "good" : "wait";
    if (health.reason) text += ` · ${health.reason.toLowerCase()}`;
  } catch {
    text = "The server cannot be reached";
    look = "bad";
  }
  $("health-text").textContent = text;
  $("health-dot").className = `dot ${look}`;
}

// -- login --------------------------------------------------------------------------------------

async function logIn(event) {
  event.preventDefault();
  const button = event.submitter ?? $("login-form").querySelector("button");
  button.disabled = true;
  try {
    session = await call("POST", "/sessions", {
      username: $("username").value,
      password: $("password").value,
    });
  } catch (error) {
    return notify(error.message);
  } finally {
    button.disabled = false;
    $("password").value = "";
  }
  notify("");
  $("login").hidden = true;
  $("chat").hidden = false;
  $("messages").replaceChildren();
  attempts = 0;
  connect();
  $("text").focus();
}

function leave(why) {
  clearTimeout(timer);
  session = null;
  const old = socket;
  socket = null;
  old?.close(1000);
  $("chat").hidden = true;
  $("login").hidden = false;
  notify(why);
  $("username").focus();
}

async function logOut() {
  const { session_id, access_token, refresh_token } = session;
  leave("");
  try {
    await call("DELETE", `/sessions/${encodeURIComponent(session_id)}`, null, access_token).catch(
      async (error) => {
        if (error.status !== 401) throw error;
        const renewed = await call("POST", "/sessions/refresh", { refresh_token });
        await call("DELETE", `/sessions/${encodeURIComponent(session_id)}`, null, renewed.access_token);
      },
    );
  } catch (error) {
    if (error.status !== 401) notify(`You are logged out here, but the session may live on: ${error.message}`);
  }
}

async function renew() {
  const mine = session;
  const renewed = await call("POST", "/sessions/refresh", { refresh_token: mine.refresh_token });
  Object.assign(mine, renewed);
}

// -- WebSocket ----------------------------------------------------------------------------------

function connect() {
  showLink("wait", "Connecting …");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  // As a subprotocol the token stays out of addresses, and so out of logs.
  const mine = new WebSocket(`${scheme}//${location.host}/ws`, [`access_token.${session.access_token}`]);
  socket = mine;
  mine.onopen = () => {
    attempts = 0;
    notify("");
    showLink("good", `Connected as ${session.user.username}`);
    if (topics.size) send("Subscribe", { topics: [...topics] });
    pollHealth();
  };
  mine.onmessage = (event) => {
    if (mine === socket) receive(JSON.parse(event.data));
  };
  mine.onclose = (event) => {
    if (mine === socket) closed(event);
  };
}

function closed({ code, reason }) {
  pollHealth();
  const why = CLOSED[code] ?? (reason || `The connection was closed (${code}).`);
  // DESIGN: from 4500 on a client should not come back by itself.
  if (code >= 4500) return leave(`${why} Log in again.`);
  const wait = Math.min(30, 2 ** attempts) * (0.5 + Math.random() / 2);
  attempts += 1;
  showLink("wait", "Connecting again …");
  notify(`${why} Trying again in ${Math.ceil(wait)} s.`);
  clearTimeout(timer);
  timer = setTimeout(() => comeBack(code), wait * 1000);
}

async function comeBack(code) {
  const mine = session;
  // A refused handshake looks like any lost connection here, so the token may be why.
  if (code === 4001 || attempts > 1) {
    try {
      await renew();
    } catch (error) {
      if (session !== mine) return;
      if (error.status === 401) return leave("Your login has ended. Log in again.");
    }
  }
  if (session === mine) connect();
}

function send(type, data) {
  if (socket?.readyState !== WebSocket.OPEN) {
    notify("There is no connection at the moment.");
    return false;
  }
  socket.send(JSON.stringify({ type, data }));
  return true;
}

function receive({ type, data, timestamp }) {
  if (type === "Broadcast") showMessage(data, timestamp, data.topic);
  else if (type === "DirectMessage") showMessage(data, timestamp, "to you");
  else if (type === "Error") notify(explain(data));
  else if (type === "Status") showStatus(data);
}

async function showStatus(data) {
  if (data.status === "subscribed") {
    for (const { topic } of data.topics) {
      topics.add(topic);
      showEvent(`Subscribed to ${topic}`);
      if (topic === wanted) aim(topic);
    }
    showTopics();
  } else if (data.status === "unsubscribed") {
    for (const topic of data.topics) {
      topics.delete(topic);
      showEvent(`Left ${topic}`);
    }
    showTopics();
  } else if (data.status === "token_expiring") {
    try {
      await renew();
      send("Authenticate", { token: session.access_token });
    } catch (error) {
      notify(`The login could not be renewed: ${error.message}`);
    }
  } else if (data.status === "draining") {
    notify("The server is about to restart.");
  }
}

// -- what is shown ------------------------------------------------------------------------------

function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  $("notice").className = "notice bad";
}

function showLink(look, text) {
  $("link-dot").className = `dot ${look}`;
  $("link-text").textContent = text;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function aim(topic) {
  wanted = "";
  $("kind").value = "topic";
  $("target").value = topic;
}

function showTopics() {
  $("topics").replaceChildren(
    ...[...topics].map((topic) => {
      const item = document.createElement("li");
      const choose = element("button", "", topic);
      choose.type = "button";
      choose.title = `Send to ${topic}`;
      choose.onclick = () => {
        aim(topic);
        $("text").focus();
      };
      const drop = element("button", "", "×");
      drop.type = "button";
      drop.setAttribute("aria-label", `Leave ${topic}`);
      drop.onclick = () => send("Unsubscribe", { topics: [topic] });
      item.append(choose, drop);
      return item;
    }),
  );
}

function showMessage({ payload, from_user }, timestamp, where) {
  const own = from_user === session.user.id;
  const known = payload !== null && typeof payload === "object" && typeof payload.message === "string";
  const named = known && typeof payload.sender === "string" ? payload.sender : "";
  const item = element("li", own ? "own" : "", "");
  const meta = element("div", "meta", "");
  meta.append(element("span", "who", own ? "You" : named || from_user));
  if (!own && named) meta.append(element("span", "id", from_user));
  meta.append(element("span", "", where), element("time", "", new Date(timestamp).toLocaleTimeString()));
  item.append(meta, element("div", "text", known ? payload.message : JSON.stringify(payload)));
  append(item);
}

function showEvent(text) {
  append(element("li", "event", text));
}

function append(item) {
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  list.append(item);
  while (list.children.length > MOST_MESSAGES) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// -- what people do -----------------------------------------------------------------------------

function subscribe(event) {
  event.preventDefault();
  const topic = $("new-topic").value.trim();
  if (topic && send("Subscribe", { topics: [topic] })) {
    notify("");
    wanted = topic;
    $("new-topic").value = "";
  }
}

function sendMessage(event) {
  event.preventDefault();
  const target = $("target").value.trim();
  const payload = { message: $("text").value, sender: session.user.username };
  const toUser = $("kind").value === "user";
  const sent = toUser
    ? send("DirectMessage", { target_user: target, payload })
    : send("Broadcast", { topic: target, payload });
  if (!sent) return;
  notify("");
  $("text").value = "";
  if (toUser) showEvent(`To ${target}: ${payload.message}`);
  else if (!topics.has(target)) showEvent(`Sent to ${target}, to which you are not subscribed`);
}

$("login-form").addEventListener("submit", logIn);
$("logout").addEventListener("click", logOut);
$("subscribe-form").addEventListener("submit", subscribe);
$("send-form").addEventListener("submit", sendMessage);
$("kind").addEventListener("change", () => {
  $("target").value = $("kind").value === "topic" ? FIRST_TOPIC : "";
  $("target").focus();
});
showTopics();
pollHealth();
setInterval(() => {
  if (!document.hidden) pollHealth();
}, 3000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) pollHealth();
});
