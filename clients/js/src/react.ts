export type { TopicMessage, TopicState } from './feed.js';
export { RealtimeProvider, useRealtimeClient } from './provider.js';
export { useRealtime, type Realtime, type UseRealtimeOptions } from './use-realtime.js';
export { useTopic, type Topic, type UseTopicOptions } from './use-topic.js';
export type { RealtimeState } from './use.js';
