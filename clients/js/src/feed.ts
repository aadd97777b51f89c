import { topicMatches, type Broadcast, type PresencePage, type RealtimeError } from './index.js';
import type { SharedClient } from './shared.js';

/** A publication, with the server's time in Unix milliseconds. */
export interface TopicMessage<T = any> extends Broadcast<T> {
  timestamp?: number | undefined;
}

/** What is known of a topic. */
export interface TopicState<T = any> {
  /** The latest publications, the newest last. */
  messages: TopicMessage<T>[];
  /** Who is on the topic; null where that is not known. */
  presence: PresencePage | null;
  /** Why it could not be subscribed to, or published on. */
  error: Error | null;
  connected: boolean;
  /** Whether what is published from now on comes. */
  subscribed: boolean;
}

export const EMPTY: TopicState = {
  messages: [],
  presence: null,
  error: null,
  connected: false,
  subscribed: false,
};

/** Follows a topic for a mounted component, from `start` to `end`. */
export class Feed {
  #state = EMPTY;
  #offs: (() => void)[] = [];
  #wasSubscribed = false;
  #asking = false;
  #isStale = false;

  constructor(
    readonly shared: SharedClient,
    readonly topic: string,
    readonly limit: number,
    readonly history: number,
    readonly presence: boolean,
    readonly show: (feed: Feed, state: TopicState) => void,
  ) {}

  start(): void {
    const { shared, topic } = this;
    const { client } = shared;
    const isOurs = (data: { topic: string }): boolean => topicMatches(topic, data.topic);
    const changed = (data: { topic: string }): void => {
      if (isOurs(data)) void this.#ask();
    };
    this.#offs = [
      client.on('Broadcast', (data, { timestamp }) => {
        if (isOurs(data)) this.#keep([...this.#state.messages, { ...data, timestamp }]);
      }),
      client.on('Join', changed),
      client.on('Leave', changed),
      client.on('Update', changed),
      client.on('gap', ({ topics }) => {
        if (!this.history || !topics.includes(topic)) return;
        this.#keep([]);
        void this.#load();
      }),
      client.on('connected', () => {
        this.#set({ connected: true, error: null });
        void this.#subscribe();
      }),
      client.on('disconnected', () => this.#set({ connected: false, subscribed: false })),
      client.on('Status', ({ status, topics, reason }) => {
        if (status === 'unsubscribed' && reason && topics.includes(topic)) this.#again();
      }),
      client.on('error', ({ details }) => {
        if (details['topic'] === topic) this.#again();
      }),
    ];
    shared.retain(topic);
    this.#set({ connected: client.connected });
    void this.#subscribe();
  }

  end(): void {
    for (const off of this.#offs.splice(0)) off();
    this.shared.forget(this.topic);
  }

  /** Show what went wrong, unless it is but the end of the connection. */
  fail(error: unknown): void {
    if ((error as RealtimeError).code !== 'CLOSED') this.#set({ error: error as Error });
  }

  #set(change: Partial<TopicState>): void {
    if (!this.#offs.length) return;
    this.#state = { ...this.#state, ...change };
    this.show(this, this.#state);
  }

  #keep(messages: TopicMessage[]): void {
    this.#set({ messages: messages.slice(-this.limit) });
  }

  /** The server may have ended the subscription: ask, and show why. */
  #again(): void {
    this.#set({ subscribed: false });
    void this.#subscribe();
  }

  async #subscribe(): Promise<void> {
    try {
      await this.shared.client.subscribe(this.topic);
      this.#set({ subscribed: this.shared.client.connected });
      void this.#ask();
      if (!this.#wasSubscribed) void this.#load();
      this.#wasSubscribed = true;
    } catch (error) {
      this.fail(error);
    }
  }

  /** Put what the history has before what has come since. */
  async #load(): Promise<void> {
    const { topic, shared, history } = this;
    if (!history || !this.#offs.length) return;
    try {
      const page = await shared.client.history(topic, { limit: history, reverse: true });
      const { messages } = this.#state;
      const known = messages.filter(({ epoch }) => epoch === page.epoch);
      const older = page.publications
        .filter(({ offset }) => !known.some((each) => each.offset === offset))
        .map((each) => ({ topic, epoch: page.epoch, ...each }));
      this.#keep([...older.reverse(), ...messages]);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ask who is there, and once more where somebody came or went meanwhile. */
  async #ask(): Promise<void> {
    this.#isStale = true;
    if (!this.presence || this.#asking) return;
    this.#asking = true;
    while (this.#isStale && this.#offs.length) {
      this.#isStale = false;
      try {
        this.#set({ presence: await this.shared.client.presence(this.topic) });
      } catch {
        // It is not kept of this topic, or not for us.
      }
    }
    this.#asking = false;
  }
}
