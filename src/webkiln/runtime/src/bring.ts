/**
 * The page itself downloads the first shards of a first visit: while the inference worker starts,
 * and on another core. early.ts is what the worker does with them.
 */
import type { Shard } from "./plan.js";
import type { ToWorker } from "./protocol.js";

/** Shards at once, fewer when that were more bytes than a phone has memory for. */
export const AT_ONCE = 4;
const MOST_BYTES = 48 << 20;

/** How many shards are under way at once, at most `wanted`. */
export function shardsAtOnce(shards: readonly Shard[], wanted = AT_ONCE): number {
  const fitting = Math.floor(MOST_BYTES / (shards[0]?.bytes ?? 1));
  return Math.max(1, Math.min(wanted, fitting));
}

/** What remembers, in localStorage, that the weights of a plan began to arrive. */
export const mark = (plan: string): string => `webkiln early ${plan}`;

/**
 * Shards are fetched past the browser's own cache where the device keeps them: that need not keep
 * them too, and takes its time to.
 */
export function shardCache(): RequestCache {
  return "getDirectory" in (navigator.storage ?? {}) ? "no-store" : "default";
}

/**
 * Sends `files` to the worker as they arrive, if this is a first visit: on another one they are on the
 * device, all or in part, and to look there first takes too long. The worker verifies them, and asks
 * again for what is missing in the end.
 *
 * @returns What ends the downloads.
 */
export function bringEarly(worker: Worker, plan: string, files: readonly string[]): AbortController {
  const stop = new AbortController();
  const post = (message: ToWorker, transfer: Transferable[] = []): void =>
    worker.postMessage(message, transfer);
  const last = recall(plan);
  let visited = last === files[0];
  const early = visited ? [] : files;
  post({ early, fresh: last === null && files.length > 0 });
  const bring = async (file: string): Promise<void> => {
    try {
      const response = await fetch(new URL(file, plan), { signal: stop.signal, cache: shardCache() });
      if (!response.ok) throw new Error(response.statusText);
      post({ file, etag: response.headers.get("etag") });
      const reader = response.body!.getReader();
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        if (!visited) remember(plan, files[0]!);
        visited = true;
        post({ file, bytes: next.value }, [next.value.buffer]);
      }
      post({ file, end: true });
    } catch {
      post({ file, end: false });
    }
  };
  for (const file of early) void bring(file);
  return stop;
}

function recall(plan: string): string | null {
  try {
    return localStorage.getItem(mark(plan));
  } catch {
    return null; // storage may be forbidden; every visit is a first one, then
  }
}

function remember(plan: string, first: string): void {
  try {
    localStorage.setItem(mark(plan), first);
  } catch {
    // As above.
  }
}
