// Server-sent events: why a WebSocket failed, and what stands in its place.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { connected, FakeSocket, make, next, refusal, settle } from './fake.mjs';

let clients = [];
let server;
const keep = (made) => (clients.push(made.client), made);

/** What fetch finds: streams that are fed by hand, and commands that were posted. */
class FakeServer {
  streams = [];
  posts = [];
  /** Answers a stream, or a POST, in another way. */
  answer = () => undefined;

  fetch = async (url, { method, headers, body, signal }) => {
    const other = this.answer(method, this);
    if (method === 'POST') {
      this.posts.push({ url, headers, commands: [JSON.parse(body)].flat() });
      return other ?? new Response('{}', { status: 202 });
    }
    if (other) return other;
    const stream = { url, headers, signal, text: new TextEncoder() };
    const source = new ReadableStream({ start: (controller) => (stream.controller = controller) });
    signal.addEventListener('abort', () => {
      try {
        stream.controller.error(new DOMException('aborted', 'AbortError'));
      } catch {
        // It has ended already.
      }
    });
    stream.write = (text) => stream.controller.enqueue(stream.text.encode(text));
    stream.tell = (type, data, id) =>
      stream.write(`data: ${JSON.stringify({ type, data, id, timestamp: Date.now() })}\n\n`);
    stream.welcome = () =>
      stream.tell('Status', {
        status: 'connected',
        connection_id: 'c1',
        expires_at: Date.now() / 1000 + 3600,
        heartbeat_interval_secs: 30,
        max_frame_size: 65536,
      });
    this.streams.push(stream);
    return new Response(source, { headers: { 'Content-Type': 'text/event-stream' } });
  };

  get commands() {
    return this.posts.flatMap(({ commands }) => commands);
  }
}

const refuse = (status, code, headers = {}, details = {}) =>
  new Response(JSON.stringify({ error: { code, message: '', details } }), { status, headers });

