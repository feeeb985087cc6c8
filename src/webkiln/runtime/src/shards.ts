/**
 * Weights: shards of at most 24 MiB, each named by its SHA-256. A shard is read into memory, from the
 * device where an earlier visit left it, else from the network; verified, piece by piece by SHA-256
 * or whole as unchanged since that; and only then handed to its place, so nothing unverified ever
 * reaches the model. A few are under way at once, so that memory stays bounded.
 */
import { download } from "./download.js";
import { takeEarly } from "./early.js";
import { WebkilnError } from "./errors.js";
import { throwIfAborted } from "./http.js";
import { emptyPart, KeptShards, type Part } from "./kept.js";
import type { WeightStorage } from "./model.js";
import { Pieces, type WeightSink } from "./pieces.js";
import type { Plan } from "./plan.js";

/** Who hears of the weights on their way. */
export interface Listener {
  /** Called with bytes that arrived; negative when a download starts over. */
  onBytes(count: number): void;
  /** Called once, when it is clear whether they are kept; mostly after they are all in place. */
  onStorage(storage: WeightStorage): void;
}

/** Shards at once, fewer when that were more bytes than a phone has memory for. */
const AT_ONCE = 4;
const MOST_BYTES = 48 << 20;
/** The first bytes, of a small model all, are written to the device when nobody waits. In ms. */
const LATER = 700;
const LATER_BYTES = 32 << 20;

/**
 * Brings every shard to `sink`.
 * @throws WebkilnError "shard-missing", "shard-corrupt", "network", "aborted".
 */
export async function streamWeights(
  weights: Plan["weights"],
  base: URL,
  sink: WeightSink,
  listener: Listener,
  signal?: AbortSignal,
): Promise<void> {
  const kept = new KeptShards(base, weights, (storage) => listener.onStorage(storage));
  const queue = [...weights.shards];
  // One lane's failure ends the others.
  const stop = new AbortController();
  const forward = (): void => stop.abort();
  signal?.addEventListener("abort", forward);
  const lane = async (): Promise<void> => {
    // Memory that was used before costs less than fresh one.
    let spare: ArrayBuffer | undefined;
    for (let shard = queue.shift(); shard; shard = queue.shift()) {
      throwIfAborted(signal);
      const part = emptyPart(shard, spare);
      const pieces = new Pieces(part, weights.pieceBytes, sink);
      await loadShard(part, pieces, base, kept, listener, stop.signal);
      if (part.sealed) sink(shard.offset, part.bytes);
      const keep = (): void => void kept.saveWhole(part);
      spare = part.sealed ? part.bytes.buffer : undefined;
      if (part.sealed) kept.has(shard);
      else setTimeout(keep, shard.offset < LATER_BYTES ? LATER : 0);
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
  setTimeout(() => void kept.forgetOthers().catch(() => undefined), LATER);
}

/** Fills `part` with verified bytes, and places them unless they were sealed. */
async function loadShard(
  part: Part,
  pieces: Pieces,
  base: URL,
  kept: KeptShards,
  { onBytes }: Listener,
  signal: AbortSignal,
): Promise<void> {
  const { shard } = part;
  let early = takeEarly(shard.file);
  if (!early) await kept.restore(part);
  onBytes(part.have);
  if (part.sealed) return;
  const grown = (count: number): void => {
    onBytes(count);
    pieces.grown();
  };
  const restart = async (): Promise<void> => {
    onBytes(-part.have);
    await kept.forget(part);
    part.have = 0;
    part.etag = undefined;
    pieces.restart();
  };
  pieces.grown();
  if (await pieces.right()) return;
  if (part.have === part.bytes.length) await restart();
  const save = (): Promise<void> => kept.saveBeginning(part);
  const url = new URL(shard.file, base);
  // The browser's own cache need not keep what the device does, and takes its time to.
  const first = (await kept.available()) ? "no-store" : "default";
  // What an earlier visit left may be wrong, which is no reason to trust this one's download less.
  const attempts: RequestCache[] = [first, "reload"];
  if (part.have) attempts.unshift(first);
  for (const cache of attempts) {
    const arrived = await download(url, part, cache, { onBytes: grown, save, restart, signal }, early);
    if (arrived && (await pieces.right())) return;
    early = undefined;
    await restart();
  }
  throw new WebkilnError(
    "shard-corrupt",
    `The weight shard ${shard.file} is not what the model was built with: ` +
      "its SHA-256 or its length differs, also after a second download.",
    "Upload the bundle's files again, in binary mode and unchanged.",
  );
}
