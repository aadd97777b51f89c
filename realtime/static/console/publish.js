// Publishing on a topic, or messaging a user.

import { call } from "./api.js";
import { $, el, say } from "./dom.js";
import { clock, many } from "./words.js";

const KEPT = 10;

const format = () => document.querySelector('input[name="format"]:checked').value;

// The payload as JSON text, just as it was written where it is JSON: no number is rounded.
function payload() {
  const text = $("payload").value;
  if (format() === "text") return JSON.stringify(text);
  try {
    JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${error.message}. A mere text can be sent as Text.`);
  }
  return text;
}

async function send() {
  const [kind, name] = [$("kind").value, $("target").value.trim()];
  const body = `"payload": ${payload()}}`;
  if (kind === "user") {
    const answer = await call("POST", `/users/${encodeURIComponent(name)}/messages`, `{${body}`);
    return answer.delivered
      ? `Delivered to ${many(answer.delivered, "connection")} of ${name}.`
      : `Delivered to nobody: ${name} has no connection.`;
  }
  const answer = await call("POST", "/publish", `{"topic": ${JSON.stringify(name)}, ${body}`);
  const offset = answer.offset === undefined ? "" : ` at offset ${answer.offset}`;
  return `Published on ${name}${offset}.`;
}

$("publish-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter ?? event.target.querySelector("button");
  say($("payload-problem"), "");
  button.disabled = true;
  try {
    const done = await send();
    $("published").prepend(el("li", {}, el("time", { className: "soft" }, clock(Date.now())), ` ${done}`));
    while ($("published").children.length > KEPT) $("published").lastElementChild.remove();
  } catch (error) {
    say($("payload-problem"), error.message);
  }
  button.disabled = false;
  button.focus();
});

export default {
  title: "Publish",
  show: (kind, name) => {
    if (kind !== "topic" && kind !== "user") return;
    $("kind").value = kind;
    $("target").value = name ?? "";
  },
  hide: () => {},
};
