import { RealtimeError } from './errors.js';

/** Asks the application for a token; nothing, or an empty one, says that there will be none. */
export type GetToken = () => Promise<string | null | undefined> | string | null | undefined;

// Seconds before its expiry at which a token is renewed, and between two renewals, where tokens
// live long enough for it.
const AHEAD = 60;
const APART = 10;

const refusal = (): RealtimeError => new RealtimeError('INVALID_TOKEN', 'There is no other token');

/** The token to connect with, and when another one is due. */
export function createTokens(
  current: string | undefined,
  getToken: GetToken | undefined,
  timeout: number,
) {
  let refused: string | undefined;
  let asking: Promise<string> | undefined;
  let asked = 0;
  let due = Infinity;

  const use = (token: string): void => {
    current = token;
    due = Infinity;
  };

  const ask = async (): Promise<string> => {
    let timer;
    let token;
    asked = Date.now();
    try {
      token = await Promise.race([
        getToken!(),
        new Promise<never>((_, reject) => {
          timer = setTimeout(reject, timeout, 'getToken took too long');
        }),
      ]);
    } catch (cause) {
      throw new RealtimeError('TOKEN_UNAVAILABLE', String(cause), {}, { cause });
    } finally {
      clearTimeout(timer);
    }
    if (!token || token === refused) throw refusal();
    use(token);
    return token;
  };

  /** Get another one; several who ask at a time get the same. */
  const renew = (): Promise<string> =>
    (asking ??= ask().finally(() => {
      asking = undefined;
    }));

  return {
    use,
    renew,
    /** Whether another one can be had. */
    renewable: !!getToken,
    /** The token to connect with. */
    next: async (): Promise<string> => {
      if (getToken && (!current || current === refused || Date.now() >= due)) return renew();
      if (!current) throw refusal();
      return current;
    },
    /** The server has taken one with so many seconds to live; answer in how many to renew it. */
    taken: (seconds: number): number => {
      const apart = Math.max(0.1, Math.min(APART, seconds / 2)) - (Date.now() - asked) / 1000;
      const wait = Math.max(seconds - AHEAD, apart, 0);
      due = Date.now() + wait * 1000;
      return wait;
    },
    /** The server takes this one no longer. */
    refuse: () => {
      refused = current;
    },
  };
}
