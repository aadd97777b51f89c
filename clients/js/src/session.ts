import { createBackoff, sleep } from './backoff.js';
import { hold, type Ended, type Owner } from './connection.js';
import { isFinal, isPassing, isTokenError, RealtimeError, TOKEN_EXPIRED } from './errors.js';
import { LOST, type End, type Link, type Listener } from './link.js';
import type { Options } from './options.js';
import { LONGEST_TIMER } from './promises.js';
import type { Events, Message, Welcome } from './protocol.js';
import { openStream, streamUrl } from './sse.js';
import { createTokens } from './tokens.js';
import { openWebSocket } from './websocket.js';

/** Whom a session tells. */
export interface Host extends Owner {
  tell<K extends keyof Events>(name: K, data: Events[K]): void;
  /** The session is over, and not by `stop`. */
  over(error: RealtimeError, end: End): void;
  authenticate(token: string): Promise<unknown>;
}

// Reconnects of a client on streams, of which the last tries a WebSocket first.
const STREAMS = 5;
// Milliseconds before a token is asked for again that could not be had.
const AGAIN = 5000;

/** Stays connected from `start` to `stop`, or to what makes it pointless. */
export function createSession(url: string, options: Options, host: Host) {
  const {
    transport = 'auto',
    WebSocket = globalThis.WebSocket,
    minDelay = 500,
    maxDelay = 30_000,
    stableAfter = 5000,
  } = options;
  const connectTimeout = Math.min(options.connectTimeout ?? 10_000, LONGEST_TIMER);
  const backoff = createBackoff(minDelay, maxDelay);
  const tokens = createTokens(options.token, options.getToken, connectTimeout);
  let run: AbortController | undefined;
  let link: Link | undefined;
  let renewal: ReturnType<typeof setTimeout> | undefined;
  let hadWebSocket = false;
  // Connections since the client is on streams.
  let streams = 0;

  const renewIn = (ms: number): void => {
    clearTimeout(renewal);
    if (tokens.renewable) renewal = setTimeout(renew, Math.min(ms, LONGEST_TIMER));
  };

  const renew = async (): Promise<void> => {
    const renewed = link;
    let token;
    try {
      token = await tokens.renew();
      if (link === renewed) await host.authenticate(token);
    } catch (error) {
      if (link !== renewed) return;
      if (isPassing(error as RealtimeError)) renewIn(AGAIN);
      else if (token) tokens.refuse();
      host.tell('error', error as RealtimeError);
    }
  };

  /** The server has said when the connection's token expires, in Unix seconds. */
  const expires = ({ data, timestamp }: Message<{ expires_at: number }>): void =>
    renewIn(tokens.taken(data.expires_at - (timestamp ?? Date.now()) / 1000) * 1000);

  const owner: Owner = {
    welcomed: (welcomed, welcome: Message<Welcome>) => {
      link = welcomed;
      hadWebSocket ||= !link.isStream;
      streams = link.isStream ? streams || 1 : 0;
      expires(welcome);
      host.welcomed(link, welcome);
    },
    received: host.received,
    lost: () => {
      link = undefined;
      clearTimeout(renewal);
      host.lost();
    },
  };

  /** One connection, or an attempt to have one, by the transport whose turn it is. */
  const connect = async (signal: AbortSignal): Promise<Ended> => {
    const token = await tokens.next();
    if (signal.aborted) return { ...LOST, lived: 0 };
    const isAuto = transport === 'auto';
    const isStream =
      transport === 'sse' || (isAuto && (!WebSocket || (streams > 0 && streams++ % STREAMS > 0)));
    const attempt = (open: (listener: Listener) => Link): Promise<Ended> =>
      hold(open, connectTimeout, signal, owner);
    if (!isStream) {
      const ended = await attempt((listener) => openWebSocket(url, token, WebSocket!, listener));
      if (ended.lived || ended.final || ended.code !== 1006 || signal.aborted) return ended;
    }
    // A WebSocket that is refused does not say why, a stream does; where WebSockets never work,
    // it is the connection.
    const stay = isStream || (isAuto && !hadWebSocket);
    return attempt((listener) => openStream(streamUrl(url), token, stay, listener));
  };

  /** Why there is to be no other connection, if so. */
  const verdict = ({ code, reason, error, final }: Ended): RealtimeError | undefined => {
    if (final) return error;
    if (code === TOKEN_EXPIRED || isTokenError(error)) {
      tokens.refuse();
      return tokens.renewable ? undefined : error ?? new RealtimeError('TOKEN_EXPIRED', reason);
    }
    if (!isFinal(code)) return undefined;
    return new RealtimeError('CLOSED', `${code} ${reason}`, { code, reason });
  };

  const stay = async (signal: AbortSignal): Promise<void> => {
    for (;;) {
      const ended = await connect(signal).catch((reason): Ended => {
        // There is no token, or no transport can be opened with it.
        const error =
          reason instanceof RealtimeError
            ? reason
            : new RealtimeError('INVALID_TOKEN', String(reason));
        return { ...LOST, reason: error.message, lived: 0, error, final: !isPassing(error) };
      });
      if (signal.aborted) return;
      const { code, reason, lived, error } = ended;
      const why = verdict(ended);
      if (why) {
        run = undefined;
        return host.over(why, ended);
      }
      if (lived) host.tell('disconnected', { code, reason, willReconnect: true });
      else if (error) host.tell('error', error);
      if (signal.aborted) return;
      if (lived >= stableAfter) backoff.reset();
      const next = backoff.next();
      next.delay = Math.max(next.delay, ended.retryAfter ?? 0);
      host.tell('reconnecting', next);
      if (!signal.aborted) await sleep(next.delay, signal);
      if (signal.aborted) return;
    }
  };

  return {
    expires,
    running: () => !!run,
    start: (): void => {
      run = new AbortController();
      backoff.reset();
      void stay(run.signal);
    },
    /** Say whether it was running. */
    stop: (): boolean => {
      const stopped = run;
      run = undefined;
      stopped?.abort();
      return !!stopped;
    },
    /** The connection has this token now. */
    use: (token: string): void => {
      tokens.use(token);
      if (link) link.token = token;
    },
  };
}
