// What is hard to have a real server do: things that happen at the same time, or too late.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { connected, FakeSocket, make, next, refusal, settle, topicMatches } from './fake.mjs';

let clients = [];
const keep = (made) => (clients.push(made.client), made);
// Without a server a WebSocket that fails has no reason: the network is gone.
const gone = () => Promise.reject(new TypeError('no network'));
beforeEach(() => mock.method(globalThis, 'fetch', gone));
afterEach(() => {
  for (const client of clients) client.disconnect();
  clients = [];
  mock.restoreAll();
  mock.timers.reset();
});
process.on('unhandledRejection', (error) => {
  throw error;
});

// -- connecting ---------------------------------------------------------------------------------

test('connect() twice is one connection', async () => {
  const { client } = keep(make());
  const both = [client.connect(), client.connect()];
  await settle();
  FakeSocket.last.welcome();
  assert.deepEqual(await both[0], await both[1]);
  await client.connect();
  assert.equal(FakeSocket.all.length, 1);
  assert.equal(FakeSocket.last.token, 'one');
});

test('without bounds of time it waits for ever', async () => {
  const { client } = keep(make({ commandTimeout: Infinity, connectTimeout: Infinity }));
  const settled = [];
  const note = (outcome) => settled.push(outcome);
  client.connect().then(note, note);
  client.ping().then(note, note);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(settled, []);
  assert.equal(FakeSocket.all.length, 1);
  assert.equal(FakeSocket.last.closedWith, undefined);
});

test('disconnect() in a handshake ends it, and connect() begins anew', async () => {
  const { client, names } = keep(make());
  const connecting = refusal(client.connect());
  await settle();
  const first = FakeSocket.last;
  client.disconnect();
  assert.equal(first.closedWith, 1000);
  assert.equal(await connecting, 'CLOSED');
  first.welcome();
  first.end();
  assert.equal(client.connected, false);
  const again = client.connect();
  await settle();
  FakeSocket.last.welcome();
  await again;
  assert.equal(FakeSocket.all.length, 2);
  assert.deepEqual(names(), ['disconnected', 'connected']);
});

test('disconnect() while a token is awaited opens no socket', async () => {
  let give;
  const getToken = () => new Promise((resolve) => (give = resolve));
  const { client } = keep(make({ token: undefined, getToken }));
  const connecting = refusal(client.connect());
  await settle();
  client.disconnect();
  give('late');
  await settle();
  assert.equal(await connecting, 'CLOSED');
  assert.equal(FakeSocket.all.length, 0);
});

test('disconnect() in a handler of the welcome is the end', async () => {
  const { client, names } = keep(make());
  client.on('Status', () => client.disconnect());
  client.subscribe('a');
  void client.connect();
  await settle();
  FakeSocket.last.welcome();
  await settle();
  assert.equal(client.connected, false);
  assert.deepEqual(names(), ['disconnected']);
});

test('connect() in a handler of the end is obeyed', async () => {
  const { client } = keep(await connected());
  client.on('disconnected', ({ code }) => code === 4501 && client.connect());
  FakeSocket.last.end(4501, 'closed by an operator');
  (await next(2)).welcome();
  assert.equal(client.connected, true);
});

test('a socket that does not come about in time is given up', async () => {
  const { client } = keep(make({ connectTimeout: 5 }));
  void client.connect();
  await next(2);
  assert.equal(FakeSocket.all[0].closedWith, 1000);
  assert.equal(client.connecting, true);
});

test('close codes decide, and what waits is told', async () => {
  for (const code of [1000, 1002, 1003, 1007, 1009, 4500, 4999]) {
    const { client, of } = keep(await connected());
    const waiting = refusal(client.broadcast('a', 1));
    FakeSocket.last.end(code, 'why');
    assert.equal(await waiting, 'CLOSED');
    assert.deepEqual(of('disconnected'), [{ code, reason: 'why', willReconnect: false }]);
    assert.equal(await refusal(client.broadcast('a', 1)), 'CLOSED');
    assert.equal(FakeSocket.all.length, 1);
  }
  for (const code of [1001, 1006, 1012, 4000, 4002, 4005, 4499]) {
    const { of } = keep(await connected());
    FakeSocket.last.end(code);
    await next(2);
    assert.equal(of('disconnected')[0].willReconnect, true);
  }
});

