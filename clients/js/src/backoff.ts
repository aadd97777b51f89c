/** Delays with full jitter: random between none and a bound that doubles with each attempt. */
export function createBackoff(min: number, max: number) {
  let attempts = 0;
  return {
    /** The next attempt's number, from 1 up, and the milliseconds to wait before it. */
    next: () => ({
      delay: Math.random() * Math.min(max, min * 2 ** attempts++),
      attempt: attempts,
    }),
    reset: () => {
      attempts = 0;
    },
  };
}

/** Wait, or be aborted. */
export const sleep = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
