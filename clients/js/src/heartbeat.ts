// Milliseconds that the answer to a Ping may take.
const PATIENCE = 10_000;

/** Notices a connection that is dead: who has been silent is asked, and then has to be heard. */
export function startHeartbeat(interval: number, ask: () => void, dead: () => void) {
  let last = Date.now();
  let asked = false;

  const check = (): void => {
    if (asked) return dead();
    const wait = last + interval - Date.now();
    asked = wait <= 0;
    timer = setTimeout(check, asked ? PATIENCE : wait);
    if (asked) ask();
  };
  let timer = setTimeout(check, interval);

  return {
    heard: () => {
      last = Date.now();
      asked = false;
    },
    stop: () => clearTimeout(timer),
  };
}
