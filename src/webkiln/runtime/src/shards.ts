/**
 * Weights: shards of at most 24 MiB, each named by its SHA-256. A shard is read into memory whole,
 * verified, and only then handed to its place, so nothing unverified ever reaches the model. A few
 * are under way at once: one is verified and placed while the next arrives, and memory stays
 * bounded.
 */
import { WebkilnError } from "./errors.js";
import { nameOf, throwIfAborted, unreachable } from "./http.js";
import type { Plan, Shard } from "./plan.js";
import { sha256 } from "./sha256.js";

/** Where weights go; `offset` is in the weight space, a multiple of 4. */
export type WeightSink = (offset: number, bytes: Uint8Array<ArrayBuffer>) => void;

/** Called with bytes that arrived; negative when a download starts over. */
export type OnBytes = (count: number) => void;

const AT_ONCE = 3;
/** Waits between attempts at a broken download, in ms. */
const PATIENCE = [300, 1000, 3000];

interface Begun {
  readonly bytes: Promise<Verified>;
  /** Bytes that arrived before somebody wanted to know. */
  arrived: number;
  onBytes: OnBytes | undefined;
}

/** Shards on their way since before the plan came, by URL. */
const begun = new Map<string, Begun>();

/** Starts to download shards that `streamWeights` will take over. */
export function prefetch(shards: readonly Shard[], base: URL): void {
  const cache = openCache(base);
  for (const shard of shards) {
    const url = new URL(shard.file, base);
    const count = (bytes: number): void => {
      entry.arrived += bytes;
      entry.onBytes?.(bytes);
    };
    const bytes = cache.then((opened) => loadShard(shard, url, opened, count));
    bytes.catch(() => undefined); // whoever takes it hears of it
    const entry: Begun = { bytes, arrived: 0, onBytes: undefined };
    begun.set(url.href, entry);
  }
}

function takeOver(url: URL, onBytes: OnBytes): Promise<Verified> | undefined {
  const entry = begun.get(url.href);
  begun.delete(url.href);
  if (!entry) return undefined;
  onBytes(entry.arrived);
  entry.onBytes = onBytes;
  return entry.bytes;
}

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
  const cache = await openCache(base);
  const queue = [...weights.shards];
  // One lane's failure ends the others.
  const stop = new AbortController();
  const forward = (): void => stop.abort();
  signal?.addEventListener("abort", forward);
  const lane = async (): Promise<void> => {
    for (let shard = queue.shift(); shard; shard = queue.shift()) {
      throwIfAborted(signal);
      const url = new URL(shard.file, base);
      const { bytes, fresh } = await (takeOver(url, onBytes) ??
        loadShard(shard, url, cache, onBytes, stop.signal));
      sink(shard.offset, bytes);
      // A full disk or a private window refuses the copy; the model works without it.
      if (fresh) void cache?.put(url, new Response(bytes)).catch(() => undefined);
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  } finally {
    stop.abort();
    signal?.removeEventListener("abort", forward);
  }
  void forgetOthers(cache, weights.shards).catch(() => undefined);
}

interface Verified {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** It is not in the cache yet. */
  readonly fresh: boolean;
}

async function loadShard(
  shard: Shard,
  url: URL,
  cache: Cache | undefined,
  onBytes: OnBytes,
  signal?: AbortSignal,
): Promise<Verified> {
  const cached = await cache?.match(url).catch(() => undefined);
  if (cached) {
    const bytes = new Uint8Array(await cached.arrayBuffer());
    if ((await sha256(bytes)) === shard.sha256) {
      onBytes(bytes.length);
      return { bytes, fresh: false };
    }
  }
  for (const mode of ["default", "reload"] as const) {
    const bytes = await download(shard, url, mode, onBytes, signal);
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
 * Downloads a shard, resuming where a broken download stopped. Undefined when it has another length
 * than planned.
 */
async function download(
  shard: Shard,
  url: URL,
  cache: RequestCache,
  onBytes: OnBytes,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const bytes = new Uint8Array(shard.bytes);
  let have = 0;
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await request(url, have, cache, signal);
      // A server that ignores Range, or compresses on the fly, sends the whole file again.
      if (response.status !== 206) {
        onBytes(-have);
        have = 0;
      }
      const reader = response.body!.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
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
async function forgetOthers(cache: Cache | undefined, shards: readonly Shard[]): Promise<void> {
  const current = new Set(shards.map(({ file }) => file));
  for (const { url } of (await cache?.keys()) ?? []) {
    if (!current.has(url.slice(url.lastIndexOf("/") + 1))) await cache!.delete(url);
  }
}
