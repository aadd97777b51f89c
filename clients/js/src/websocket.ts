import type { Link, Listener } from './link.js';

/** What is needed of a `WebSocket` class: the browser's, Node's, or that of the package `ws`. */
export type WebSocketClass = new (url: string, protocols: string[]) => any;

/** A WebSocket, with the token in its subprotocol, which no proxy logs. */
export function openWebSocket(
  url: string,
  token: string,
  WebSocket: WebSocketClass,
  listener: Listener,
): Link {
  const socket = new WebSocket(url, [`access_token.${token}`]);
  socket.onmessage = ({ data }: { data: string }) => {
    listener.heard();
    listener.message(data);
  };
  // `ws` throws what nobody listens for.
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }: { code: number; reason: string }) =>
    listener.closed({ code, reason });
  return {
    token,
    id: '',
    isStream: false,
    maxSize: Infinity,
    send: (text) => socket.send(text),
    close: (dead) => {
      socket.onmessage = socket.onclose = null;
      // `ws` waits half a minute for the other side's good-bye.
      if (dead && socket.terminate) socket.terminate();
      else socket.close(1000);
    },
  };
}
