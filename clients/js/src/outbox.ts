import { closedError, errorOf, RealtimeError } from './errors.js';
import { LONGEST_TIMER } from './promises.js';
import type { CommandMessage, Message } from './protocol.js';

type Id = string | number;

/** A command and who waits for its answer; they are told at once, before what comes after it. */
export interface Command {
  message: CommandMessage;
  /** Not to be sent again, nor kept, when its connection goes. */
  once?: boolean;
  done(data: any): void;
  failed(error: RealtimeError): void;
}

interface Waiting extends Command {
  text: string;
  timer: ReturnType<typeof setTimeout>;
  isSent?: boolean;
}

export type Outbox = ReturnType<typeof createOutbox>;

/** Commands that wait to be sent, or for their answers, in the order in which they came. */
export function createOutbox(limit: number, timeout: number) {
  const all = new Map<Id, Waiting>();
  let send: ((text: string) => void) | undefined;
  let maxSize: number;
  let lastId = 0;

  const take = (id: Id): Waiting | undefined => {
    const waiting = all.get(id);
    clearTimeout(waiting?.timer);
    all.delete(id);
    return waiting;
  };

  const fail = (id: Id, code: string, message: string): void =>
    take(id)?.failed(new RealtimeError(code, message));

  const dispatch = (id: Id, waiting: Waiting): void => {
    const { text } = waiting;
    if (new TextEncoder().encode(text).length > maxSize) {
      return fail(id, 'TOO_LARGE', `At most ${maxSize} bytes are taken`);
    }
    waiting.isSent = true;
    send?.(text);
  };

  return {
    /** How many have no answer yet. */
    size: () => all.size,

    /** Send a command now, or when there is a connection. */
    add: (command: Command): void => {
      if (!command.once && all.size >= limit) {
        const message = `At most ${limit} commands may wait`;
        return command.failed(new RealtimeError('QUEUE_FULL', message));
      }
      let id = command.message.id ?? ++lastId;
      while (all.has(id)) id = ++lastId;
      const text = JSON.stringify({ ...command.message, id });
      const ms = Math.min(timeout, LONGEST_TIMER);
      const timer = setTimeout(fail, ms, id, 'TIMEOUT', 'No answer came in time');
      const waiting = { ...command, text, timer };
      all.set(id, waiting);
      if (send) dispatch(id, waiting);
    },

    /** There is a connection. What waits is sent by `flush`, after what is added before that. */
    open: (by: (text: string) => void, size: number): void => {
      send = by;
      maxSize = size;
    },

    flush: (): void => {
      for (const [id, waiting] of all) if (!waiting.isSent) dispatch(id, waiting);
    },

    /** The connection is gone: what has no answer is sent again on the next one. */
    lost: (): void => {
      send = undefined;
      for (const [id, waiting] of all) {
        waiting.isSent = false;
        if (waiting.once) take(id)!.failed(closedError());
      }
    },

    /** Tell whoever waits for an answer; say whether somebody did. */
    answer: ({ id, type, data }: Message): boolean => {
      const waiting = take(id!);
      if (type === 'Error') waiting?.failed(errorOf(data));
      else waiting?.done(data);
      return !!waiting;
    },

    /** Let nobody wait any longer. */
    close: (error: RealtimeError): void => {
      for (const id of [...all.keys()]) take(id)?.failed(error);
    },
  };
}
