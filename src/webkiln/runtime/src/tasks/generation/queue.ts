/** One answer at a time: the cache is one. */
import { WebkilnError } from "../../index.js";

export function aborted(): WebkilnError {
  return new WebkilnError("aborted", "The caller aborted.");
}

/**
 * The promise, or "aborted" as soon as the signal fires. What the promise stands for goes on; its
 * owner sees to what comes of it.
 */
export function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(aborted());
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    const done = (): void => signal.removeEventListener("abort", abort);
    work.then(resolve, reject).finally(done);
  });
}

export class Queue {
  private last: Promise<unknown> = Promise.resolve();

  /** Does `work` after what was added before. Work that is aborted while it waits never begins. */
  add<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const done = this.last.then(() => {
      if (signal?.aborted) throw aborted();
      return work();
    });
    this.last = done.catch(() => undefined);
    return abortable(done, signal);
  }
}
