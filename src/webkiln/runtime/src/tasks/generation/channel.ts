/** What is produced at one pace and iterated at another. */
import type { AnswerStream } from "./types.js";

/**
 * An answer as a stream. It is generated whether or not somebody reads, so that an answer that is
 * never read can't hold up the next one.
 */
export class Channel<T> implements AnswerStream<T> {
  readonly controller = new AbortController();
  private readonly items: T[] = [];
  private readonly readers: (() => void)[] = [];
  private ended = false;
  private error: unknown;

  push(item: T): void {
    this.items.push(item);
    this.wake();
  }

  /** Nothing more comes; `error` is thrown once everything before it has been read. */
  end(error?: unknown): void {
    this.ended = true;
    this.error ??= error;
    this.wake();
  }

  abort(): void {
    this.controller.abort();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<T, void>> {
    while (!this.items.length && !this.ended) {
      await new Promise<void>((resolve) => this.readers.push(resolve));
    }
    if (this.items.length) return { value: this.items.shift()!, done: false };
    const error = this.error;
    this.error = undefined;
    if (error !== undefined) throw error;
    return { value: undefined, done: true };
  }

  /** Leaving a loop early: nobody wants the rest. */
  async return(): Promise<IteratorResult<T, void>> {
    this.abort();
    this.items.length = 0;
    this.error = undefined;
    this.ended = true;
    this.wake();
    return { value: undefined, done: true };
  }

  private wake(): void {
    for (const reader of this.readers.splice(0)) reader();
  }
}
