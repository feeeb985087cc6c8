/**
 * Weights that a first run may do without: of a table, as of embeddings, it needs the rows that its
 * inputs name. The others follow the first run, or come when a run asks for them. See
 * docs/decisions/017-tables-arrive-by-rows.md.
 */
import type { Plan, Shard } from "./plan.js";
import type { RunInputs } from "./protocol.js";

/** Brings shards, at most so many at once, and says of each when it is in its place. */
export type Bring = (
  shards: readonly Shard[],
  atOnce: number,
  signal: AbortSignal,
  onShard: (shard: Shard) => void,
) => Promise<void>;

/**
 * What nobody asked for follows the model after so many ms, when it has mostly given a first answer;
 * so many at once.
 */
const QUIET = 300;
const LANES = 2;
/** A run asks for many small ones, most of whose time a distant server takes to answer. */
const AT_ONCE = 12;

export class Rest {
  /** Resolves when everything is here; rejects where something can't be had. */
  readonly complete: Promise<void>;
  private readonly missing: Set<Shard>;
  private readonly coming = new Map<Shard, Promise<void>>();
  private readonly end = new AbortController();
  /** What the latest run asked for, which has the network to itself. */
  private asked = Promise.resolve();

  constructor(
    shards: readonly Shard[],
    private readonly bring: Bring,
  ) {
    this.missing = new Set(shards);
    this.complete = shards.length ? this.follow() : Promise.resolve();
    // What fails is asked for again by the run that needs it, which says why.
    this.complete.catch(() => undefined);
  }

  /** Resolves when all that a run reads is here. @throws WebkilnError as `streamWeights` does. */
  async forRun(plan: Plan, run: RunInputs): Promise<void> {
    if (!this.missing.size) return;
    this.asked = this.need(shardsOf(plan, run, this.missing));
    await this.asked;
  }

  /** Brings nothing more: the memory that it went to is gone. */
  stop(): void {
    this.end.abort();
  }

  private async follow(): Promise<void> {
    await new Promise((done) => setTimeout(done, QUIET));
    const lane = async (): Promise<void> => {
      for (;;) {
        await this.asked.catch(() => undefined);
        const next = [...this.missing].find((shard) => !this.coming.has(shard));
        if (!next) break;
        await this.need([next]);
      }
      await Promise.all(this.coming.values());
    };
    await Promise.all(Array.from({ length: LANES }, lane));
  }

  private async need(shards: readonly Shard[]): Promise<void> {
    const fresh = shards.filter((shard) => !this.coming.has(shard));
    if (fresh.length) {
      const onShard = (shard: Shard): void => void this.missing.delete(shard);
      const arrival = this.bring(fresh, AT_ONCE, this.end.signal, onShard);
      const over = arrival.finally(() => fresh.forEach((shard) => this.coming.delete(shard)));
      fresh.forEach((shard) => this.coming.set(shard, over));
    }
    await Promise.all(shards.map((shard) => this.coming.get(shard)));
  }
}

/** Those of `among`, shards of tables, that have rows which the run reads. */
export function shardsOf({ weights }: Plan, run: RunInputs, among: Iterable<Shard>): Shard[] {
  const groups = weights.tables.map(({ offset, rows, group, groupBytes, namedBy }) => {
    const named = namedBy.filter(({ program }) => program === run.program);
    // Copied, for what came in a message need not lie at a multiple of 4.
    const numbers = named.flatMap(({ input }) => [
      ...new Int32Array(run.inputs[input]!.slice().buffer),
    ]);
    const found = numbers.map((row) => Math.floor((row < 0 ? row + rows : row) / group));
    return { groupBytes, starts: [...new Set(found)].map((index) => offset + index * groupBytes) };
  });
  return [...among].filter(({ table, offset, bytes }) => {
    const { groupBytes, starts } = groups[table!]!;
    return starts.some((start) => start < offset + bytes && start + groupBytes > offset);
  });
}