test('delays have full jitter, and begin anew only after a stable connection', async () => {
  mock.method(Math, 'random', () => 0.5);
  const { client, of } = keep(make({ minDelay: 2, maxDelay: 16, stableAfter: 20 }));
  void client.connect();
  await next(1);
  for (let count = 2; count < 7; count += 1) {
    FakeSocket.last.welcome();
    FakeSocket.last.end();
    await next(count);
  }
  assert.deepEqual(of('reconnecting').map(({ delay }) => delay), [1, 2, 4, 8, 8]);
  FakeSocket.last.welcome();
  await new Promise((resolve) => setTimeout(resolve, 25));
  FakeSocket.last.end();
  await next(7);
  assert.deepEqual(of('reconnecting').at(-1), { attempt: 1, delay: 1 });
});

// -- commands -----------------------------------------------------------------------------------

test('commands keep their order and keys over connections, and are answered once', async () => {
  const { client } = keep(make());
  const first = client.broadcast('a', 1);
  void client.connect();
  await settle();
  const socket = FakeSocket.last;
  socket.welcome();
  const second = client.broadcast('a', 2);
  const third = client.sendDirectMessage('bob', undefined);
  assert.deepEqual(socket.sent.map(({ data }) => data.payload), [1, 2, null]);
  const [one, two, three] = socket.sent;
  socket.tell('Ack', { topic: 'a', offset: 1, epoch: 'e' }, one.id);
  socket.end();
  const again = await next(2);
  again.welcome();
  assert.deepEqual(again.sent, [two, three]);
  assert.match(two.data.key, /^[\w-]{22}$/);
  again.tell('Ack', { delivered: 2 }, three.id);
  again.tell('Ack', { topic: 'a' }, two.id);
  again.tell('Ack', { topic: 'a' }, two.id);
  // What the old connection says too late is not heard.
  socket.tell('Error', { code: 'FORBIDDEN', message: '', details: {} }, two.id);
  assert.equal((await first).offset, 1);
  assert.equal((await second).topic, 'a');
  assert.equal(await third, 2);
  assert.equal(client.pending, 0);
});

test('an id of the caller is kept, and taken by nobody else', async () => {
  const { client } = keep(await connected());
  const mine = client.send({ type: 'Ping', id: 1 });
  const other = client.send({ type: 'Ping', id: 1 });
  const own = client.ping();
  const ids = FakeSocket.last.sent.map(({ id }) => id);
  assert.equal(ids[0], 1);
  assert.equal(new Set(ids).size, 3);
  for (const id of ids) FakeSocket.last.tell('Pong', {}, id);
  await Promise.all([mine, other, own]);
});

test('what is too large for the server is not sent', async () => {
  const { client } = keep(make());
  const large = refusal(client.broadcast('a', 'ä'.repeat(200)));
  void client.connect();
  await settle();
  FakeSocket.last.welcome({ max_frame_size: 300 });
  assert.equal(await large, 'TOO_LARGE');
  // Topics that together are too large go one by one.
  client.subscribe(Array.from({ length: 20 }, (_, number) => `topic.${'x'.repeat(10)}.${number}`));
  assert.equal(FakeSocket.last.of('Subscribe').length, 20);
});

test('what cannot be sent is refused', async () => {
  const { client } = keep(await connected());
  const loop = {};
  loop.loop = loop;
  await assert.rejects(client.broadcast('a', loop), TypeError);
  assert.equal(client.pending, 0);
});

test('an Error that no command waits for is an event', async () => {
  const { of } = keep(await connected());
  FakeSocket.last.tell('Error', { code: 'INTERNAL_ERROR', message: 'failed', details: {} });
  assert.equal(of('error')[0].code, 'INTERNAL_ERROR');
});

// -- subscriptions ------------------------------------------------------------------------------

