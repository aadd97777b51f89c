import { RealtimeError } from './errors.js';

/** A handler of events. */
export type Handler = (data: any, message?: any) => unknown;

/** Handlers by the name of what they handle; one that fails harms no other. */
export function createEmitter() {
  const all = new Map<string, Set<Handler>>();

  /** Call those of the handlers that are still in the set when their turn has come. */
  const call = (handlers: Set<Handler>, data: unknown, message?: unknown): void => {
    const failed = (cause: unknown): void => {
      const told = all.get('error');
      if (!told?.size || told === handlers) console.error(cause);
      else call(told, new RealtimeError('HANDLER_FAILED', String(cause), {}, { cause }));
    };
    for (const handler of [...handlers]) {
      if (!handlers.has(handler)) continue;
      try {
        const result = handler(data, message);
        if (result instanceof Promise) result.catch(failed);
      } catch (error) {
        failed(error);
      }
    }
  };

  return {
    call,
    on: (name: string, handler: Handler): void => {
      all.set(name, (all.get(name) ?? new Set()).add(handler));
    },
    off: (name: string, handler?: Handler): void => {
      if (handler) all.get(name)?.delete(handler);
      else all.get(name)?.clear();
    },
    emit: (name: string, data: unknown, message?: unknown): void => {
      const handlers = all.get(name);
      if (handlers) call(handlers, data, message);
    },
  };
}
