/**
 * Downloads a shard, going on where a broken download stopped, be it in this visit or an earlier
 * one: a Range request, bound by If-Range to the version that the first bytes are of (RFC 9110,
 * sections 13.1.5 and 14.2).
 */
import { WebkilnError } from "./errors.js";
import { nameOf, throwIfAborted, unreachable } from "./http.js";
import type { Part } from "./kept.js";

/** What happens around a download. */
export interface Around {
  /** Called with bytes that arrived. */
  readonly onBytes: (count: number) => void;
  /** Keeps what arrived so far. */
  readonly save: () => Promise<void>;
  /** Called where a download starts over: empties the part. */
  readonly restart: () => Promise<void>;
  readonly signal: AbortSignal;
}

/** Waits between attempts in ms; each that brings something makes up for those before. */
const PATIENCE = [300, 1000, 3000];
/** A slow download is saved this often, in ms: what a closed tab or a lost connection costs. */
const SAVE_EVERY = 1000;
/** Read at once. */
const CHUNK_BYTES = 256 << 10;

/**
 * Brings the rest of `part`; `early` is a response that is under way. False when the file has
 * another length than planned.
 * @throws WebkilnError "shard-missing", "network", "aborted".
 */
export async function download(
  url: URL,
  part: Part,
  cache: RequestCache,
  around: Around,
  early?: Response,
): Promise<boolean> {
  let furthest = part.have;
  for (let failures = 0; ; ) {
    try {
      const response = early ?? (await request(url, part, cache, around.signal));
      early = undefined;
      // A server that ignores Range, or has another version by now, sends the whole file again.
      if (response.status !== 206 && part.have) await around.restart();
      return await receive(response, part, around);
    } catch (error) {
      throwIfAborted(around.signal);
      if (error instanceof WebkilnError) throw error;
      early = undefined;
      if (part.have > part.saved) void around.save();
      if (part.have > furthest) failures = 0;
      furthest = Math.max(furthest, part.have);
      if (failures >= PATIENCE.length) throw unreachable(url, error);
      await new Promise((done) => setTimeout(done, PATIENCE[failures++]));
      throwIfAborted(around.signal);
    }
  }
}

async function receive(response: Response, part: Part, around: Around): Promise<boolean> {
  const { bytes } = part;
  const save = (): void => void (part.have > part.saved && around.save());
  const saving = setInterval(save, SAVE_EVERY);
  try {
    for await (const chunk of chunks(response.body!)) {
      throwIfAborted(around.signal); // which ends a fetch by itself, but not what the page began
      if (part.have + chunk.length > bytes.length) return false;
      bytes.set(chunk, part.have);
      part.have += chunk.length;
      part.etag ??= strongTag(response);
      around.onBytes(chunk.length);
    }
  } finally {
    clearInterval(saving);
  }
  if (part.have === bytes.length) return true;
  // It came to its proper end: the file itself is too short.
  if (response.headers.has("content-length")) return false;
  throw new Error(`it ended after ${part.have} of ${bytes.length} bytes`);
}

/** What arrives, each chunk valid until the next: in memory used again, where the stream can. */
async function* chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const [reader, next] = reading(body);
  try {
    for (let { done, value } = await next(); !done; { done, value } = await next()) yield value!;
  } finally {
    void reader.cancel().catch(() => undefined); // where it had not ended
  }
}

type Reading = [{ cancel(): Promise<void> }, () => Promise<ReadableStreamReadResult<Uint8Array>>];

function reading(body: ReadableStream<Uint8Array>): Reading {
  let reader: ReadableStreamBYOBReader;
  try {
    reader = body.getReader({ mode: "byob" });
  } catch {
    const plain = body.getReader(); // of what the page began to download, or in an older browser
    return [plain, () => plain.read()];
  }
  let memory = new Uint8Array(CHUNK_BYTES);
  const next = async (): Promise<ReadableStreamReadResult<Uint8Array>> => {
    const read = await reader.read(memory);
    if (read.value) memory = new Uint8Array(read.value.buffer);
    return read as ReadableStreamReadResult<Uint8Array>;
  };
  return [reader, next];
}

async function request(
  url: URL,
  part: Part,
  cache: RequestCache,
  signal: AbortSignal,
): Promise<Response> {
  const from = part.have;
  const headers: Record<string, string> = from ? { Range: `bytes=${from}-` } : {};
  // Of another origin it would need that server's consent; the hash judges the result anyhow.
  if (from && part.etag && url.origin === location.origin) headers["If-Range"] = part.etag;
  const response = await fetch(url, { headers, cache: from ? "no-store" : cache, signal });
  if (from && (response.status === 416 || !continues(response, part))) {
    void response.body?.cancel().catch(() => undefined);
    return request(url, { ...part, have: 0 }, "reload", signal);
  }
  if (response.ok) return response;
  if (response.status >= 500 || response.status === 408 || response.status === 429) {
    throw new Error(`the server answered ${response.status}`);
  }
  throw new WebkilnError(
    "shard-missing",
    `The weight shard ${nameOf(url)} is missing: ${url.href} answered ${response.status}.`,
    "Upload every file of the bundle's model folder.",
  );
}

/** Whether a partial answer is what was asked for. Other origins may hide where it begins. */
function continues(response: Response, { have, bytes }: Part): boolean {
  if (response.status !== 206) return true;
  const range = response.headers.get("content-range");
  if (!range) return true;
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range) ?? [];
  return Number(start) === have && (total === "*" || Number(total) === bytes.length);
}

/** A version's name that holds byte for byte; a weak one, W/"…", doesn't. */
function strongTag(response: Response): string | undefined {
  return /^"[\x21\x23-\x7e]{1,200}"$/.exec(response.headers.get("etag") ?? "")?.[0];
}
