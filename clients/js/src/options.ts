import type { GetToken } from './tokens.js';
import type { WebSocketClass } from './websocket.js';

/** How a client connects, and how patient it is. Times are milliseconds. */
export interface Options {
  /** The token to connect with. */
  token?: string | undefined;
  /** Gets a token: for the first connection where there is none, and whenever another is due. */
  getToken?: GetToken | undefined;
  /** WebSocket, with server-sent events where WebSockets are blocked (`auto`), or one of them. */
  transport?: 'auto' | 'websocket' | 'sse' | undefined;
  /** The class to use where there is no global one, as in Node before 22: that of `ws`. */
  WebSocket?: WebSocketClass | undefined;
  /** For the answer to a command, from when it was given: 10,000. */
  commandTimeout?: number | undefined;
  /** For a connection to be welcomed, and for `getToken`: 10,000. */
  connectTimeout?: number | undefined;
  /** The bound of the delay before the first reconnect: 500. */
  minDelay?: number | undefined;
  /** The bound that it doubles up to: 30,000. */
  maxDelay?: number | undefined;
  /** How long a connection has to have lived to begin with `minDelay` again: 5,000. */
  stableAfter?: number | undefined;
  /** Commands that may wait, for a connection or for their answers: 1,000. */
  maxQueue?: number | undefined;
}
