// A server in memory: WebSockets that tests open, feed and close by hand.
import { pathToFileURL } from 'node:url';

export const { RealtimeClient, RealtimeError, topicMatches } = await import(
  process.env.REALTIME_CLIENT
    ? pathToFileURL(process.env.REALTIME_CLIENT).href
    : new URL('../dist/index.js', import.meta.url).href
);

/** Let all that is under way go on as far as it gets. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }

  sent = [];
  closedWith = undefined;

  constructor(url, protocols) {
    this.url = url;
    this.token = protocols[0].replace('access_token.', '');
    FakeSocket.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
  }

  /** The server closes, or the network does. */
  end(code = 1006, reason = '') {
    this.onclose?.({ code, reason });
  }

  tell(type, data, id) {
    this.onmessage?.({ data: JSON.stringify({ type, data, id, timestamp: Date.now() }) });
  }

  welcome(more = {}) {
    this.tell('Status', {
      status: 'connected',
      connection_id: 'c1',
      user_id: 'u1',
      expires_at: Date.now() / 1000 + 3600,
      heartbeat_interval_secs: 30,
      client_timeout_secs: 60,
      max_frame_size: 65536,
      ...more,
    });
  }

  /** Commands of a type, as they were sent. */
  of(type) {
    return this.sent.filter((each) => each.type === type);
  }

  /** Answer a Subscribe, by default the last one. */
  subscribed(command = this.of('Subscribe').at(-1), status = {}) {
    const topics = command.data.topics.map((topic) => ({ topic, ...status }));
    this.tell('Status', { status: 'subscribed', topics }, command.id);
  }

  publish(topic, offset, epoch = 'e', payload = offset) {
    this.tell('Broadcast', { topic, payload, from_user: 'u2', offset, epoch });
  }
}

/** A client on fake sockets, and all that it tells. */
export function make(options = {}) {
  FakeSocket.all = [];
  const client = new RealtimeClient('ws://server/ws', {
    token: 'one',
    WebSocket: FakeSocket,
    minDelay: 0,
    maxDelay: 0,
    ...options,
  });
  const told = [];
  for (const name of ['connected', 'disconnected', 'reconnecting', 'gap', 'error', 'Broadcast']) {
    client.on(name, (data) => told.push([name, data]));
  }
  const names = () => told.map(([name]) => name);
  const of = (name) => told.filter((each) => each[0] === name).map((each) => each[1]);
  return { client, told, names, of };
}

/** A client that is connected. */
export async function connected(options) {
  const made = make(options);
  const connecting = made.client.connect();
  await settle();
  FakeSocket.last.welcome();
  await connecting;
  return made;
}

/** Wait for a new socket, which comes after a delay of nothing. */
export async function next(count) {
  for (let turn = 0; FakeSocket.all.length < count; turn += 1) {
    if (turn > 200) throw new Error(`there are ${FakeSocket.all.length} sockets, not ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return FakeSocket.last;
}

/** What a promise is rejected with. */
export const refusal = (promise) =>
  promise.then(
    (value) => assertNever(value),
    (error) => error.code,
  );

function assertNever(value) {
  throw new Error(`fulfilled by ${JSON.stringify(value)}`);
}
