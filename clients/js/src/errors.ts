/** Codes of `RealtimeError` that come from the client itself, beside those of the server. */
export type ClientErrorCode =
  /** There is no connection, and none will be made: `disconnect()`, or a final close code. */
  | 'CLOSED'
  /** No answer came in time. */
  | 'TIMEOUT'
  /** Too many commands wait already. */
  | 'QUEUE_FULL'
  /** The command is larger than the server takes. */
  | 'TOO_LARGE'
  /** The topic was unsubscribed from before the server had answered. */
  | 'UNSUBSCRIBED'
  /** `getToken` failed; it is asked again. */
  | 'TOKEN_UNAVAILABLE'
  /** A handler of an event threw. */
  | 'HANDLER_FAILED';

/** What went wrong: of the server's error codes, or of the client's own. */
export class RealtimeError extends Error {
  override readonly name = 'RealtimeError';

  constructor(
    /** A code of the protocol's table, or a {@link ClientErrorCode}. */
    readonly code: string,
    message: string,
    /** What the server says beside it, such as `topic` or `retry_after_ms`. */
    readonly details: Record<string, any> = {},
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** The error of an `Error` message, or of an HTTP answer's envelope. */
export const errorOf = (data: any): RealtimeError =>
  new RealtimeError(data?.code ?? 'UNAVAILABLE', data?.message ?? '', data?.details);

/** Nobody waits for an answer any more. */
export const closedError = (): RealtimeError =>
  new RealtimeError('CLOSED', 'There is no connection');

/** Refusals after which the same may succeed, without anybody's doing. */
export const isPassing = ({ code }: RealtimeError): boolean =>
  /RATE_LIMITED|UNAVAILABLE|INTERNAL_ERROR|TIMEOUT/.test(code);

/** Whether an error says that the token was refused. */
export const isTokenError = (error: RealtimeError | undefined): boolean =>
  /TOKEN_EXPIRED|INVALID_TOKEN/.test(error?.code ?? '');

/** The close code of an expired token. */
export const TOKEN_EXPIRED = 4001;

/** Whether a connection that ended with this close code is not to be made again. */
export const isFinal = (code: number): boolean => /^(100[02379]|4[5-9]..)$/.test(`${code}`);
