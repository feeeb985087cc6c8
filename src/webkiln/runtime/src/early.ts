/** Shards that the page began to download before the plan was known; see early.js. */
import type { EarlyPart } from "./protocol.js";

type Arriving = ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;

/** What is still on its way, and what nobody took yet; both by file name, a shard's hash. */
const arriving = new Map<string, Arriving>();
const untaken = new Map<string, Response>();

export function expect(files: readonly string[]): void {
  for (const file of files) {
    const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => void arriving.set(file, controller),
      cancel: () => void arriving.delete(file),
    });
    // With a length, as downloads have one: an end that comes too soon is then the file's own.
    untaken.set(file, new Response(stream, { headers: { "content-length": "0" } }));
  }
}

export function receive(part: EarlyPart): void {
  const stream = arriving.get(part.file);
  if ("bytes" in part) return stream?.enqueue(part.bytes);
  arriving.delete(part.file);
  if (part.end) stream?.close();
  else stream?.error(new Error("the page's download broke"));
}

/** The download of a shard as if it were begun here, if the page began it; once. */
export function takeEarly(file: string): Response | undefined {
  const response = untaken.get(file);
  untaken.delete(file);
  return response;
}
