import type { RealtimeError } from './errors.js';

/** How a connection ended; 1006 is what a lost one is called. */
export interface End {
  code: number;
  reason: string;
  /** The refusal, where the server told it by HTTP. */
  error?: RealtimeError;
  /** Whether that is for good. */
  final?: boolean;
  /** Milliseconds that the server wants to be left alone. */
  retryAfter?: number | undefined;
}

/** What is known of most. */
export const LOST: End = { code: 1006, reason: '' };

/** What a transport tells; nothing any more once `closed` was, or its link was closed. */
export interface Listener {
  message(text: string): void;
  /** Something came, if only a sign of life. */
  heard(): void;
  closed(end: End): void;
}

/** A transport's connection to the server. */
export interface Link {
  /** The token that stands for the connection now. */
  token: string;
  /** The connection's id, from its welcome on. */
  id: string;
  isStream: boolean;
  /** The bytes of the largest command that it can send. */
  maxSize: number;
  send(text: string): void;
  /** End it and tell nothing; a `dead` one is not said good-bye to. */
  close(dead?: boolean): void;
}
