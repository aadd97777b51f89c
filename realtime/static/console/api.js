// The session and the server's answers. Tokens live in this tab: in memory, and in sessionStorage
// so that reloading the page is not logging out.

const KEY = "realtime-console";
// Milliseconds before its end at which an access token is renewed.
const EARLY = 60_000;
const PLACE = /^[\w.:-]+$/;

let session = load();
let renewing = null;
let ended = () => {};

export class ApiError extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const loggedIn = () => session !== null;
export const whoAmI = () => session?.name ?? "";
export const onEnd = (handler) => { ended = handler; };

// -- the session ------------------------------------------------------------------------------

export async function login(username, password) {
  const answer = await ask("POST", "/sessions", JSON.stringify({ username, password }));
  keep({
    token: answer.access_token,
    refresh: answer.refresh_token,
    until: Date.now() + answer.expires_in * 1000,
    id: answer.session_id,
    name: answer.user.username,
  });
  await judge(answer.user.username);
}

export async function useToken(token) {
  keep({ token, refresh: null, until: Infinity, id: null, name: "by access token" });
  await judge("This token's user");
}

export async function logout() {
  const { id, token } = session ?? {};
  keep(null);
  if (id) await ask("DELETE", `/sessions/${encodeURIComponent(id)}`, undefined, token).catch(() => {});
}

// The server says who may see the console: nothing here is worth asking the token itself.
async function judge(name) {
  try {
    await ask("GET", `/console/samples?after=${2 ** 39}`, undefined, session.token);
  } catch (error) {
    await logout();
    if (error.status !== 403) throw error;
    throw new ApiError(`${name} may not use the console: that needs the role admin.`, 403, error.code);
  }
}

function keep(value) {
  session = value;
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, JSON.stringify(value));
}

function load() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY));
    return kept && { ...kept, until: kept.until ?? Infinity };
  } catch {
    return null;
  }
}

// Renews the access token, once for all who wait for it.
function renew() {
  renewing ??= ask("POST", "/sessions/refresh", JSON.stringify({ refresh_token: session.refresh }))
    .then((answer) => {
      if (session === null) return;
      keep({
        ...session,
        token: answer.access_token,
        refresh: answer.refresh_token ?? session.refresh,
        until: Date.now() + answer.expires_in * 1000,
      });
    })
    .finally(() => { renewing = null; });
  return renewing;
}

// -- asking -----------------------------------------------------------------------------------

// Asks as the admin; `body` is JSON text. What cannot be mended by a new token ends the session.
export async function call(method, path, body) {
  if (session === null) throw new ApiError("You are logged out.", 401);
  try {
    if (session.refresh && session.until - Date.now() < EARLY) await renew();
    try {
      return await ask(method, path, body, session?.token);
    } catch (error) {
      if (error.status !== 401 || !session?.refresh) throw error;
      await renew();
      return await ask(method, path, body, session?.token);
    }
  } catch (error) {
    if (error.status === 401 && session !== null) {
      keep(null);
      ended("Your session has ended. Log in again.");
    }
    throw error;
  }
}

async function ask(method, path, body, token) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body });
  } catch {
    throw new ApiError("The server cannot be reached.");
  }
  if (response.status === 204) return null;
  const answer = parse(await response.text().catch(() => ""));
  if (response.ok && answer !== undefined) return answer;
  throw new ApiError(explain(response.status, answer?.error), response.status, answer?.error?.code);
}

// Whole numbers that JavaScript would round stay as they were written, where the browser can.
function parse(text) {
  const exact = (_, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source && JSON.rawJSON
      ? JSON.rawJSON(context.source)
      : value;
  try {
    return JSON.parse(text, exact);
  } catch {
    return undefined;
  }
}

function explain(status, error) {
  if (!error) return `The server gave an answer that makes no sense (${status}).`;
  const wait = error.details?.retry_after_ms;
  if (error.code === "INVALID_CREDENTIALS") return "The username or the password is wrong.";
  if (error.code === "RATE_LIMITED" && wait) return `Too fast: wait ${Math.ceil(wait / 1000)} s, then try again.`;
  const field = error.details?.field;
  const place = typeof field === "string" && PLACE.test(field) ? ` (${field})` : "";
  return /[.!?]$/.test(error.message) ? error.message : `${error.message}${place}.`;
}
