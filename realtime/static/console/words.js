// Numbers, times and codes as people read them.

const CLOSED = {
  1000: "the client closed it",
  1001: "the client went away",
  1002: "the client broke the protocol",
  1003: "the client sent a binary frame",
  1006: "the connection was lost, or its client ended without a word",
  1007: "the client sent what is not UTF-8",
  1009: "the client sent a message that was too large",
  1012: "the server restarts",
  4001: "its token had expired",
  4002: "the client read too slowly, and its queue was full",
  4003: "nothing was heard of the client for too long",
  4004: "the client kept sending above its rate limit",
  4005: "the server lost its place in a topic",
  4500: "its session was ended",
  4501: "an operator closed it",
  4502: "the client sent too many malformed messages",
};

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (number) => (number < 100000 ? whole.format(number) : short.format(number));

export const rate = (number) => (number >= 100 ? count(number) : String(Math.round(number * 10) / 10));

export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

export function seconds(value) {
  if (value >= 1) return `${(Math.round(value * 100) / 100).toString()} s`;
  const ms = value * 1000;
  return `${ms >= 10 ? Math.round(ms) : Math.round(ms * 10) / 10} ms`;
}

export function span(total) {
  const days = Math.floor(total / 86400);
  const hours = Math.floor(total / 3600) % 24;
  const minutes = Math.floor(total / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.floor(total)} s`;
}

const two = (number) => String(number).padStart(2, "0");

export function clock(ms) {
  const date = new Date(ms);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function day(ms) {
  const date = new Date(ms);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

export const moment = (ms) => (day(ms) === day(Date.now()) ? clock(ms) : `${day(ms)} ${clock(ms)}`);

export const closed = (code) => `${code}: ${CLOSED[code] ?? "a code of the client's own"}`;

export const bytes = (size) => (size < 10000 ? many(size, "byte") : `${count(size / 1024)} kB`);