test('two subscribe to one topic at once, by one command', async () => {
  const { client } = keep(await connected());
  const both = [client.subscribe('a'), client.subscribe(['a', 'b'])];
  const socket = FakeSocket.last;
  assert.deepEqual(socket.of('Subscribe').map(({ data }) => data.topics), [['a'], ['b']]);
  socket.subscribed(socket.of('Subscribe')[0]);
  socket.subscribed(socket.of('Subscribe')[1]);
  assert.deepEqual(await both[0], [{ topic: 'a' }]);
  assert.deepEqual(await both[1], [{ topic: 'a' }, { topic: 'b' }]);
  await client.subscribe('a');
  assert.equal(socket.of('Subscribe').length, 2);
});

test('unsubscribe and subscribe in one tick leave it subscribed', async () => {
  const { client } = keep(await connected());
  const socket = FakeSocket.last;
  const first = refusal(client.subscribe('a'));
  const left = client.unsubscribe('a');
  const second = client.subscribe('a');
  assert.deepEqual(socket.sent.map(({ type }) => type), ['Subscribe', 'Unsubscribe', 'Subscribe']);
  // The answer to the first one is not the second's.
  socket.subscribed(socket.sent[0]);
  assert.equal(await first, 'UNSUBSCRIBED');
  socket.tell('Status', { status: 'unsubscribed', topics: ['a'] }, socket.sent[1].id);
  socket.subscribed(socket.sent[2], { offset: 7, epoch: 'e' });
  await left;
  assert.equal((await second)[0].offset, 7);
  socket.end();
  const again = await next(2);
  again.welcome();
  assert.deepEqual(again.sent[0].data.recover, { a: { offset: 7, epoch: 'e' } });
});

test('what is changed while subscriptions are renewed counts', async () => {
  const { client } = keep(await connected());
  void client.subscribe(['a', 'b']);
  FakeSocket.last.subscribed();
  FakeSocket.last.end();
  const socket = await next(2);
  socket.welcome();
  void client.unsubscribe('a');
  void client.subscribe('c');
  socket.subscribed(socket.sent[0]);
  socket.subscribed(socket.sent[2]);
  socket.end();
  const third = await next(3);
  third.welcome();
  assert.deepEqual(third.sent[0].data.topics, ['b', 'c']);
});

test('each publication is heard once, whatever is sent again', async () => {
  const { client, of } = keep(await connected());
  const heard = [];
  void client.subscribe('a', ({ payload }) => heard.push(payload));
  FakeSocket.last.subscribed(undefined, { offset: 3, epoch: 'e' });
  for (const offset of [3, 4, 5, 5, 4]) FakeSocket.last.publish('a', offset);
  FakeSocket.last.end();
  const socket = await next(2);
  socket.welcome();
  assert.deepEqual(socket.sent[0].data.recover, { a: { offset: 5, epoch: 'e' } });
  socket.publish('a', 6);
  socket.subscribed(undefined, { offset: 6, epoch: 'e', recovered: true });
  socket.publish('a', 6);
  socket.publish('a', 7);
  // In another run of the topic it begins anew.
  socket.publish('a', 1, 'f');
  socket.publish('a', 1, 'f');
  assert.deepEqual(heard, [4, 5, 6, 7, 1]);
  assert.deepEqual(of('gap'), []);
});

test('a position that is not recovered is a gap, and goes on from the new one', async () => {
  const { client, of } = keep(await connected());
  void client.subscribe(['a', 'b']);
  FakeSocket.last.subscribed(undefined, { offset: 3, epoch: 'e' });
  FakeSocket.last.end();
  let socket = await next(2);
  socket.welcome();
  const { id } = socket.sent[0];
  const topics = [
    { topic: 'a', offset: 1, epoch: 'f', recovered: false },
    { topic: 'b', offset: 3, epoch: 'e', recovered: true },
  ];
  socket.tell('Status', { status: 'subscribed', topics }, id);
  assert.deepEqual(of('gap'), [{ topics: ['a'] }]);
  socket.tell('Status', { status: 'gap', topics: ['b'] });
  assert.deepEqual(of('gap')[1], { topics: ['b'] });
  socket.end();
  socket = await next(3);
  socket.welcome();
  assert.deepEqual(socket.sent[0].data.recover.a, { offset: 1, epoch: 'f' });
});

