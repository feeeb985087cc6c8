/** The model with its cache: which tokens it holds, and how to bring it to hold others. */
import { Tensor, WebkilnError, type Model, type RunOptions } from "../../index.js";
import type { GenerationConfig } from "./config.js";
import { abortable, aborted } from "./queue.js";

export type Tensors = Readonly<Record<string, Tensor>>;

/** A lost GPU is brought back so often in one answer; then its error is the caller's. */
const RECOVERIES = 3;

/** Tokens that come within so many ms are asked for together, and answered so: text still flows. */
const PORTION_MS = 30;
const LARGEST_PORTION = 8;

/** How many tokens two lists have in common at their beginnings. */
function common(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

export interface Run {
  /** Inputs besides ids and position. */
  readonly feeds?: Tensors | undefined;
  /** Outputs to fetch of the run that has the last token; of runs before it, none. */
  readonly outputs: readonly string[];
}

/** What one answer asks of the session. */
export interface Request extends Run {
  readonly signal: AbortSignal | undefined;
  /** The runs after this one, if they are clear already but for their tokens. */
  readonly following?: Following | undefined;
}

/**
 * Runs that each take the output `token` of the one before. Some of them are asked for with the one
 * that they follow, and are there for the next calls.
 */
export interface Following {
  readonly token: string;
  /** How many may follow. */
  readonly most: number;
  /** The first one, the second … */
  readonly run: (number: number) => Run;
}

export class Session {
  /** The tokens whose keys and values are in the cache, in order. */
  private cached: number[] = [];
  /** The last run under way, which an aborted answer may have left. */
  private running: Promise<unknown> = Promise.resolve();
  /** Runs that were asked for before their tokens were known, and the places of those. */
  private ahead: {
    readonly place: number;
    readonly index: number;
    readonly all: Promise<readonly Tensors[]>;
  }[] = [];
  /** How many are asked for together; and when some were in this answer, after which place. */
  private portion = 1;
  private asked: { readonly at: number; readonly place: number } | undefined;
  private lost = 0;
  /** Tokens of one run at most: models whose exports take one at a time have no "prefill". */
  private readonly chunk: number;

  constructor(
    private readonly model: Pick<Model, "runs" | "programs">,
    private readonly config: GenerationConfig,
  ) {
    const reads = model.programs.some(({ name }) => name === "prefill");
    this.chunk = reads ? config.chunk : 1;
  }

  /** Begins an answer to a prompt: how much of the prompt need not be run again. */
  async begin(prompt: readonly number[], signal: AbortSignal | undefined): Promise<number> {
    this.lost = 0;
    this.ahead = [];
    this.asked = undefined;
    await abortable(this.running, signal);
    return Math.min(common(this.cached, prompt), prompt.length - 1);
  }

  /** How often the GPU was lost since `begin`. */
  get recoveries(): number {
    return this.lost;
  }

  /** Forgets what the cache holds. */
  forget(): void {
    this.cached = [];
  }

  /**
   * The outputs after the last of `ids`. Runs those that the cache does not hold yet: one through
   * "decode", more in chunks through "prefill". Whatever happens, `cached` says what the cache
   * holds: positions from there on are written before they are read.
   *
   * @throws WebkilnError "aborted", and what `Model.run` throws.
   */
  async advance(ids: readonly number[], request: Request): Promise<Tensors> {
    for (;;) {
      try {
        return await this.catchUp(ids, request);
      } catch (error) {
        const code = error instanceof WebkilnError ? error.code : undefined;
        if (code !== "device-lost" || this.lost >= RECOVERIES) throw error;
        // The runtime has opened another device by now. Its cache is empty.
        this.lost++;
        this.ahead = [];
        await abortable(this.running, request.signal);
      }
    }
  }

  private async catchUp(ids: readonly number[], request: Request): Promise<Tensors> {
    const { signal, outputs } = request;
    // The last token is run in any case: it is its outputs that are wanted.
    this.cached.length = Math.min(common(this.cached, ids), ids.length - 1);
    for (;;) {
      if (signal?.aborted) throw aborted();
      const from = this.cached.length;
      const chunk = ids.slice(from, from + this.chunk);
      const last = from + chunk.length === ids.length;
      const run = { feeds: request.feeds, outputs: last ? outputs : [] };
      const { cached } = this;
      const result = (this.taken(from) ?? this.runOne(from, run, chunk)).then((tensors) => {
        cached.push(...chunk); // a list that nobody looks at, if the session was told to forget
        return tensors;
      });
      this.running = result.catch(() => undefined);
      if (last && request.following) this.runAhead(ids.length, request.following);
      const tensors = await abortable(result, signal);
      if (last) return tensors;
    }
  }

  /** The run that was asked for ahead, if its token is the one in this place. */
  private taken(place: number): Promise<Tensors> | undefined {
    const next = this.ahead[0]?.place === place ? this.ahead.shift() : undefined;
    if (next) return next.all.then((all) => all[next.index]!);
    this.ahead = [];
    return undefined;
  }

  /**
   * Asks for a portion of the runs whose tokens have the places from `from` on, when the first run of
   * the last portion has its turn: so the worker always has one more to do.
   */
  private runAhead(from: number, { token, most, run }: Following): void {
    const { ahead } = this;
    if (ahead.length >= this.portion) return;
    this.adapt(from);
    const first = ahead.length;
    const runs: Run[] = [];
    for (let i = first; i < Math.min(first + this.portion, most); i++) runs.push(run(i + 1));
    if (!runs.length) return;
    const feeds = runs.map((one, i) => this.placed(from + first + i, one.feeds));
    const carry = { [this.config.ids]: token };
    const all = this.runAll(feeds, { program: "decode", outputs: runs[0]!.outputs, carry });
    this.running = all.catch(() => undefined); // heard by the call that takes a result, if one does
    for (let i = 0; i < runs.length; i++) ahead.push({ place: from + first + i, index: i, all });
  }

  /** Makes the portion as large as the tokens since the last one were fast. */
  private adapt(place: number): void {
    const before = this.asked;
    const at = performance.now();
    this.asked = { at, place };
    if (!before) return; // a prompt takes its own time
    const each = (at - before.at) / (place - before.place);
    this.portion = Math.max(1, Math.min(LARGEST_PORTION, Math.floor(PORTION_MS / each)));
  }

  /** Runs tokens from `place` on. */
  private async runOne(
    place: number,
    { feeds, outputs }: Run,
    tokens: readonly number[],
  ): Promise<Tensors> {
    const ids = new Tensor("int64", tokens, [1, tokens.length]);
    const all = { ...this.placed(place, feeds), [this.config.ids]: ids };
    const program = tokens.length === 1 ? "decode" : "prefill";
    const [found] = await this.runAll([all], { program, outputs });
    return found!;
  }

  private placed(place: number, feeds: Tensors | undefined): Tensors {
    return { ...feeds, [this.config.position]: new Tensor("int64", [place], [1]) };
  }

  /** Not with the caller's signal: an aborted run goes on, and what it leaves must be known. */
  private async runAll(feeds: readonly Tensors[], options: RunOptions): Promise<Tensors[]> {
    try {
      return await this.model.runs(feeds, options);
    } catch (error) {
      this.cached = [];
      throw error;
    }
  }
}
