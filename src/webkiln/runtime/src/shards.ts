/**
 * Weights: shards of at most 24 MiB, each named by its SHA-256. A shard is read into memory whole,
 * verified, and only then handed to its place, so nothing unverified ever reaches the model. A few
 * are under way at once: one is verified and placed while the next arrives, and memory stays
 * bounded.
 */
import { takeEarly } from "./early.js";
import { WebkilnError } from "./errors.js";
import { nameOf, throwIfAborted, unreachable } from "./http.js";
import type { Plan, Shard } from "./plan.js";
import { sha256 } from "./sha256.js";

/** Where weights go; `offset` is in the weight space, a multiple of 4. */
export type WeightSink = (offset: number, bytes: Uint8Array<ArrayBuffer>) => void;

/** Called with bytes that arrived; negative when a download starts over. */
export type OnBytes = (count: number) => void;

/** Downloads at once, fewer when that were more bytes than a phone has memory for. */
const AT_ONCE = 4;
const MOST_BYTES = 48 << 20;
/** The first bytes, of a small model all, are written to the cache when nobody waits. In ms. */
const LATER = 700;
const LATER_BYTES = 32 << 20;
/** Waits between attempts at a broken download, in ms. */
const PATIENCE = [300, 1000, 3000];

/**
 * Brings every shard to `sink`.
 * @throws WebkilnError "shard-missing", "shard-corrupt", "network", "aborted".
 */
export async function streamWeights(
  weights: Plan["weights"],
  base: URL,
  sink: WeightSink,
  onBytes: OnBytes,
  signal?: AbortSignal,
): Promise<void> {
  // Opening it takes a browser that has just started a while, and may be of no use yet.
  const cache = openCache(base);
  const queue = [...weights.shards];
  // One lane's failure ends the others.
  const stop = new AbortController();
  const forward = (): void => stop.abort();
  signal?.addEventListener("abort", forward);
  const lane = async (): Promise<void> => {
    for (let shard = queue.shift(); shard; shard = queue.shift()) {
      throwIfAborted(signal);
      const url = new URL(shard.file, base);
      const { bytes, fresh } = await loadShard(shard, url, cache, onBytes, stop.signal);
      sink(shard.offset, bytes);
      // A full disk or a private window refuses the copy; the model works without it.
      const keep = (): unknown =>
        cache.then((opened) => opened?.put(url, new Response(bytes))).catch(() => undefined);
      if (fresh) setTimeout(keep, shard.offset < LATER_BYTES ? LATER : 0);
    }
  };
  try {
    const fitting = Math.floor(MOST_BYTES / (queue[0]?.bytes ?? 1));
    const lanes = Math.max(1, Math.min(AT_ONCE, fitting));
    await Promise.all(Array.from({ length: lanes }, lane));
  } finally {
    stop.abort();
    signal?.removeEventListener("abort", forward);
  }
  setTimeout(() => void forgetOthers(cache, weights.shards).catch(() => undefined), LATER);
}

interface Verified {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** It is not in the cache yet. */
  readonly fresh: boolean;
}

async function loadShard(
  shard: Shard,
  url: URL,
  cache: Promise<Cache | undefined>,
  onBytes: OnBytes,
  signal?: AbortSignal,
): Promise<Verified> {
  let early = takeEarly(shard.file);
  const cached = early ? undefined : await (await cache)?.match(url).catch(() => undefined);
  if (cached) {
    const bytes = new Uint8Array(await cached.arrayBuffer());
    if ((await sha256(bytes)) === shard.sha256) {
      onBytes(bytes.length);
      return { bytes, fresh: false };
    }
  }
  for (const mode of ["default", "reload"] as const) {
    const bytes = await download(shard, url, mode, onBytes, signal, early);
    early = undefined;
    if (bytes && (await sha256(bytes)) === shard.sha256) {
      return { bytes, fresh: true };
    }
    onBytes(-(bytes?.length ?? 0));
  }
  throw new WebkilnError(
    "shard-corrupt",
    `The weight shard ${shard.file} is not what the model was built with: ` +
      "its SHA-256 or its length differs, also after a second download.",
    "Upload the bundle's files again, in binary mode and unchanged.",
  );
}

/**
 * Downloads a shard, resuming where a broken download stopped; `early` is one that is under way.
 * Undefined when it has another length than planned.
 */
async function download(
  shard: Shard,
  url: URL,
  cache: RequestCache,
  onBytes: OnBytes,
  signal?: AbortSignal,
  early?: Response,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const bytes = new Uint8Array(shard.bytes);
  let have = 0;
  for (let attempt = 0; ; attempt++) {
    try {
      const response = attempt || !early ? await request(url, have, cache, signal) : early;
      // A server that ignores Range, or compresses on the fly, sends the whole file again.
      if (response.status !== 206) {
        onBytes(-have);
        have = 0;
      }
      const reader = response.body!.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        throwIfAborted(signal); // which ends a fetch by itself, but not what the page began
        if (have + part.value.length > bytes.length) {
          void reader.cancel().catch(() => undefined);
          onBytes(-have);
          return undefined;
        }
        bytes.set(part.value, have);
        have += part.value.length;
        onBytes(part.value.length);
      }
      if (have === bytes.length) return bytes;
      // It came to its proper end: the file itself is too short.
      if (response.headers.has("content-length")) {
        onBytes(-have);
        return undefined;
      }
      throw new Error(`it ended after ${have} of ${bytes.length} bytes`);
    } catch (error) {
      throwIfAborted(signal);
      if (error instanceof WebkilnError) throw error;
      if (attempt >= PATIENCE.length) throw unreachable(url, error);
      await new Promise((done) => setTimeout(done, PATIENCE[attempt]));
      throwIfAborted(signal);
    }
  }
}

async function request(
  url: URL,
  from: number,
  cache: RequestCache,
  signal?: AbortSignal,
): Promise<Response> {
  const headers: HeadersInit = from ? { Range: `bytes=${from}-` } : {};
  const response = await fetch(url, {
    headers,
    cache: from ? "no-store" : cache,
    signal: signal ?? null,
  });
  if (response.status === 416) return request(url, 0, "reload", signal);
  if (response.ok) {
    const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
    const resumed = response.status === 206;
    if (resumed && Number(start) !== from) throw new Error("the server resumed at another place");
    return response;
  }
  if (response.status >= 500 || response.status === 408 || response.status === 429) {
    throw new Error(`the server answered ${response.status}`);
  }
  throw new WebkilnError(
    "shard-missing",
    `The weight shard ${nameOf(url)} is missing: ${url.href} answered ${response.status}.`,
    "Upload every file of the bundle's model folder.",
  );
}

/**
 * The bundle's own cache. Entries have the shards' URLs, whose file names are hashes, so a service
 * worker finds them too and the second visit needs no network. Undefined in insecure contexts and
 * where storage is blocked.
 */
async function openCache(base: URL): Promise<Cache | undefined> {
  try {
    return await caches.open(`webkiln ${base.pathname}`);
  } catch {
    return undefined;
  }
}

/** Drops the shards of earlier builds. */
async function forgetOthers(
  opening: Promise<Cache | undefined>,
  shards: readonly Shard[],
): Promise<void> {
  const cache = await opening;
  const current = new Set(shards.map(({ file }) => file));
  for (const { url } of (await cache?.keys()) ?? []) {
    if (!current.has(url.slice(url.lastIndexOf("/") + 1))) await cache!.delete(url);
  }
}