test('where a pattern brings a topic, the answer to Subscribe hides nothing of it', async () => {
  const { client, of } = keep(await connected());
  const socket = FakeSocket.last;
  void client.subscribe('>');
  socket.subscribed();
  socket.publish('a', 4);
  void client.subscribe('a');
  socket.subscribed(undefined, { offset: 6, epoch: 'e' });
  for (const offset of [4, 5, 6, 7]) socket.publish('a', offset);
  assert.deepEqual(of('Broadcast').map(({ offset }) => offset), [4, 5, 6, 7]);
});

test('one refused topic among many is no harm to the others', async () => {
  const { client, of } = keep(make());
  const good = client.subscribe('a');
  const bad = refusal(client.subscribe('a..b'));
  const denied = refusal(client.subscribe('x'));
  void client.connect();
  await settle();
  const socket = FakeSocket.last;
  socket.welcome();
  assert.deepEqual(socket.sent[0].data.topics, ['a', 'a..b', 'x']);
  const error = (code, topic) => ({ code, message: '', details: { topic } });
  socket.tell('Error', error('INVALID_REQUEST', 'a..b'), socket.sent[0].id);
  const [, one, two, three] = socket.sent;
  socket.subscribed(one);
  socket.tell('Error', error('INVALID_REQUEST', 'a..b'), two.id);
  socket.tell('Error', error('FORBIDDEN', 'x'), three.id);
  await good;
  assert.deepEqual(await Promise.all([bad, denied]), ['INVALID_REQUEST', 'FORBIDDEN']);
  assert.deepEqual(of('error'), []);
  // Permissions were taken away meanwhile: nobody waits, so it is an event.
  socket.end();
  const again = await next(2);
  again.welcome();
  assert.deepEqual(again.sent[0].data.topics, ['a']);
  again.tell('Error', error('FORBIDDEN', 'a'), again.sent[0].id);
  assert.equal(of('error')[0].details.topic, 'a');
});

test('topics that are refused without their command are told apart', async () => {
  const { client } = keep(await connected());
  const socket = FakeSocket.last;
  const answers = ['a', 'b', 'c'].map((topic) => client.subscribe(topic));
  socket.end();
  const again = await next(2);
  again.welcome();
  const { id } = again.sent[0];
  const refusals = answers.slice(1).map(refusal);
  again.tell('Error', { code: 'FORBIDDEN', message: '', details: { topic: 'b' } });
  again.tell('Status', { status: 'subscribed', topics: [{ topic: 'a' }] }, id);
  again.tell('Error', { code: 'FORBIDDEN', message: '', details: { topic: 'c' } });
  await answers[0];
  assert.deepEqual(await Promise.all(refusals), ['FORBIDDEN', 'FORBIDDEN']);
});

test('a passing refusal of a renewed subscription is no end to it', async () => {
  const { client } = keep(await connected());
  void client.subscribe('a');
  FakeSocket.last.subscribed();
  FakeSocket.last.end();
  const socket = await next(2);
  socket.welcome();
  const details = { retry_after_ms: 1 };
  socket.tell('Error', { code: 'RATE_LIMITED', message: '', details }, socket.sent[0].id);
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(socket.of('Subscribe').length, 2);
  // Of one's own it is the answer.
  const own = refusal(client.subscribe('b'));
  socket.tell('Error', { code: 'RATE_LIMITED', message: '', details }, socket.sent.at(-1).id);
  assert.equal(await own, 'RATE_LIMITED');
});

test('what the server ends is not subscribed to again', async () => {
  const { client } = keep(await connected());
  void client.subscribe(['a', 'b']);
  FakeSocket.last.subscribed();
  FakeSocket.last.tell('Status', { status: 'unsubscribed', topics: ['a'], reason: 'permission' });
  FakeSocket.last.end();
  const socket = await next(2);
  socket.welcome();
  assert.deepEqual(socket.sent[0].data.topics, ['b']);
});

test('more than a hundred topics go in several commands', async () => {
  const { client } = keep(make());
  void client.subscribe(Array.from({ length: 250 }, (_, number) => `t.${number}`));
  void client.connect();
  await settle();
  FakeSocket.last.welcome();
  assert.deepEqual(FakeSocket.last.sent.map(({ data }) => data.topics.length), [100, 100, 50]);
});

