/** The place of a publication among those of its topic. */
export interface Position {
  offset: number;
  epoch: string;
}

/** One message of the protocol. */
export interface Message<T = any> {
  type: string;
  data: T;
  id?: string | number;
  /** Unix milliseconds; set by the server. */
  timestamp?: number;
}

/** One command. */
export interface CommandMessage {
  type: string;
  data?: any;
  /** Chosen by the client where it is not given. */
  id?: string | number;
}

/** The server's first words on a connection. */
export interface Welcome {
  status: 'connected';
  connection_id: string;
  user_id: string;
  username?: string;
  session_id?: string;
  expires_at: number;
  heartbeat_interval_secs: number;
  client_timeout_secs: number;
  max_frame_size: number;
  server: { name: string; version: string };
}

/** Where a topic stands to which one is subscribed. */
export interface Subscribed extends Partial<Position> {
  topic: string;
  /** Whether all that was missed has come; there after a reconnect only. */
  recovered?: boolean;
}

/** A publication on a topic; `offset` and `epoch` are there where the topic has history. */
export interface Broadcast<T = any> extends Partial<Position> {
  topic: string;
  payload: T;
  from_user: string;
}

/** A message to this user. */
export interface DirectMessage<T = any> {
  from_user: string;
  payload: T;
}

/** Somebody has come to a topic, is gone, or has another state. */
export interface PresenceChange {
  topic: string;
  user_id: string;
  username?: string;
  state?: any;
}

/** The answer to a publication. */
export interface Published extends Partial<Position> {
  topic: string;
}

/** Publications of a topic, and its newest position. */
export interface HistoryPage<T = any> extends Position {
  topic: string;
  publications: { payload: T; from_user: string; timestamp: number; offset: number }[];
}

/** Who is on a topic. */
export interface PresencePage {
  topic: string;
  users: number;
  connections: number;
  members: { user_id: string; username?: string; connections: number; state?: any }[];
  /** There where more members follow. */
  after?: string;
}

/** What `on` can be called with, and what its handlers get. */
export interface Events {
  Broadcast: Broadcast;
  DirectMessage: DirectMessage;
  Status: { status: string; [more: string]: any };
  Join: PresenceChange;
  Leave: PresenceChange;
  Update: PresenceChange;
  Ack: any;
  Pong: { timestamp?: number; server_time: number };
  History: HistoryPage;
  Presence: PresencePage;
  Error: { code: string; message: string; details: Record<string, any> };
  /** The connection is there. */
  connected: Welcome;
  /** It is gone. */
  disconnected: { code: number; reason: string; willReconnect: boolean };
  /** It will be tried again in `delay` milliseconds. */
  reconnecting: { attempt: number; delay: number };
  /** Publications on these topics may have been lost: load anew what is shown of them. */
  gap: { topics: string[] };
  /** What nobody else is told of: refusals that no command waits for, trouble with tokens. */
  error: import('./errors.js').RealtimeError;
}
