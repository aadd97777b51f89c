// A live trace of a user, a topic, or both: read once a second while it is on.

import { call } from "./api.js";
import { $, el, say } from "./dom.js";
import { bytes, clock, closed, many } from "./words.js";

const KEPT = 1000;
const WAIT = 1000;
let trace = null;
let timer = 0;

function start(user, topic) {
  stop();
  const random = crypto.getRandomValues(new Uint8Array(16));
  const id = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  trace = { id, user, topic, after: {}, lost: {}, nodes: new Set() };
  $("events").replaceChildren();
  say($("trace-problem"), "");
  say($("trace-state"), "Starting …");
  say($("trace-button"), "Stop");
  read(trace);
}

function stop(why = "Stopped.") {
  if (trace === null) return;
  const { id } = trace;
  trace = null;
  clearTimeout(timer);
  say($("trace-button"), "Start");
  say($("trace-state"), why);
  call("DELETE", `/console/trace/${id}`).catch(() => {});
}

async function read(mine) {
  const { id, user, topic, after } = mine;
  const body = { id, after };
  if (user) body.user = user;
  if (topic) body.topic = topic;
  try {
    const { nodes } = await call("POST", "/console/trace", JSON.stringify(body));
    if (mine !== trace) return;
    take(nodes);
  } catch (error) {
    if (mine !== trace) return;
    if (error.status === 400 || error.status === 401 || error.status === 403) {
      stop("");
      say($("trace-problem"), error.message);
      return;
    }
    say($("trace-state"), error.message);
  }
  if (mine === trace) timer = setTimeout(read, WAIT, mine);
}

function take(nodes) {
  const ended = nodes.filter((node) => node.ended);
  for (const node of nodes) {
    trace.nodes.add(node.node_id);
    if (node.last !== undefined) trace.after[node.node_id] = node.last;
    if (node.lost !== undefined) trace.lost[node.node_id] = node.lost;
  }
  const events = nodes.flatMap((node) => node.events.map((event) => ({ ...event, node: node.node_id })));
  events.sort((one, other) => one.at - other.at || one.n - other.n);
  add(events);
  if (ended.some((node) => node.ended === "over") && ended.length === nodes.length) {
    stop("The trace has ended. Start it again to go on.");
    return;
  }
  const lost = Object.values(trace.lost).reduce((sum, number) => sum + number, 0);
  const full = ended.filter((node) => node.ended === "full").length;
  say($("trace-state"), [
    nodes.length > 1 ? `Tracing on ${nodes.length} nodes.` : "Tracing.",
    full ? `${many(full, "node")} took no trace more.` : "",
    lost ? `${many(lost, "event")} more than could be shown.` : "",
  ].filter(Boolean).join(" "));
}

function add(events) {
  if (!events.length) return;
  const list = $("events");
  const below = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  for (const event of events) {
    const { tone, parts, note } = describe(event);
    const node = trace.nodes.size > 1 ? el("span", { className: "id soft" }, event.node) : null;
    list.append(el("li", { className: tone }, el("time", {}, clock(event.at)), el("div", {}, el("p", {}, ...parts), note ? el("p", { className: "why" }, note) : null), node));
  }
  while (list.children.length > KEPT) list.firstElementChild.remove();
  if (below) list.scrollTop = list.scrollHeight;
}

// -- events in words --------------------------------------------------------------------------

const strong = (text) => el("b", {}, text);
const who = (event) => strong(event.username ?? event.user);
const names = (event) => event.topics.join(", ") + (event.more ? ` and ${event.more} more` : "");
const here = () => (trace.nodes.size > 1 ? " on this node" : "");

function content(event) {
  return `${bytes(event.size)}: ${event.shown}${event.cut ? "…" : ""}`;
}

function describe(event) {
  const make = DESCRIPTIONS[event.what];
  return make ? make(event) : { tone: "", parts: [event.what] };
}

// What came of a publication for the user of the trace.
function verdict(event) {
  if (event.user_connections === undefined || !trace.user) return "";
  const user = trace.user;
  if (!event.user_connections) return `${user} has no connection${here()}, so it did not arrive.`;
  if (event.user_had) return `It went to ${event.user_had} of ${many(event.user_connections, "connection")} of ${user}${here()}.`;
  if (event.user_left_out) return `${user} was left out: the publisher asked for no echo, or excluded the connection.`;
  return `${user} is connected${here()}, but has not subscribed to this topic, so it did not arrive.`;
}

function reach(event) {
  if (event.delivered === undefined) return ` was accepted${trace.nodes.size > 1 ? "; each node with subscribers tells its part" : ""}`;
  if (!event.delivered) return " reached nobody: no connection has subscribed";
  return ` went to ${many(event.delivered, "subscriber")}`;
}