test("one's own publication without echo is not recovered", async () => {
  const { client } = keep(await connected());
  void client.subscribe('a');
  FakeSocket.last.subscribed(undefined, { offset: 3, epoch: 'e' });
  const publishing = client.broadcast('a', 1, { echo: false });
  const { id, data } = FakeSocket.last.sent.at(-1);
  assert.equal(data.echo, false);
  FakeSocket.last.tell('Ack', { topic: 'a', offset: 4, epoch: 'e' }, id);
  await publishing;
  FakeSocket.last.end();
  const socket = await next(2);
  socket.welcome();
  assert.equal(socket.sent[0].data.recover.a.offset, 4);
});

// -- handlers -----------------------------------------------------------------------------------

test('a handler that fails harms no other, nor the connection', async () => {
  const { client, of } = keep(await connected());
  const heard = [];
  client.on('Broadcast', () => {
    throw new Error('mine');
  });
  client.on('Broadcast', async () => Promise.reject(new Error('mine too')));
  client.on('Broadcast', ({ payload }) => heard.push(payload));
  client.on('error', () => {
    throw new Error('even here');
  });
  const complained = mock.method(console, 'error', () => {});
  FakeSocket.last.publish('a', 1);
  await settle();
  assert.deepEqual(heard, [1]);
  assert.deepEqual(of('error').map(({ code, cause }) => [code, cause.message]), [
    ['HANDLER_FAILED', 'mine'],
    ['HANDLER_FAILED', 'mine too'],
  ]);
  assert.equal(complained.mock.callCount(), 2);
});

test('handlers are added once, and may remove each other', async () => {
  const { client } = keep(await connected());
  const heard = [];
  const second = () => heard.push('second');
  client.on('Broadcast', () => client.off('Broadcast', second));
  client.on('Broadcast', second);
  const third = () => heard.push('third');
  client.on('Broadcast', third);
  const off = client.on('Broadcast', third);
  FakeSocket.last.publish('a', 1);
  off();
  FakeSocket.last.publish('a', 2);
  assert.deepEqual(heard, ['third']);
});

// -- tokens -------------------------------------------------------------------------------------

test('a token is renewed on the connection, and used from then on', async () => {
  const tokens = ['one', 'two'];
  const made = make({ token: undefined, getToken: async () => tokens.shift() });
  const { client } = keep(made);
  void client.connect();
  await settle();
  const socket = FakeSocket.last;
  mock.timers.enable({ apis: ['setTimeout'] });
  socket.welcome({ expires_at: Date.now() / 1000 + 600 });
  mock.timers.tick(539_000);
  await settle();
  assert.equal(socket.of('Authenticate').length, 0);
  mock.timers.tick(2000);
  await settle();
  const [{ id, data }] = socket.of('Authenticate');
  assert.equal(data.token, 'two');
  socket.tell('Status', { status: 'authenticated', expires_at: Date.now() / 1000 + 600 }, id);
  await settle();
  mock.timers.reset();
  socket.end();
  assert.equal((await next(2)).token, 'two');
});

test('a renewal that comes after the connection is gone serves the next one', async () => {
  let give;
  const asked = [];
  const getToken = () => new Promise((resolve) => (asked.push(1), (give = resolve)));
  const { client } = keep(make({ token: 'one', getToken }));
  void client.connect();
  await settle();
  FakeSocket.last.welcome({ expires_at: Date.now() / 1000 + 1 });
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(asked.length, 1);
  FakeSocket.last.end();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(FakeSocket.all.length, 1);
  give('two');
  assert.equal((await next(2)).token, 'two');
  assert.equal(asked.length, 1);
  assert.equal(FakeSocket.all[0].of('Authenticate').length, 0);
});

test('an expired token is replaced; one that cannot be is the end', async () => {
  const tokens = ['one', 'two', 'two'];
  const { of } = keep(await connected({ getToken: () => tokens.shift(), token: undefined }));
  FakeSocket.last.end(4001, 'expired');
  const socket = await next(2);
  assert.equal(socket.token, 'two');
  socket.welcome();
  socket.end(4001, 'expired');
  await settle();
  await settle();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(of('disconnected').at(-1).willReconnect, false);
  const fixed = keep(await connected());
  FakeSocket.last.end(4001, 'expired');
  await settle();
  assert.deepEqual(fixed.names(), ['connected', 'error', 'disconnected']);
  assert.equal(fixed.of('error')[0].code, 'TOKEN_EXPIRED');
});

