// Does what JSON lines on standard input say with the client built at REALTIME_CLIENT, and tells
// answers and events on standard output, as tests/clients/cases.py has it. Times are seconds there.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const path = process.env.REALTIME_CLIENT;
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

// The timers that the client has set itself, not what it calls: `ws` waits for a closing server.
const timers = new Set();
const { setTimeout: set, clearTimeout: clear } = globalThis;
globalThis.setTimeout = (handler, ms, ...rest) => {
  const isOurs = new Error().stack.split('\n')[2].includes(path);
  const timer = set(() => {
    timers.delete(timer);
    handler(...rest);
  }, ms);
  if (isOurs) timers.add(timer);
  return timer;
};
globalThis.clearTimeout = (timer) => {
  timers.delete(timer);
  clear(timer);
};

const { RealtimeClient } = await import(pathToFileURL(path).href);
// Node before 22 has no WebSocket; found by NODE_PATH, which imports do not look at.
const WebSocket = globalThis.WebSocket ?? createRequire(import.meta.url)('ws');

const EVENTS = [
  ...['Broadcast', 'DirectMessage', 'Status', 'Join', 'Leave', 'Update'],
  ...['connected', 'disconnected', 'reconnecting', 'gap', 'error'],
];
const ms = (seconds) => (seconds === undefined ? undefined : seconds * 1000);
const errorOf = ({ code = 'DRIVER', message, details = {} }) => ({ code, message, details });

let client;

const actions = {
  new({ url, token, tokens, options = {} }) {
    let calls = 0;
    const getToken = async () => {
      const given = tokens[Math.min(calls++, tokens.length - 1)];
      tell({ event: 'getToken', data: given });
      return given;
    };
    client = new RealtimeClient(url, {
      token,
      getToken: tokens && getToken,
      WebSocket,
      minDelay: ms(options.min_delay),
      maxDelay: ms(options.max_delay),
      stableAfter: ms(options.stable),
      commandTimeout: ms(options.command_timeout),
      connectTimeout: ms(options.connect_timeout),
      maxQueue: options.max_queue,
      transport: options.transport,
    });
    for (const event of EVENTS) {
      client.on(event, (data) => {
        if (event === 'error') data = errorOf(data);
        if (event === 'reconnecting') data = { ...data, delay: data.delay / 1000 };
        tell({ event, data });
      });
    }
  },
  connect: () => client.connect(),
  disconnect: () => client.disconnect(),
  send: ({ message }) => client.send(message),
  subscribe: ({ topics }) => client.subscribe(topics),
  unsubscribe: ({ topics }) => client.unsubscribe(topics),
  broadcast: ({ topic, payload, echo }) => client.broadcast(topic, payload, { echo }),
  direct: ({ user, payload }) => client.sendDirectMessage(user, payload),
  history: ({ topic, since, limit, reverse }) => client.history(topic, { since, limit, reverse }),
  presence: ({ topic }) => client.presence(topic),
  ping: () => client.ping(),
  state: () => ({
    connected: client.connected,
    pending: client.pending,
    timers: timers.size,
  }),
  /** Broadcast {i: 0..count-1}, with at most `window` of them unanswered. */
  async flood({ topic, count, window }) {
    const under = new Set();
    for (let i = 0; i < count; i += 1) {
      const one = client.broadcast(topic, { i });
      under.add(one);
      one.then(() => under.delete(one), () => {});
      if (under.size >= window) await Promise.race(under);
    }
    await Promise.all(under);
  },
};

createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const { n, do: action, ...rest } = JSON.parse(line);
    try {
      tell({ n, ok: (await actions[action](rest)) ?? null });
    } catch (error) {
      tell({ n, error: errorOf(error) });
    }
  })
  .on('close', () => process.exit(0));
