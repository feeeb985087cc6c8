/**
 * Weights: shards of at most 24 MiB, each named by its SHA-256. A shard is read from the device where
 * an earlier visit left it, else from the network, into its place in the model's memory or, for a
 * GPU, into memory from where it goes there; and verified, piece by piece by SHA-256 or whole as
 * unchanged since that. Nobody has the model before all of it was found right. A few are under way
 * at once, so that memory stays bounded.
 */
import { AT_ONCE, shardCache, shardsAtOnce } from "./bring.js";
import { download } from "./download.js";
import { takeEarly, takeFresh } from "./early.js";
import { WebkilnError } from "./errors.js";
import { throwIfAborted } from "./http.js";
import { emptyPart, KeptShards, type Part } from "./kept.js";
import type { WeightStorage } from "./model.js";
import { Pieces, type WeightSink } from "./pieces.js";
import { neededFirst, type Plan } from "./plan.js";
import { Rest, type Bring } from "./rest.js";

/** Who hears of the weights on their way. */
export interface Listener {
  /** Called with bytes that arrived; negative when a download starts over. */
  onBytes(count: number): void;
  /** Called once, when it is clear whether they are kept; mostly after they are all in place. */
  onStorage(storage: WeightStorage): void;
  /** Resolves when nobody waits for the model, or has waited long enough for us. */
  pause(): Promise<void>;
}

/** In ms: what arrived is written to the device when the first answer is there, more often than not. */
const LATER = 2000;
/** As much may wait for that outside of the model's memory. */
const LATER_BYTES = 32 << 20;

/**
 * Brings what every run needs to `sink`, and returns what brings the rest.
 * @throws WebkilnError "shard-missing", "shard-corrupt", "network", "aborted".
 */
export async function streamWeights(
  weights: Plan["weights"],
  base: URL,
  sink: WeightSink,
  listener: Listener,
  signal: AbortSignal,
): Promise<Rest> {
  const kept = new KeptShards(base, weights, takeFresh(), (storage) => listener.onStorage(storage));
  const keep = async (part: Part): Promise<void> => {
    if (!sink.memory) return kept.saveWhole(part);
    await listener.pause();
    // The model has had it since; what is sealed has to be right beyond doubt.
    const pieces = new Pieces(part, weights.pieceBytes, sink);
    pieces.grown();
    if (await pieces.right()) await kept.saveWhole(part);
  };
  let last = Promise.resolve();
  let waiting = 0;
  const keepLater = (part: Part): void => {
    const bytes = sink.memory ? 0 : part.bytes.length;
    waiting += bytes;
    const next = (): Promise<void> =>
      last
        .then(() => keep(part))
        .catch(() => undefined) // for want of memory
        .then(() => void (waiting -= bytes));
    setTimeout(() => (last = next()), waiting <= LATER_BYTES ? LATER : 0);
  };
  const bring: Bring = async (shards, atOnce, ended, onShard) => {
    const queue = [...shards];
    // One lane's failure ends the others.
    const stop = new AbortController();
    const forward = (): void => stop.abort();
    ended.addEventListener("abort", forward);
    const lane = async (): Promise<void> => {
      // Memory that was used before costs much less than fresh one.
      let spare: Uint8Array | undefined;
      for (let shard = queue.shift(); shard; shard = queue.shift()) {
        throwIfAborted(ended);
        const { offset, bytes } = shard;
        const own = spare && spare.length >= bytes ? spare.subarray(0, bytes) : undefined;
        const part = emptyPart(shard, sink.memory?.(offset, bytes) ?? own ?? new Uint8Array(bytes));
        const pieces = new Pieces(part, weights.pieceBytes, sink);
        await loadShard(part, pieces, base, kept, listener, stop.signal);
        spare = part.sealed ? part.bytes : undefined; // else it is still to be written
        if (part.sealed) {
          sink.place(offset, part.bytes);
          kept.has(shard);
        } else {
          keepLater(part);
        }
        onShard(shard);
      }
    };
    try {
      await Promise.all(Array.from({ length: shardsAtOnce(queue, atOnce) }, lane));
    } finally {
      stop.abort();
      ended.removeEventListener("abort", forward);
    }
  };
  await bring(neededFirst(weights.shards), AT_ONCE, signal, () => undefined);
  setTimeout(() => void kept.forgetOthers().catch(() => undefined), LATER);
  const rest = weights.shards.filter(({ table }) => table !== null);
  return new Rest(rest, bring);
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
  const first = shardCache();
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