test('a getToken that fails is asked again; one that has nothing is the end', async () => {
  const answers = [
    () => Promise.reject(new Error('offline')),
    () => {
      throw new Error('broken');
    },
    () => new Promise(() => {}),
    () => 'one',
  ];
  const { client, of } = keep(
    make({ token: undefined, getToken: () => answers.shift()(), connectTimeout: 5 }),
  );
  const connecting = client.connect();
  (await next(1)).welcome();
  await connecting;
  assert.deepEqual(of('error').map(({ code }) => code), Array(3).fill('TOKEN_UNAVAILABLE'));
  const nothing = keep(make({ token: undefined, getToken: () => null }));
  assert.equal(await refusal(nothing.client.connect()), 'INVALID_TOKEN');
  assert.deepEqual(nothing.names(), ['error', 'disconnected']);
  const none = keep(make({ token: undefined }));
  assert.equal(await refusal(none.client.connect()), 'INVALID_TOKEN');
});

// -- life ---------------------------------------------------------------------------------------

test('a silent connection is asked, and dropped when it does not answer', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e12 });
  const { client, of } = keep(make());
  void client.connect();
  await settle();
  const socket = FakeSocket.last;
  socket.welcome({ heartbeat_interval_secs: 2 });
  mock.timers.tick(1500);
  socket.publish('a', 1);
  mock.timers.tick(600);
  assert.equal(socket.of('Ping').length, 0);
  mock.timers.tick(1500);
  assert.equal(socket.of('Ping').length, 1);
  socket.tell('Pong', {});
  mock.timers.tick(10_500);
  assert.equal(socket.of('Ping').length, 2);
  mock.timers.tick(10_500);
  await settle();
  assert.deepEqual(of('disconnected'), [
    { code: 1006, reason: 'Nothing was heard', willReconnect: true },
  ]);
  client.disconnect();
});

test('disconnect() leaves no timer, in whatever state it comes', async () => {
  const live = new Set();
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  globalThis.setTimeout = (handler, ms, ...rest) => {
    const timer = set(() => (live.delete(timer), handler(...rest)), ms);
    live.add(timer);
    return timer;
  };
  globalThis.clearTimeout = (timer) => (live.delete(timer), clear(timer));
  try {
    const states = [
      async () => make(),
      async () => (await connected({ getToken: () => 'two' })),
      async () => {
        const made = await connected({ minDelay: 1e6, maxDelay: 1e6 });
        FakeSocket.last.end();
        await settle();
        return made;
      },
      async () => {
        const made = make({ token: undefined, getToken: () => new Promise(() => {}) });
        void made.client.connect();
        return made;
      },
    ];
    for (const state of states) {
      const { client } = await state();
      void client.broadcast('a', 1);
      void client.subscribe('a');
      client.disconnect();
      await settle();
      // That of a getToken which is under way is the one exception: it ends by itself.
      assert.ok(live.size <= (state === states[3] ? 1 : 0), `${states.indexOf(state)}`);
      assert.equal(client.pending, 0);
      live.forEach(clear);
      live.clear();
    }
  } finally {
    Object.assign(globalThis, { setTimeout: set, clearTimeout: clear });
  }
});

test('patterns match as the server has them match', () => {
  for (const [pattern, topic, expected] of [
    ['a', 'a', true],
    ['a.*', 'a.b', true],
    ['a.*', 'a', false],
    ['a.*', 'a.b.c', false],
    ['a.>', 'a.b.c', true],
    ['a.>', 'a', false],
    ['>', 'a.b', true],
    ['*.b', 'a.b', true],
    ['*.b', 'a.c', false],
    ['>', '$server.x', false],
    ['*.x', '$server.x', false],
    ['$server.>', '$server.x', true],
  ]) {
    assert.equal(topicMatches(pattern, topic), expected, `${pattern} ${topic}`);
  }
});
