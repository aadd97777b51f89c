/** Let nobody have to look at a promise: that it is rejected is no error of the program. */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** A promise that others settle. */
export interface Deferred<T> {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

export function defer<T>(): Deferred<T> {
  const deferred = {} as Deferred<T>;
  deferred.promise = quiet(
    new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject })),
  );
  return deferred;
}

/** The milliseconds that timers take; those for longer, as for ever, would be over at once. */
export const LONGEST_TIMER = 2 ** 31 - 1;
