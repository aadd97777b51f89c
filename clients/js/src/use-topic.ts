import { useCallback, useEffect, useState } from 'react';
import { EMPTY, Feed, type TopicState } from './feed.js';
import type { Published } from './index.js';
import { useShared } from './provider.js';
import { refused } from './use.js';

/** What of a topic to keep at hand. */
export interface UseTopicOptions {
  /** How many messages to keep, the latest ones: 100. */
  limit?: number | undefined;
  /** How many messages of the topic's history to begin with, and where some were lost: none. */
  history?: number | undefined;
  /** Whether to ask who is on the topic, where its rule keeps account of it: true. */
  presence?: boolean | undefined;
}

/** A topic as a component sees it. */
export interface Topic<T = any> extends TopicState<T> {
  /** Publish on it; to all others only with `echo: false`. */
  publish: (payload: T, options?: { echo?: boolean }) => Promise<Published>;
}

/**
 * A topic, or a pattern, followed while the component is mounted: its latest messages, who is
 * there, and how to publish on it. It needs a `RealtimeProvider` above.
 */
export function useTopic<T = any>(
  topic: string,
  { limit = 100, history = 0, presence = true }: UseTopicOptions = {},
): Topic<T> {
  const shared = useShared();
  const [shown, setShown] = useState<{ feed: Feed; state: TopicState } | null>(null);

  useEffect(() => {
    if (!shared) return;
    const isTopic = !/[*>]/.test(topic);
    const feed = new Feed(shared, topic, limit, history, presence && isTopic, (feed, state) =>
      setShown({ feed, state }),
    );
    feed.start();
    return () => feed.end();
  }, [shared, topic, limit, history, presence]);

  // What is shown may still be that of the topic before.
  const current = shown?.feed.shared === shared && shown?.feed.topic === topic ? shown : null;
  const feed = current?.feed;
  const publish = useCallback(
    (payload: T, options?: { echo?: boolean }) => {
      if (!shared) return refused<Published>();
      const publishing = shared.client.broadcast(topic, payload, options);
      publishing.catch((error) => feed?.fail(error));
      return publishing;
    },
    [shared, topic, feed],
  );

  return { ...(current?.state ?? EMPTY), publish };
}