function publication(event, verb, tone) {
  const offset = event.offset === undefined ? "" : ` #${event.offset}`;
  const missed = event.delivered === 0 || (trace.topic && event.user_connections !== undefined && !event.user_had);
  const came = event.delivered === undefined ? "" : missed ? "wait" : "good";
  return {
    tone: tone ?? came,
    parts: ["What ", strong(event.from), " published on ", strong(event.topic + offset), verb],
    note: [verdict(event), content(event)].filter(Boolean).join(" "),
  };
}

const DESCRIPTIONS = {
  now: (event) => {
    const parts = [];
    const notes = [];
    let tone = "";
    if (event.of_user !== undefined) {
      const open = event.connections.filter((each) => each.topics.length);
      parts.push(strong(trace.user), event.of_user ? ` has ${many(event.of_user, "connection")}${here()}` : ` has no connection${here()}`);
      if (event.topic !== undefined && event.of_user) parts.push(`, ${open.length || "none"} with a subscription to this`);
      parts.push(". ");
      notes.push(...open.map((each) => `${each.connection} has subscribed to ${names(each)}.`));
      if (!event.of_user || (event.topic !== undefined && !open.length)) tone = "wait";
    }
    if (event.topic !== undefined) {
      parts.push(strong(event.topic), ` has ${many(event.subscribers, "subscriber")} by that name${here()}.`);
      if (event.usable === false) { parts.push(" No rule allows this topic to anybody."); tone = "bad"; }
    }
    if (event.allowed === false) {
      notes.push(`The rules do not let ${trace.user} subscribe: ${event.why}.`);
      tone = "bad";
    }
    return { tone, parts: ["As the trace begins, ", ...parts], note: notes.join(" ") };
  },
  connected: (event) => ({ tone: "good", parts: [who(event), " connected"], note: event.connection }),
  disconnected: (event) => ({ tone: "wait", parts: [who(event), " was disconnected, ", strong(closed(event.code))], note: event.connection }),
  turned_away: (event) => ({
    tone: "bad",
    parts: ["A connection of ", who(event), " was turned away: ", strong(event.code)],
    note: `${event.message}${event.unverified ? " (So says its token, which could not be verified.)" : ""}`,
  }),
  subscribed: (event) => ({ tone: "good", parts: [who(event), " subscribed to ", strong(names(event))], note: event.connection }),
  unsubscribed: (event) => ({ tone: "wait", parts: [who(event), " unsubscribed from ", strong(names(event))], note: event.connection }),
  left: (event) => ({ tone: "wait", parts: [who(event), " left ", strong(names(event)), ": the connection ended"], note: event.connection }),
  refused: (event) => ({
    tone: "bad",
    parts: [who(event), " was refused: ", strong(event.code), event.topics ? ` for ${names(event)}` : ""],
    note: [event.message, event.why].filter(Boolean).join(": "),
  }),
  recovered: (event) => ({ tone: "good", parts: [who(event), ` was sent ${many(event.publications, "missed publication")} of `, strong(names(event))], note: event.connection }),
  published: (event) => publication(event, reach(event)),
  delivered: (event) => publication(event, `${reach(event)}${here()}`),
  repeated: (event) => publication(event, " was a repetition: its key had been used, so nothing was delivered again", "wait"),
  failed: (event) => publication(event, ` was not accepted: ${event.message}`, "bad"),
  direct: (event) => ({
    tone: event.delivered ? "good" : "wait",
    parts: ["A direct message of ", strong(event.from), " to ", strong(event.to), event.delivered ? ` went to ${many(event.delivered, "connection")}` : " reached nobody: there is no such connection"],
    note: content(event),
  }),
};

$("trace-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (trace !== null) {
    stop();
    return;
  }
  const [user, topic] = [$("trace-user").value.trim(), $("trace-topic").value.trim()];
  if (user || topic) start(user, topic);
  else say($("trace-problem"), "Name a user, a topic, or both.");
});

addEventListener("pagehide", () => stop());

export default {
  title: "Trace",
  show: (kind, name) => {
    if (kind !== "user" && kind !== "topic") return;
    if (trace === null) {
      $("trace-user").value = kind === "user" ? name : "";
      $("trace-topic").value = kind === "topic" ? name : "";
      $("trace-button").focus();
    } else {
      $(`trace-${kind}`).value = name;
    }
  },
  // It goes on while other parts of the console are looked at: that is where things are sent.
  hide: () => {},
  leave: () => stop(""),
};
