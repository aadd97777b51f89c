import { createContext, createElement, useContext, useEffect, useState } from 'react';
import type { ReactElement, ReactNode } from 'react';
import type { RealtimeClient } from './index.js';
import { SharedClient } from './shared.js';
import { useLatest, type UseRealtimeOptions } from './use-realtime.js';

const Context = createContext<SharedClient | null>(null);

/** Gives the components below it a connection: see `useTopic` and `useRealtimeClient`. */
export function RealtimeProvider({
  url,
  token,
  getToken,
  autoConnect = true,
  children,
}: UseRealtimeOptions & { children?: ReactNode }): ReactElement {
  const [shared, setShared] = useState<SharedClient | null>(null);
  const ask = useLatest(getToken);

  useEffect(() => {
    const user = {};
    const joined = SharedClient.join(user, url, token, ask);
    // Why there is no connection is told by the events of the client.
    if (autoConnect) joined.client.connect().catch(() => {});
    setShared(joined);
    return () => {
      setShared(null);
      joined.release(user);
    };
  }, [url, token, ask, autoConnect]);

  return createElement(Context.Provider, { value: shared }, children);
}

/** @internal */
export const useShared = (): SharedClient | null => useContext(Context);

/** The client of the provider above; null until that is mounted. */
export const useRealtimeClient = (): RealtimeClient | null => useShared()?.client ?? null;
