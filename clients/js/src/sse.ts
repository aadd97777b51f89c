import { sleep } from './backoff.js';
import { errorOf } from './errors.js';
import { LOST, type End, type Link, type Listener } from './link.js';

// What one request may have: commands, and characters, of which each is three bytes at most.
const MAX_COMMANDS = 100;
const MAX_SIZE = 20_000;
const MAX_BODY = 65_536;

/** Where the streams are, beside the WebSockets' URL. */
export function streamUrl(url: string): string {
  const found = new URL(url);
  found.protocol = found.protocol.replace('ws', 'http');
  found.pathname = found.pathname.replace(/[^/]*$/, 'sse');
  return found.href;
}

/**
 * Server-sent events down, commands up by POST.
 *
 * A WebSocket that is refused does not say why, a stream does: without `stay` it is opened for
 * that only, and ends at once where it is not refused.
 */
export function openStream(url: string, token: string, stay: boolean, listener: Listener): Link {
  const ending = new AbortController();
  const { signal } = ending;
  const waiting: string[] = [];
  let posting = false;

  const end = (end: End): void => {
    if (signal.aborted) return;
    ending.abort();
    listener.closed(end);
  };
  const ask = (target: string, type: string, body?: string): Promise<Response> =>
    fetch(target, {
      method: body ? 'POST' : 'GET',
      headers: { Authorization: `Bearer ${link.token}`, [body ? 'Content-Type' : 'Accept']: type },
      body,
      signal,
    } as RequestInit);

  const read = async (): Promise<void> => {
    const response = await ask(url, 'text/event-stream');
    if (!response.ok) return end({ ...(await refusal(response)), final: response.status === 403 });
    if (!stay) return end(LOST);
    const parse = eventParser((event, data) => {
      if (signal.aborted || !data) return;
      if (event === 'close') end(JSON.parse(data));
      else listener.message(data);
    });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      listener.heard();
      parse(value!);
    }
    end(LOST);
  };

  // One request after the other keeps the order; what comes meanwhile goes together.
  const post = async (): Promise<void> => {
    posting = true;
    await null;
    while (waiting[0]) {
      const batch: string[] = [];
      let size = 0;
      const fits = (text: string): boolean => (size += text.length) < MAX_SIZE;
      while (waiting[0] && batch.length < MAX_COMMANDS && fits(waiting[0])) {
        batch.push(waiting.shift()!);
      }
      const body = batch[0] ? `[${batch}]` : waiting.shift()!;
      const target = url.replace(/(?=$|\?)/, `/${link.id}`);
      for (;;) {
        const response = await ask(target, 'application/json', body);
        if (response.ok) break;
        const refused = await refusal(response);
        // It takes no more for the moment, or there is no such stream any more.
        if (response.status !== 429 && response.status !== 503) return end(refused);
        await sleep(refused.retryAfter || 1000, signal);
      }
    }
    posting = false;
  };

  const link: Link = {
    token,
    id: '',
    isStream: true,
    maxSize: MAX_BODY,
    send: (text) => {
      waiting.push(text);
      if (!posting) post().catch(() => end(LOST));
    },
    close: () => ending.abort(),
  };
  read().catch(() => end(LOST));
  return link;
}

/** What a refusal says. */
async function refusal(response: Response): Promise<End> {
  const error = errorOf((await response.json().catch(() => null))?.error);
  const seconds = Number(response.headers.get('Retry-After'));
  const retryAfter = error.details['retry_after_ms'] ?? (seconds * 1000 || 0);
  return { ...LOST, reason: error.message, error, retryAfter };
}

/**
 * Takes a stream's text piece by piece, and tells its events (HTML, section 9.2.6), whose data this
 * server never breaks into lines.
 */
export function eventParser(tell: (event?: string, data?: string) => void): (text: string) => void {
  let rest = '';
  let fields: Record<string, string> = {};
  return (text) => {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    for (const line of lines) {
      const [, field, value] = /^([^:]*):? ?(.*)/s.exec(line)!;
      if (line) fields[field!] = value!;
      else {
        tell(fields['event'], fields['data']);
        fields = {};
      }
    }
  };
}
