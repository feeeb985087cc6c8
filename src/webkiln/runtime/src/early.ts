/** Shards that the page downloads for the worker; see bring.ts. */
import type { EarlyPart } from "./protocol.js";

interface Arriving {
  readonly response: Response;
  readonly stream: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
}

/** What is still on its way, and what nobody took yet; both by file name, a shard's hash. */
const arriving = new Map<string, Arriving>();
const untaken = new Map<string, Response>();
let fresh = false;

/** `none`: the page knows of no earlier visit. */
export function expect(files: readonly string[], none: boolean): void {
  fresh = none;
  for (const file of files) {
    let stream: Arriving["stream"];
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => void (stream = controller),
      cancel: () => void arriving.delete(file),
    });
    // With a length, as downloads have one: an end that comes too soon is then the file's own.
    const response = new Response(body, { headers: { "content-length": "0" } });
    arriving.set(file, { response, stream: stream! });
    untaken.set(file, response);
  }
}

export function receive(part: EarlyPart): void {
  const found = arriving.get(part.file);
  if ("etag" in part) return found?.response.headers.set("etag", part.etag ?? "");
  if ("bytes" in part) return found?.stream.enqueue(part.bytes);
  arriving.delete(part.file);
  // An error would take along what nobody has read yet.
  if (!part.end) found?.response.headers.delete("content-length");
  found?.stream.close();
}

/** Whether nothing is on the device yet, as the page knows without looking; once. */
export function takeFresh(): boolean {
  const found = fresh;
  fresh = false;
  return found;
}

/** The download of a shard as if it were begun here, if the page began it; once. */
export function takeEarly(file: string): Response | undefined {
  const response = untaken.get(file);
  untaken.delete(file);
  return response;
}
