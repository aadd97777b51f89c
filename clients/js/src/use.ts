import { RealtimeError, topicMatches, type RealtimeClient, type Subscribed } from './index.js';
import type { SharedClient } from './shared.js';

/** How the connection is. */
export interface RealtimeState {
  connected: boolean;
  connecting: boolean;
  error: Error | null;
}

export type Handlers = Map<string, (data: any, message: any) => unknown>;

export const IDLE: RealtimeState = { connected: false, connecting: false, error: null };

// Where these come from is of interest only to who has subscribed there.
const OF_TOPICS = ['Broadcast', 'Join', 'Leave', 'Update'];

/** A promise of what cannot be had without a connection. */
export function refused<T>(): Promise<T> {
  const refusal = Promise.reject<T>(new RealtimeError('CLOSED', 'There is no connection'));
  refusal.catch(() => {});
  return refusal;
}

/** A mounted component's use of a shared client: what it wants, and what it is told. */
export class Use {
  #shared: SharedClient | undefined;
  #error: Error | null = null;
  readonly #offs = new Map<string, () => void>();

  constructor(
    readonly join: (user: object) => SharedClient,
    readonly handlers: Handlers,
    readonly topics: Set<string>,
    readonly tell: (state: RealtimeState) => void,
  ) {}

  /** The client, while the component wants to be connected. */
  get client(): RealtimeClient | undefined {
    return this.#shared?.client;
  }

  async connect(): Promise<void> {
    const shared = (this.#shared ??= this.#begin(this.join(this)));
    this.#error = null;
    const connecting = shared.client.connect();
    this.#show();
    try {
      await connecting;
    } catch (error) {
      if (shared === this.#shared) this.#show(error as Error);
    }
  }

  #begin(shared: SharedClient): SharedClient {
    const { client } = shared;
    this.#shared = shared;
    this.#offs.set(
      'connected',
      client.on('connected', () => {
        this.#error = null;
        this.#show();
        void this.#subscribe([...this.topics]);
      }),
    );
    this.#offs.set('reconnecting', client.on('reconnecting', () => this.#show()));
    this.#offs.set(
      'disconnected',
      client.on('disconnected', ({ code, reason, willReconnect }) => {
        const isOver = !willReconnect && !this.#error;
        this.#show(isOver ? new RealtimeError('CLOSED', reason, { code, reason }) : this.#error);
      }),
    );
    this.#offs.set(
      'error',
      client.on('error', (error) => {
        if (error.code === 'HANDLER_FAILED') console.error(error.cause);
        else this.#show(error);
      }),
    );
    for (const type of this.handlers.keys()) this.attach(type);
    for (const topic of this.topics) shared.retain(topic);
    if (client.connected) void this.#subscribe([...this.topics]);
    return shared;
  }

  #show(error = this.#error): void {
    const { client } = this;
    this.#error = error;
    if (client) this.tell({ connected: client.connected, connecting: client.connecting, error });
  }

  /** Have the component's handler of a type called, whichever it is by then. */
  attach(type: string): void {
    const name = `on ${type}`;
    if (!this.client || this.#offs.has(name)) return;
    const off = this.client.on(type, (data, message) => {
      const isOfTopic = OF_TOPICS.includes(type);
      if (isOfTopic && ![...this.topics].some((each) => topicMatches(each, data.topic))) return;
      return this.handlers.get(type)?.(data, message);
    });
    this.#offs.set(name, off);
  }

  subscribe(topics: string[]): Promise<Subscribed[]> {
    for (const topic of topics) {
      if (!this.topics.has(topic)) this.#shared?.retain(topic);
      this.topics.add(topic);
    }
    return this.#subscribe(topics);
  }

  #subscribe(topics: string[]): Promise<Subscribed[]> {
    const shared = this.#shared;
    if (!shared) return refused();
    const subscribing = shared.client.subscribe(topics);
    subscribing.catch((error: RealtimeError) => {
      // A topic that is refused is not asked for again.
      const { topic } = error.details;
      if (shared !== this.#shared || !this.topics.delete(topic)) return;
      shared.forget(topic);
      this.#show(error);
    });
    return subscribing;
  }

  /** Be connected no longer, as far as the component goes: at once, or if it stays away. */
  end(atOnce: boolean): void {
    const shared = this.#shared;
    if (!shared) return;
    this.#shared = undefined;
    for (const off of this.#offs.values()) off();
    this.#offs.clear();
    for (const topic of this.topics) shared.forget(topic);
    shared.release(this, atOnce);
    this.tell(IDLE);
  }
}
