/** One answer, token by token: the loop around the model. */
import type { Model } from "../../index.js";
import { chooser, type Chosen } from "./chooser.js";
import type { Constraint } from "./constraint/constraint.js";
import type { LanguageConfig } from "./config.js";
import { StopFilter, TextStream, toBytes } from "./detokenize.js";
import type { Past } from "./sampler.js";
import type { Following, Session } from "./session.js";
import type { Settings } from "./settings.js";
import type { ContentLogprob, FinishReason, TokenLogprob, Usage } from "./types.js";
import type { Vocabulary } from "./vocabulary.js";

/** What answers need of their pipeline. */
export interface Speaker {
  readonly model: Pick<Model, "runs" | "programs" | "name">;
  readonly config: LanguageConfig;
  readonly vocabulary: Vocabulary;
  readonly session: Session;
}

/** A token of the answer, and the text that may be shown now: it lags behind the tokens. */
export interface Piece {
  readonly id: number | undefined;
  readonly text: string;
  readonly logprob: ContentLogprob | undefined;
}

export interface Outcome {
  readonly finish: FinishReason;
  readonly usage: Usage;
}

/** When what happened, in ms, and how many tokens. */
class Meter {
  private readonly start = performance.now();
  private first = 0;
  tokens = 0;

  constructor(
    private readonly prompt: number,
    private readonly reused: number,
  ) {}

  count(): void {
    if (this.tokens++ === 0) this.first = performance.now();
  }

  usage(session: Session, context: number): Usage {
    const end = performance.now();
    const rate = (count: number, ms: number): number =>
      count > 0 && ms > 0 ? (count * 1000) / ms : 0;
    const prefill = this.first - this.start;
    return {
      prompt_tokens: this.prompt,
      completion_tokens: this.tokens,
      total_tokens: this.prompt + this.tokens,
      prompt_tokens_details: { cached_tokens: this.reused },
      extra: {
        prefill_tokens_per_s: rate(this.prompt - this.reused, prefill),
        decode_tokens_per_s: rate(this.tokens - 1, end - this.first),
        time_to_first_token_s: prefill / 1000,
        e2e_latency_s: (end - this.start) / 1000,
        context_left: Math.max(0, context - this.prompt - this.tokens),
        recoveries: session.recoveries,
      },
    };
  }
}

/**
 * Answers a prompt that fits the context. `emit` gets every token, in order.
 * @throws WebkilnError "aborted", and what `Model.run` throws.
 */
export async function answer(
  { model, config, vocabulary, session }: Speaker,
  prompt: readonly number[],
  settings: Settings,
  constraint: Constraint | undefined,
  emit: (piece: Piece) => void,
): Promise<Outcome> {
  const { eos, context } = config.generation;
  const { signal, maxTokens } = settings;
  const choose = chooser(model, config.generation, settings);
  const reused = await session.begin(prompt, signal);
  const meter = new Meter(prompt.length, reused);
  const [text, stops] = [new TextStream(), new StopFilter(settings.stop)];
  const ids = [...prompt];

  const next = async (): Promise<Chosen> => {
    const past = { ids, start: prompt.length };
    const { feeds, outputs, read } = choose.ask(past, meter.tokens, constraint?.mask());
    const request = { signal, feeds, outputs, following: following(past) };
    const chosen = read(await session.advance(ids, request));
    meter.count();
    return chosen;
  };
  /** Tokens after the next one can be asked for before that is known, if nothing depends on it. */
  const following = (past: Past): Following | undefined => {
    const { token } = choose;
    if (!token || constraint) return undefined;
    const { tokens } = meter;
    const most = Math.min(maxTokens - tokens - 1, context - ids.length);
    return { token, most, run: (number) => choose.ask(past, tokens + number) };
  };
  const done = (finish: FinishReason): Outcome => {
    const rest = stops.push(text.flush()) + stops.flush();
    if (rest) emit({ id: undefined, text: rest, logprob: undefined });
    return { finish, usage: meter.usage(session, context) };
  };

  for (;;) {
    const chosen = await next();
    const { id } = chosen;
    const logprob = settings.logprobs === undefined ? undefined : describe(vocabulary, chosen);
    if (eos.includes(id)) {
      emit({ id, text: "", logprob: undefined });
      return done("stop");
    }
    ids.push(id);
    constraint?.accept(id);
    emit({ id, text: stops.push(text.push(vocabulary.bytes(id))), logprob });
    if (stops.stopped || constraint?.finished) return done("stop");
    if (meter.tokens >= maxTokens || ids.length > context) return done("length");
  }
}

function describe(vocabulary: Vocabulary, { id, logprob, top }: Chosen): ContentLogprob {
  const one = (token: number, value: number): TokenLogprob => {
    const bytes = toBytes(vocabulary.bytes(token));
    const shown = bytes.length ? new TextDecoder().decode(bytes) : vocabulary.name(token);
    return { token: shown, logprob: value, bytes: [...bytes] };
  };
  return { ...one(id, logprob), top_logprobs: top.map((entry) => one(entry.id, entry.logprob)) };
}
