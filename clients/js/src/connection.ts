import { startHeartbeat } from './heartbeat.js';
import { LOST, type End, type Link, type Listener } from './link.js';
import type { Message } from './protocol.js';

/** How a connection ended, and how it was. */
export interface Ended extends End {
  /** Milliseconds that it lived after its welcome, or 0 where there was none. */
  lived: number;
}

/** Whom a connection tells. */
export interface Owner {
  welcomed(link: Link, welcome: Message): void;
  received(message: Message): void;
  /** A connection that was welcomed is no more. */
  lost(): void;
}

/** One connection from its beginning to its end, by whatever transport; fulfilled when it ended,
 * rejected where it cannot even be tried. */
export const hold = (
  open: (listener: Listener) => Link,
  connectTimeout: number,
  signal: AbortSignal,
  owner: Owner,
): Promise<Ended> =>
  new Promise((resolve) => {
    let heartbeat: ReturnType<typeof startHeartbeat> | undefined;
    let since = 0;
    let ended = false;

    const end = (end: End, dead?: boolean): void => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      heartbeat?.stop();
      signal.removeEventListener('abort', abort);
      link.close(dead);
      if (since) owner.lost();
      resolve({ ...end, lived: since && (Date.now() - since || 1) });
    };
    const abort = (): void => end(LOST);
    const dead = (): void => end({ code: 1006, reason: 'Nothing was heard' }, true);

    // No transport tells anything before this has returned.
    const link = open({
      heard: () => heartbeat?.heard(),
      closed: end,
      message: (text) => {
        let message: Message;
        try {
          message = JSON.parse(text);
        } catch {
          return;
        }
        if (since || message.data?.status !== 'connected') return owner.received(message);
        since = Date.now();
        clearTimeout(timer);
        const interval = message.data.heartbeat_interval_secs * 1000 || 30_000;
        heartbeat = startHeartbeat(interval, () => link.send('{"type":"Ping"}'), dead);
        link.id = message.data.connection_id;
        owner.welcomed(link, message);
      },
    });
    const timer = setTimeout(dead, connectTimeout);
    signal.addEventListener('abort', abort);
  });
