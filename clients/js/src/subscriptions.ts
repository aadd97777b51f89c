import type { Handler } from './emitter.js';
import { isPassing, RealtimeError } from './errors.js';
import type { Outbox } from './outbox.js';
import type { Broadcast, Position, Published, Subscribed } from './protocol.js';
import { defer, type Deferred } from './promises.js';
import { isPattern, topicMatches } from './topics.js';

// Topics that one command names, and positions that are known by patterns only.
const MAX_TOPICS = 100;
const MAX_HEARD = 1000;

interface Subscription {
  topic: string;
  state: 'new' | 'sent' | 'live';
  /** Whether it ever was live. */
  wasLive?: boolean;
  /** It was sent on the client's account, which does not take a passing refusal for an answer. */
  isKept?: boolean;
  position?: Position | undefined;
  handlers: Set<Handler>;
  /** The first answer. */
  status: Deferred<Subscribed>;
}

/** What the client is subscribed to, whatever connection it has, and how far it has heard. */
export function createSubscriptions(
  outbox: Outbox,
  gap: (topics: string[]) => void,
  refused: (error: RealtimeError) => void,
) {
  const all = new Map<string, Subscription>();
  const patterns = new Set<Subscription>();
  // Topics that patterns brought, the latest last.
  const heard = new Map<string, Position>();
  let isOpen = false;
  let retry: ReturnType<typeof setTimeout> | undefined;

  const hear = (topic: string, position: Position): void => {
    heard.delete(topic);
    heard.set(topic, position);
    if (heard.size > MAX_HEARD) heard.delete(heard.keys().next().value!);
  };

  const known = (topic: string): Position | undefined =>
    all.get(topic)?.position ?? heard.get(topic);

  const drop = (subscription: Subscription): void => {
    all.delete(subscription.topic);
    patterns.delete(subscription);
  };

  const fail = (subscription: Subscription, error: RealtimeError): void => {
    drop(subscription);
    subscription.status.reject(error);
    if (subscription.wasLive) refused(error);
  };

  const refuse = (sent: Subscription[], error: RealtimeError): void => {
    for (const each of sent) {
      if (each.isKept && isPassing(error)) {
        each.state = 'new';
        retry ??= setTimeout(again, error.details['retry_after_ms'] ?? 1000);
      } else {
        fail(each, error);
      }
    }
  };

  /** Those that still wait for the answer to their command. */
  const stillSent = (batch: Subscription[]): Subscription[] =>
    batch.filter((each) => each.state === 'sent' && all.get(each.topic) === each);

  const taken = (sent: Subscription[], statuses: Subscribed[]): void => {
    const lost: string[] = [];
    for (const status of statuses) {
      const { topic, offset, epoch, recovered } = status;
      const subscription = sent.find((each) => each.topic === topic);
      if (!subscription) continue;
      subscription.state = 'live';
      subscription.wasLive = true;
      if (offset !== undefined) {
        // Where a pattern brings the topic as well, what comes may be behind what is told here.
        const before = known(topic);
        const isBehind = before?.epoch === epoch && !(recovered && offset > before!.offset);
        subscription.position =
          isBehind && recovered !== false ? before : { offset, epoch: epoch! };
      }
      if (recovered === false) lost.push(topic);
      subscription.status.resolve(status);
    }
    if (lost.length) gap(lost);
    // The others are denied, each by an Error. Of which there was none by the next answer, the
    // server has failed.
    if (stillSent(sent)[0]) {
      const done = (): void =>
        refuse(stillSent(sent), new RealtimeError('INTERNAL_ERROR', 'The server failed'));
      outbox.add({ message: { type: 'Ping' }, once: true, done, failed: () => {} });
    }
  };

  const subscribe = (batch: Subscription[]): void => {
    for (const each of batch) each.state = 'sent';
    const topics = batch.map(({ topic }) => topic);
    const left = batch.filter(({ position }) => position);
    const recover = Object.fromEntries(left.map(({ topic, position }) => [topic, position]));
    outbox.add({
      message: { type: 'Subscribe', data: { topics, recover } },
      once: true,
      done: (data: { topics: Subscribed[] }) => taken(stillSent(batch), data.topics),
      failed: (error) => {
        if (error.code === 'CLOSED') return;
        const sent = stillSent(batch);
        const denied = sent.filter(({ topic }) => topic === error.details['topic']);
        // A name that is none has all the others refused; else they are told of one by one.
        if (sent.length > 1 && /INVALID_REQUEST|TOO_LARGE/.test(error.code)) {
          for (const each of sent) subscribe([each]);
        } else refuse(denied.length ? denied : sent, error);
      },
    });
  };

  const send = (fresh: Subscription[]): void => {
    while (fresh.length) subscribe(fresh.splice(0, MAX_TOPICS));
  };

  const again = (): void => {
    retry = undefined;
    const fresh = [...all.values()].filter((each) => each.state === 'new');
    for (const each of fresh) each.isKept = true;
    send(fresh);
  };

  return {
    add: (
      topics: string[],
      handler?: Handler,
      recover?: Record<string, Position>,
    ): Promise<Subscribed[]> => {
      const fresh: Subscription[] = [];
      const answers = topics.map((topic) => {
        let subscription = all.get(topic);
        if (!subscription) {
          subscription = { topic, state: 'new', handlers: new Set(), status: defer() };
          subscription.position = recover?.[topic];
          all.set(topic, subscription);
          if (isPattern(topic)) patterns.add(subscription);
          fresh.push(subscription);
        }
        if (handler) subscription.handlers.add(handler);
        return subscription.status.promise;
      });
      if (isOpen) send(fresh);
      return Promise.all(answers);
    },

    remove: (topics: string[]): Promise<void> => {
      for (const topic of topics) {
        const gone = all.get(topic);
        if (!gone) continue;
        drop(gone);
        gone.status.reject(new RealtimeError('UNSUBSCRIBED', topic));
        if (gone.position) hear(topic, gone.position);
      }
      if (!patterns.size) heard.clear();
      return new Promise((resolve, reject) => {
        if (!isOpen) return resolve();
        outbox.add({
          message: { type: 'Unsubscribe', data: { topics } },
          once: true,
          done: () => resolve(),
          // With the connection goes what was subscribed to on it.
          failed: (error) => (error.code === 'CLOSED' ? resolve() : reject(error)),
        });
      });
    },

    /** There is a connection: subscribe to everything, from where it was left. */
    open: (): void => {
      isOpen = true;
      again();
    },

    /** The connection is gone. */
    lost: (): void => {
      isOpen = false;
      clearTimeout(retry);
      retry = undefined;
      for (const subscription of all.values()) subscription.state = 'new';
    },

    /** Let nobody wait any longer; what was never answered is no subscription. */
    close: (error: RealtimeError): void => {
      for (const each of [...all.values()]) if (!each.wasLive) fail(each, error);
    },

    /** Note how far a topic has come; say whether this is news. */
    isNew: ({ topic, offset, epoch }: Broadcast): boolean => {
      if (offset === undefined) return true;
      const before = known(topic);
      if (before?.epoch === epoch && offset <= before!.offset) return false;
      const subscription = all.get(topic);
      const position = { offset, epoch: epoch! };
      if (subscription) subscription.position = position;
      else hear(topic, position);
      return true;
    },

    /** One's own publication that is not echoed is no gap where it is what comes next. */
    skip: ({ topic, offset, epoch }: Published): void => {
      const position = all.get(topic)?.position;
      if (position?.epoch === epoch && position?.offset === offset! - 1) position!.offset++;
    },

    /** The handlers of a topic's publications. */
    handlers: (topic: string): Set<Handler>[] =>
      [all.get(topic), ...patterns]
        .filter((each) => each && topicMatches(each.topic, topic))
        .map((each) => each!.handlers),

    /** The server refuses a topic, without naming the command; say whether it was one of these. */
    deny: (error: RealtimeError): boolean => {
      const subscription = all.get(error.details['topic']);
      if (subscription?.state !== 'sent') return false;
      refuse([subscription], error);
      return true;
    },

    /** The server has ended subscriptions. */
    ended: (topics: string[]): void => {
      for (const topic of topics) {
        const subscription = all.get(topic);
        if (subscription?.state === 'live') drop(subscription);
      }
    },
  };
}
