import { createEmitter, type Handler } from './emitter.js';
import { closedError, errorOf, RealtimeError } from './errors.js';
import { randomKey } from './key.js';
import type { Options } from './options.js';
import type { End, Link } from './link.js';
import { createOutbox, type Outbox } from './outbox.js';
import { defer, quiet, type Deferred } from './promises.js';
import type {
  Broadcast,
  CommandMessage,
  Events,
  HistoryPage,
  Message,
  Position,
  PresencePage,
  Published,
  Subscribed,
  Welcome,
} from './protocol.js';
import { createSession, type Host } from './session.js';
import { createSubscriptions } from './subscriptions.js';

/**
 * A connection to the server that lasts: it reconnects, subscribes again, recovers what was missed,
 * and sends again what was not answered.
 *
 * Promises may be left alone: one that nobody looks at is no unhandled rejection.
 *
 * @example
 * const client = new RealtimeClient('wss://example.org/ws', { getToken });
 * client.on('Broadcast', ({ topic, payload }) => console.log(topic, payload));
 * client.subscribe('chat.general');
 * await client.connect();
 * await client.broadcast('chat.general', { text: 'Hello' });
 */
export class RealtimeClient {
  /** Where it connects, by `ws:` or `wss:`. */
  readonly url: string;
  readonly #emitter = createEmitter();
  readonly #session: ReturnType<typeof createSession>;
  readonly #tell: Host['tell'];
  readonly #outbox: Outbox;
  readonly #subscriptions: ReturnType<typeof createSubscriptions>;
  #ready: Deferred<Welcome> | undefined;
  #welcome: Welcome | undefined;
  #closed = false;

