import { RealtimeClient, type GetToken } from './index.js';

const all = new Map<string, SharedClient>();

/**
 * A client that all components with the same URL and token use together.
 *
 * React mounts what it has just unmounted: in StrictMode to try it, else where a page is
 * rearranged. What nobody uses any more is therefore let go a moment later, unless it is used again
 * by then.
 */
export class SharedClient {
  readonly client: RealtimeClient;
  #getToken: GetToken | undefined;
  readonly #users = new Set<object>();
  readonly #topics = new Map<string, number>();

  private constructor(
    readonly key: string,
    url: string,
    token: string | undefined,
    isRenewable: boolean,
  ) {
    const getToken = isRenewable ? () => this.#getToken!() : undefined;
    this.client = new RealtimeClient(url, { token, getToken });
  }

  /**
   * The one for this URL and token, with one more user, which has to `release` it. Of several
   * functions that get tokens the latest counts.
   */
  static join(
    user: object,
    url: string,
    token: string | undefined,
    getToken: GetToken | undefined,
  ): SharedClient {
    const key = JSON.stringify([url, token, !!getToken]);
    const shared = all.get(key) ?? new SharedClient(key, url, token, !!getToken);
    all.set(key, shared);
    shared.#getToken = getToken;
    shared.#users.add(user);
    return shared;
  }

  /** Somebody uses it no longer: disconnect when it was the last one, on the spot or soon. */
  release(user: object, atOnce = false): void {
    this.#users.delete(user);
    const letGo = (): void => {
      if (this.#users.size) return;
      if (all.get(this.key) === this) all.delete(this.key);
      this.client.disconnect();
    };
    if (atOnce) letGo();
    else setTimeout(letGo);
  }

  /** One more wants to hear of a topic. */
  retain(topic: string): void {
    this.#topics.set(topic, (this.#topics.get(topic) ?? 0) + 1);
  }

  /** One wants to hear of it no longer: unsubscribe soon, when it was the last one. */
  forget(topic: string): void {
    this.#topics.set(topic, this.#topics.get(topic)! - 1);
    setTimeout(() => {
      if (this.#topics.get(topic) !== 0) return;
      this.#topics.delete(topic);
      if (this.#users.size) void this.client.unsubscribe(topic);
    });
  }
}