const until = async (condition) => {
  for (let turn = 0; !condition(); turn += 1) {
    if (turn > 500) throw new Error(`waited in vain for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
};

/** A client on a stream. */
async function streaming(options) {
  const made = keep(make({ transport: 'sse', ...options }));
  const connecting = made.client.connect();
  await until(() => server.streams.length);
  server.streams[0].welcome();
  await connecting;
  return made;
}

beforeEach(() => {
  server = new FakeServer();
  mock.method(globalThis, 'fetch', (...rest) => server.fetch(...rest));
});
afterEach(() => {
  for (const client of clients) client.disconnect();
  clients = [];
  mock.restoreAll();
});

test('a stream stands in for blocked WebSockets; the fifth reconnect tries again', async () => {
  const { client } = keep(make());
  const connecting = client.connect();
  (await next(1)).end();
  await until(() => server.streams.length === 1);
  const [stream] = server.streams;
  assert.equal(stream.url, 'http://server/sse');
  assert.equal(stream.headers.Authorization, 'Bearer one');
  stream.welcome();
  await connecting;
  for (let count = 2; count < 6; count += 1) {
    server.streams.at(-1).controller.close();
    await until(() => server.streams.length === count);
    server.streams.at(-1).welcome();
    await until(() => client.connected);
  }
  assert.equal(FakeSocket.all.length, 1);
  server.streams.at(-1).controller.close();
  (await next(2)).welcome();
  assert.equal(client.connected, true);
  FakeSocket.last.end();
  await next(3);
  assert.equal(server.streams.length, 5);
});

test('where WebSockets have worked a stream only says why they do not', async () => {
  const { client, of } = keep(await connected());
  FakeSocket.last.end();
  (await next(2)).end();
  await until(() => server.streams.length === 1);
  (await next(3)).welcome();
  assert.equal(server.streams[0].signal.aborted, true);
  assert.equal(client.connected, true);
  assert.equal(of('disconnected').length, 1);
});

test('a close code before the welcome needs no other reason', async () => {
  const { client } = keep(make());
  const connecting = refusal(client.connect());
  (await next(1)).end(4500, 'ended');
  assert.equal(await connecting, 'CLOSED');
  assert.equal(server.streams.length, 0);
});

test('a refused token is replaced, a forbidden connection is the end', async () => {
  const tokens = ['one', 'two'];
  server.answer = (method) => refuse(401, 'TOKEN_EXPIRED');
  const { client, of } = keep(make({ token: undefined, getToken: () => tokens.shift() }));
  const connecting = client.connect();
  (await next(1)).end();
  const socket = await next(2);
  assert.equal(socket.token, 'two');
  socket.welcome();
  await connecting;
  assert.equal(of('error')[0].code, 'TOKEN_EXPIRED');

  const fixed = keep(make());
  const refused = refusal(fixed.client.connect());
  (await next(1)).end();
  assert.equal(await refused, 'TOKEN_EXPIRED');

  server.answer = () => refuse(403, 'FORBIDDEN');
  const forbidden = keep(make({ getToken: () => 'another' }));
  const connection = refusal(forbidden.client.connect());
  (await next(1)).end();
  assert.equal(await connection, 'FORBIDDEN');
});

test('a server that is full is left alone as long as it wants', async () => {
  server.answer = () => refuse(503, 'SERVER_FULL', { 'Retry-After': '7' });
  const { client, of } = keep(make());
  void client.connect();
  (await next(1)).end();
  await until(() => of('reconnecting').length);
  assert.deepEqual(of('reconnecting'), [{ attempt: 1, delay: 7000 }]);
  assert.equal(of('error')[0].code, 'SERVER_FULL');
});

test('another answer than the protocol has is waited out', async () => {
  server.answer = () =>
    new Response('<html>', { status: 502, headers: { 'Retry-After': 'Wed, 21 Oct 2026 07:28' } });
  const { client, of } = keep(make());
  void client.connect();
  (await next(1)).end();
  await next(2);
  assert.equal(of('reconnecting')[0].delay, 0);
});

test('commands are posted in order, those of a moment together', async () => {
  const { client } = await streaming();
  const answers = [client.broadcast('a', 1), client.broadcast('a', 2)];
  await until(() => server.posts.length === 1);
  const [post] = server.posts;
  assert.equal(post.url, 'http://server/sse/c1');
  assert.equal(post.headers.Authorization, 'Bearer one');
  assert.deepEqual(post.commands.map(({ data }) => data.payload), [1, 2]);
  for (const { id } of post.commands) server.streams[0].tell('Ack', { topic: 'a' }, id);
  await Promise.all(answers);
  for (let number = 0; number < 250; number += 1) void client.broadcast('a', number);
  void client.broadcast('a', 'x'.repeat(60_000));
  void client.broadcast('a', 'last');
  await until(() => server.commands.length === 254);
  assert.deepEqual(server.posts.map(({ commands }) => commands.length), [2, 100, 100, 50, 1, 1]);
  assert.equal(server.commands.at(-1).data.payload, 'last');
});

test('commands that are not taken for the moment are posted again', async () => {
  const answers = [
    refuse(503, 'UNAVAILABLE', {}, { retry_after_ms: 1 }),
    refuse(429, 'RATE_LIMITED', {}, { retry_after_ms: 1 }),
  ];
  const { client, names } = await streaming();
  server.answer = (method) => method === 'POST' && answers.shift();
  void client.broadcast('a', 1);
  void client.broadcast('a', 2);
  await until(() => server.posts.length === 3);
  assert.deepEqual(server.posts[2].commands.map(({ data }) => data.payload), [1, 2]);
  assert.deepEqual(names(), ['connected']);
});

test('a stream that the server does not know any more is begun anew', async () => {
  const { client } = await streaming();
  server.answer = (method) => method === 'POST' && refuse(404, 'NOT_FOUND');
  void client.broadcast('a', 1);
  await until(() => server.streams.length === 2);
  server.answer = () => undefined;
  server.streams[1].welcome();
  await until(() => server.posts.length === 2);
  assert.deepEqual(server.posts[0].commands, server.posts[1].commands);
});

test('a lost POST is a lost connection, and its commands are sent again', async () => {
  const { client } = await streaming();
  server.answer = (method) => method === 'POST' && Promise.reject(new TypeError('network'));
  void client.broadcast('a', 1);
  await until(() => server.streams.length === 2);
  server.answer = () => undefined;
  server.streams[1].welcome();
  await until(() => server.posts.length > 1);
  assert.equal(server.streams[0].signal.aborted, true);
});

test('a stream tells its close code', async () => {
  const { client, of } = await streaming();
  const stream = server.streams[0];
  stream.write('event: close\ndata: {"code": 4501, "reason": "by an operator"}\n\n');
  stream.controller.close();
  await until(() => of('disconnected').length);
  assert.deepEqual(of('disconnected')[0], {
    code: 4501,
    reason: 'by an operator',
    willReconnect: false,
  });
  assert.equal(client.connecting, false);
});

test('events are read however they are cut, and comments are signs of life', async () => {
  const { of } = await streaming();
  const stream = server.streams[0];
  const publication = (payload) =>
    JSON.stringify({ type: 'Broadcast', data: { topic: 'a', payload } });
  const text =
    `:\n\nretry: 2000\n\nid: x\ndata: ${publication('Grüße: a\n\u2028b')}\n\n` +
    `data:${publication('crlf')}\r\n\r\nevent: other\ndata\n\n` +
    `data: ${publication('last')}\n\n`;
  for (const byte of new TextEncoder().encode(text)) {
    stream.controller.enqueue(Uint8Array.of(byte));
  }
  await until(() => of('Broadcast').length === 3);
  assert.deepEqual(
    of('Broadcast').map(({ payload }) => payload),
    ['Grüße: a\n\u2028b', 'crlf', 'last'],
  );
});

test('a renewed token goes with what is posted from then on', async () => {
  const tokens = ['one', 'two'];
  const { client } = await streaming({ token: undefined, getToken: () => tokens.shift() });
  const stream = server.streams[0];
  const sent = client.send({ type: 'Authenticate', data: { token: 'three' } });
  await until(() => server.posts.length === 1);
  const data = { status: 'authenticated', expires_at: Date.now() / 1000 + 3600 };
  stream.tell('Status', data, server.commands[0].id);
  await sent;
  void client.ping();
  await until(() => server.posts.length === 2);
  assert.equal(server.posts[1].headers.Authorization, 'Bearer three');
});

test('disconnect() ends the stream', async () => {
  const { client } = await streaming();
  client.disconnect();
  await settle();
  assert.equal(server.streams[0].signal.aborted, true);
  assert.equal(server.streams.length, 1);
});
