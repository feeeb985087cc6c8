/** The model with its cache: which tokens it holds, and how to bring it to hold others. */
import { Tensor, WebkilnError, type Model } from "../../index.js";
import type { GenerationConfig } from "./config.js";
import { abortable, aborted } from "./queue.js";

export type Tensors = Readonly<Record<string, Tensor>>;

/** A lost GPU is brought back so often in one answer; then its error is the caller's. */
const RECOVERIES = 3;

/** How many tokens two lists have in common at their beginnings. */
function common(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

interface Run {
  /** Inputs besides ids and position. */
  readonly feeds?: Tensors | undefined;
  /** Outputs to fetch of the run that has the last token; of runs before it, none. */
  readonly outputs: readonly string[];
}

/** What one answer asks of the session. */
export interface Request extends Run {
  readonly signal: AbortSignal | undefined;
  /**
   * The run after this one, if it is clear already but for its token, which is this one's output of
   * that name. It begins when this one ends, and is there for the next call.
   */
  readonly next?: (Run & { readonly token: string }) | undefined;
}

export class Session {
  /** The tokens whose keys and values are in the cache, in order. */
  private cached: number[] = [];
  /** The last run under way, which an aborted answer may have left. */
  private running: Promise<unknown> = Promise.resolve();
  /** The run that was asked for with the one before it, and the place of its token. */
  private ahead: { readonly place: number; readonly result: Promise<Tensors> } | undefined;
  private lost = 0;
  /** Tokens of one run at most: models whose exports take one at a time have no "prefill". */
  private readonly chunk: number;

  constructor(
    private readonly model: Pick<Model, "run" | "programs">,
    private readonly config: GenerationConfig,
  ) {
    const reads = model.programs.some(({ name }) => name === "prefill");
    this.chunk = reads ? config.chunk : 1;
  }

  /** Begins an answer to a prompt: how much of the prompt need not be run again. */
  async begin(prompt: readonly number[], signal: AbortSignal | undefined): Promise<number> {
    this.lost = 0;
    this.ahead = undefined;
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
        this.ahead = undefined;
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
      const result = (this.taken(from) ?? this.run(from, run, chunk)).then((tensors) => {
        cached.push(...chunk); // a list that nobody looks at, if the session was told to forget
        return tensors;
      });
      this.running = result.catch(() => undefined);
      if (last && request.next) this.runAhead(from + chunk.length, request.next);
      const tensors = await abortable(result, signal);
      if (last) return tensors;
    }
  }

  /** The run that was asked for ahead, if its token is the one in this place. */
  private taken(place: number): Promise<Tensors> | undefined {
    const { ahead } = this;
    this.ahead = undefined;
    return ahead?.place === place ? ahead.result : undefined;
  }

  private runAhead(place: number, { token, ...run }: NonNullable<Request["next"]>): void {
    const result = this.run(place, run, token);
    this.running = result.catch(() => undefined); // heard by the next call, if there is one
    this.ahead = { place, result };
  }

  /** Runs tokens from `place` on: these, or the one that the run before chooses. */
  private async run(
    place: number,
    { feeds, outputs }: Run,
    tokens: readonly number[] | string,
  ): Promise<Tensors> {
    const { ids, position } = this.config;
    const others = { ...feeds, [position]: new Tensor("int64", [place], [1]) };
    try {
      // Not the caller's signal: an aborted run goes on, and what it leaves must be known.
      if (typeof tokens === "string") {
        const carry = { [ids]: tokens };
        return await this.model.run(others, { program: "decode", outputs, carry });
      }
      const inputs = { ...others, [ids]: new Tensor("int64", tokens, [1, tokens.length]) };
      const program = tokens.length === 1 ? "decode" : "prefill";
      return await this.model.run(inputs, { program, outputs });
    } catch (error) {
      this.cached = [];
      throw error;
    }
  }
}