  /** A client, which connects when told to. The token may stand in place of the options. */
  constructor(url: string | URL, options: string | Options = {}) {
    const given = typeof options === 'string' ? { token: options } : options;
    const { commandTimeout = 10_000, maxQueue = 1000 } = given;
    const found = new URL(url, globalThis.location?.href);
    found.protocol = found.protocol.replace('http', 'ws');
    found.hash = '';
    this.url = found.href;
    this.#outbox = createOutbox(maxQueue, commandTimeout);
    const tell: Host['tell'] = this.#emitter.emit;
    this.#tell = tell;
    this.#subscriptions = createSubscriptions(
      this.#outbox,
      (topics) => tell('gap', { topics }),
      (error) => tell('error', error),
    );
    this.#session = createSession(this.url, given, {
      welcomed: (link, message) => this.#welcomed(link, message),
      received: (message) => this.#received(message),
      lost: () => this.#lost(),
      over: (error, end) => this.#over(error, end),
      tell,
      authenticate: (token) => this.#authenticate({ type: 'Authenticate', data: { token } }),
    });
  }

  /** Whether there is a connection. */
  get connected(): boolean {
    return !!this.#welcome;
  }

  /** Whether there is none, but one is being made, for the first time or again. */
  get connecting(): boolean {
    return this.#session.running() && !this.#welcome;
  }

  /** How many commands wait, for a connection or for their answers. */
  get pending(): number {
    return this.#outbox.size();
  }

  /**
   * Connect, and stay connected. Fulfilled by the next welcome; rejected when it is clear that
   * there will be none, and by `disconnect()`.
   */
  connect(): Promise<Welcome> {
    this.#closed = false;
    if (this.#welcome) return Promise.resolve(this.#welcome);
    if (!this.#session.running()) {
      this.#ready = defer();
      this.#session.start();
    }
    return this.#ready!.promise;
  }

  /**
   * Disconnect, and stay so until `connect()`. What waits is rejected with `CLOSED`; what is
   * subscribed to is kept, and recovered by the next connection.
   */
  disconnect(): void {
    const error = closedError();
    if (this.#session.stop()) this.#over(error, { code: 1000, reason: '' });
    else this.#close(error);
  }

  /**
   * Add a handler: of a type of messages, or of what happens to the connection. The same function
   * is added once. Answers a function that removes it.
   */
  on<K extends keyof Events>(
    name: K,
    handler: (data: Events[K], message: Message<Events[K]>) => unknown,
  ): () => void;
  on(name: string, handler: Handler): () => void;
  on(name: string, handler: Handler): () => void {
    this.#emitter.on(name, handler);
    return () => this.off(name, handler);
  }

  /** Remove a handler, or all of that name. */
  off(name: keyof Events | (string & {}), handler?: Handler): void {
    this.#emitter.off(name, handler);
  }

  /**
   * Send a command as the protocol has it; answers with the data of the reply.
   *
   * `Subscribe` and `Unsubscribe` are as `subscribe` and `unsubscribe`: kept over reconnects.
   */
  send<T = any>(message: CommandMessage): Promise<T> {
    return quiet(this.#send(message));
  }

  /**
   * Subscribe to topics and patterns, until `unsubscribe`; answers where they stand.
   *
   * The handler gets what is published on these, as those of `on('Broadcast')` do.
   */
  subscribe<T = any>(
    topics: string | string[],
    handler?: (data: Broadcast<T>, message: Message<Broadcast<T>>) => unknown,
  ): Promise<Subscribed[]> {
    return quiet(this.#subscribe([topics].flat(), handler));
  }

  /** Leave topics and patterns, and forget the handlers that `subscribe` got for them. */
  unsubscribe(topics: string | string[]): Promise<void> {
    return quiet(this.#subscriptions.remove([topics].flat()));
  }

  /** Publish on a topic, exactly once; to all others only with `echo: false`. */
  broadcast(
    topic: string,
    payload: unknown,
    { echo }: { echo?: boolean } = {},
  ): Promise<Published> {
    return this.send({ type: 'Broadcast', data: { topic, payload: payload ?? null, echo } });
  }

  /** The same as `broadcast`. */
  publish(topic: string, payload: unknown, options?: { echo?: boolean }): Promise<Published> {
    return this.broadcast(topic, payload, options);
  }

  /** Send to all connections of a user, by id or username; answers how many got it. */
  sendDirectMessage(user: string, payload: unknown): Promise<number> {
    const data = { target_user: user, payload: payload ?? null };
    return quiet(this.#send({ type: 'DirectMessage', data }).then((ack) => ack.delivered));
  }

  /** Read what was published on a topic. */
  history<T = any>(
    topic: string,
    options?: { since?: Position; limit?: number; reverse?: boolean },
  ): Promise<HistoryPage<T>> {
    return this.send({ type: 'History', data: { topic, ...options } });
  }

  /** See who is on a topic. */
  presence(topic: string, options?: { limit?: number; after?: string }): Promise<PresencePage> {
    return this.send({ type: 'Presence', data: { topic, ...options } });
  }

  /** Milliseconds to the server and back. */
  ping(): Promise<number> {
    const before = performance.now();
    return quiet(this.#send({ type: 'Ping' }).then(() => performance.now() - before));
  }

  // -- commands ---------------------------------------------------------------------------------

  async #send(message: CommandMessage): Promise<any> {
    const { type, data } = message;
    if (type === 'Authenticate') return this.#authenticate(message);
    if (type === 'Subscribe') return this.#subscribe(data.topics, undefined, data.recover);
    if (type === 'Unsubscribe') return this.unsubscribe(data.topics);
    if (type !== 'Broadcast' && type !== 'DirectMessage') return this.#command(message);
    // By its key it happens once, however often it has to be sent.
    const answer = await this.#command({ ...message, data: { key: randomKey(), ...data } });
    if (data.echo === false) this.#subscriptions.skip(answer);
    return answer;
  }

  #command(message: CommandMessage, once = false): Promise<any> {
    return new Promise((done, failed) => {
      if (this.#closed) return failed(closedError());
      this.#outbox.add({ message, once, done, failed });
    });
  }

  async #authenticate(message: CommandMessage): Promise<unknown> {
    const answer = await this.#command(message, true);
    this.#session.use(message.data.token);
    return answer;
  }

  #subscribe(
    topics: string[],
    handler?: Handler,
    recover?: Record<string, Position>,
  ): Promise<Subscribed[]> {
    if (this.#closed) return Promise.reject(closedError());
    return this.#subscriptions.add(topics, handler, recover);
  }

  // -- what the session tells -------------------------------------------------------------------

  #welcomed(link: Link, message: Message<Welcome>): void {
    const welcome = (this.#welcome = message.data);
    this.#outbox.open(link.send, Math.min(link.maxSize, welcome.max_frame_size));
    this.#subscriptions.open();
    this.#outbox.flush();
    this.#ready!.resolve(welcome);
    this.#emitter.emit('Status', welcome, message);
    if (this.#welcome === welcome) this.#tell('connected', welcome);
  }

  #received(message: Message): void {
    const { type, data, id } = message;
    if (type === 'Broadcast' && !this.#subscriptions.isNew(data)) return;
    const answered = this.#outbox.answer(message);
    const status = type === 'Status' && data.status;
    if (status === 'unsubscribed' && id === undefined) this.#subscriptions.ended(data.topics);
    if (status === 'authenticated' || status === 'token_expiring') this.#session.expires(message);
    this.#emitter.emit(type, data, message);
    if (type === 'Broadcast') {
      for (const handlers of this.#subscriptions.handlers(data.topic)) {
        this.#emitter.call(handlers, data, message);
      }
    }
    if (status === 'gap') this.#tell('gap', { topics: data.topics });
    if (type === 'Error' && !answered) {
      const error = errorOf(data);
      if (!this.#subscriptions.deny(error)) this.#tell('error', error);
    }
  }

  #lost(): void {
    this.#welcome = undefined;
    this.#ready = defer<Welcome>();
    this.#outbox.lost();
    this.#subscriptions.lost();
  }

  #over(error: RealtimeError, { code, reason }: End): void {
    this.#close(error);
    if (error.code !== 'CLOSED') this.#tell('error', error);
    this.#tell('disconnected', { code, reason, willReconnect: false });
  }

  #close(error: RealtimeError): void {
    const closed = new RealtimeError('CLOSED', error.message, error.details, { cause: error });
    this.#closed = true;
    this.#outbox.close(closed);
    this.#subscriptions.close(closed);
    this.#ready?.reject(error);
  }
}

