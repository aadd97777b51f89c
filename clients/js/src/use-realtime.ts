import { useCallback, useEffect, useRef, useState } from 'react';
import type { GetToken, Published, Subscribed } from './index.js';
import { SharedClient } from './shared.js';
import { IDLE, refused, Use, type Handlers, type RealtimeState } from './use.js';

/** Where to connect, and as whom. */
export interface UseRealtimeOptions {
  url: string;
  /** The token; another one makes another connection. */
  token?: string | undefined;
  /**
   * Gets a token where there is none, and whenever another is due. It may be another function each
   * time: the latest one is asked.
   */
  getToken?: GetToken | undefined;
  /** Whether to connect when the component is mounted: true. */
  autoConnect?: boolean | undefined;
}

/** What a component knows of its connection, and does by it. */
export interface Realtime extends RealtimeState {
  /** Connect; what goes wrong is in `error`. */
  connect: () => Promise<void>;
  disconnect: () => void;
  /** Subscribe to topics and patterns, for as long as the component is mounted. */
  subscribe: (topics: string[]) => Promise<Subscribed[]>;
  /** Publish on a topic. */
  broadcast: (topic: string, payload: any) => Promise<Published>;
  /** Send to all connections of a user; answers how many got it. */
  sendDirectMessage: (targetUser: string, payload: any) => Promise<number>;
  /** Handle messages of a type, in place of the handler that the component had for it. */
  on: (messageType: string, handler: (data: any) => void) => void;
  off: (messageType: string) => void;
}

/** A function that asks the latest one that a component was given. */
export function useLatest(getToken: GetToken | undefined): GetToken | undefined {
  const latest = useRef(getToken);
  const ask = useCallback(() => latest.current?.(), []);
  useEffect(() => {
    latest.current = getToken;
  });
  return getToken && ask;
}

/**
 * A component's connection, as the reference has it; components with the same URL and token share
 * it. Handlers and topics stay over reconnects, and when the token changes.
 */
export function useRealtime({
  url,
  token,
  getToken,
  autoConnect = true,
}: UseRealtimeOptions): Realtime {
  const [state, setState] = useState(IDLE);
  const [handlers] = useState<Handlers>(() => new Map());
  const [topics] = useState(() => new Set<string>());
  const use = useRef<Use | null>(null);
  const ask = useLatest(getToken);

  useEffect(() => {
    const join = (user: object): SharedClient => SharedClient.join(user, url, token, ask);
    const mine = new Use(join, handlers, topics, setState);
    use.current = mine;
    if (autoConnect) void mine.connect();
    return () => {
      use.current = null;
      mine.end(false);
    };
  }, [url, token, ask, autoConnect, handlers, topics]);

  // For another connection they are others, so that effects run again that depend on them.
  const connection = [url, token, ask];
  const connect = useCallback(async () => use.current?.connect(), connection);
  const disconnect = useCallback(() => use.current?.end(true), connection);
  const subscribe = useCallback((names: string[]) => {
    if (use.current) return use.current.subscribe(names);
    for (const name of names) topics.add(name);
    return refused<Subscribed[]>();
  }, connection);
  const broadcast = useCallback(
    (topic: string, payload: any) =>
      use.current?.client?.broadcast(topic, payload) ?? refused<Published>(),
    connection,
  );
  const sendDirectMessage = useCallback(
    (targetUser: string, payload: any) =>
      use.current?.client?.sendDirectMessage(targetUser, payload) ?? refused<number>(),
    connection,
  );
  const on = useCallback((messageType: string, handler: (data: any) => void) => {
    handlers.set(messageType, handler);
    use.current?.attach(messageType);
  }, connection);
  const off = useCallback((messageType: string) => void handlers.delete(messageType), connection);

  return { ...state, connect, disconnect, subscribe, broadcast, sendDirectMessage, on, off };
}
