export { RealtimeClient } from './client.js';
export { RealtimeError, type ClientErrorCode } from './errors.js';
export type { Options } from './options.js';
export type {
  Broadcast,
  CommandMessage,
  DirectMessage,
  Events,
  HistoryPage,
  Message,
  Position,
  PresenceChange,
  PresencePage,
  Published,
  Subscribed,
  Welcome,
} from './protocol.js';
export type { GetToken } from './tokens.js';
export { topicMatches } from './topics.js';
export type { WebSocketClass } from './websocket.js';
