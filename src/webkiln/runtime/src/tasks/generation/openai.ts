/** `chat.completions.create` and `generate`: from options to answers in OpenAI's shapes. */
import { answer, type Outcome, type Piece, type Speaker } from "./answer.js";
import { Channel } from "./channel.js";
import type { Constraint } from "./constraint/constraint.js";
import type { Queue } from "./queue.js";
import type { Settings } from "./settings.js";
import type {
  AnswerStream,
  ChatChunkChoice,
  ChatCompletion,
  ChatCompletionChunk,
  ContentLogprob,
  Generation,
  GenerationPart,
} from "./types.js";

/** A prompt that fits, and how to go on from it. */
export interface Job {
  readonly prompt: readonly number[];
  readonly settings: Settings;
  readonly constraint: Constraint | undefined;
}

/** An answer as a whole. */
interface Whole extends Outcome {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly logprobs: readonly ContentLogprob[];
}

type Logprobs = ChatChunkChoice["logprobs"];

function wrap(settings: Settings, content: readonly ContentLogprob[]): Logprobs {
  return settings.logprobs === undefined ? null : { content, refusal: null };
}

/** Runs jobs one after another. */
export class Answers {
  constructor(
    private readonly speaker: Speaker,
    private readonly queue: Queue,
  ) {}

  private run(job: Job, emit: (piece: Piece) => void): Promise<Outcome> {
    const { prompt, settings, constraint } = job;
    const work = (): Promise<Outcome> => answer(this.speaker, prompt, settings, constraint, emit);
    return this.queue.add(work, settings.signal);
  }

  private async whole(job: Job): Promise<Whole> {
    const tokens: number[] = [];
    const logprobs: ContentLogprob[] = [];
    let text = "";
    const outcome = await this.run(job, (piece) => {
      text += piece.text;
      if (piece.id !== undefined) tokens.push(piece.id);
      if (piece.logprob) logprobs.push(piece.logprob);
    });
    return { ...outcome, text, tokens, logprobs };
  }

  /** Begins a stream at once: `part` makes its items of pieces, `last` those at the end. */
  private stream<T>(
    { settings, ...job }: Job,
    part: (piece: Piece) => T | undefined,
    last: (outcome: Outcome) => readonly T[],
    first: readonly T[] = [],
  ): AnswerStream<T> {
    const channel = new Channel<T>();
    const abort = (): void => channel.abort();
    // AbortSignal.any is younger than WebAssembly SIMD in some browsers.
    if (settings.signal?.aborted) abort();
    settings.signal?.addEventListener("abort", abort);
    const { signal } = channel.controller;
    const push = (item: T | undefined): void => void (item !== undefined && channel.push(item));
    first.forEach(push);
    this.run({ ...job, settings: { ...settings, signal } }, (piece) => push(part(piece)))
      .then((outcome) => {
        last(outcome).forEach(push);
        channel.end();
      })
      .catch((error: unknown) => channel.end(error))
      .finally(() => settings.signal?.removeEventListener("abort", abort));
    return channel;
  }

  async generate(job: Job): Promise<Generation> {
    const { finish, usage, text, tokens, logprobs } = await this.whole(job);
    const reported = job.settings.logprobs === undefined ? null : logprobs;
    return { text, tokens, finish_reason: finish, logprobs: reported, usage };
  }

  generateStream(job: Job): AnswerStream<GenerationPart> {
    const part = ({ id, text, logprob }: Piece): GenerationPart => ({
      text,
      tokens: id === undefined ? [] : [id],
      logprobs: logprob ? [logprob] : null,
      finish_reason: null,
      usage: null,
    });
    const last = ({ finish, usage }: Outcome): GenerationPart[] => [
      { text: "", tokens: [], logprobs: null, finish_reason: finish, usage },
    ];
    return this.stream(job, part, last);
  }

  async chat(job: Job): Promise<ChatCompletion> {
    const head = this.head("chat.completion");
    const { finish, usage, text, logprobs } = await this.whole(job);
    const choice = {
      index: 0,
      message: { role: "assistant", content: text, refusal: null },
      logprobs: wrap(job.settings, logprobs),
      finish_reason: finish,
    } as const;
    return { ...head, choices: [choice], usage };
  }

  chatStream(job: Job, includeUsage: boolean): AnswerStream<ChatCompletionChunk> {
    const head = this.head("chat.completion.chunk");
    const chunk = (
      delta: ChatChunkChoice["delta"],
      logprobs: Logprobs = null,
      finish_reason: ChatChunkChoice["finish_reason"] = null,
    ): ChatCompletionChunk => ({
      ...head,
      choices: [{ index: 0, delta, logprobs, finish_reason }],
      ...(includeUsage && { usage: null }),
    });
    const part = ({ text, logprob }: Piece): ChatCompletionChunk | undefined => {
      if (!text && !logprob) return undefined; // the bytes of half a character, say
      return chunk({ content: text }, wrap(job.settings, logprob ? [logprob] : []));
    };
    const last = ({ finish, usage }: Outcome): ChatCompletionChunk[] => [
      chunk({}, null, finish),
      ...(includeUsage ? [{ ...head, choices: [], usage }] : []),
    ];
    return this.stream(job, part, last, [chunk({ role: "assistant", content: "" })]);
  }

  private head<Kind extends string>(
    object: Kind,
  ): { id: string; object: Kind; created: number; model: string } {
    const random = crypto.getRandomValues(new Uint8Array(12));
    const id = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const created = Math.floor(Date.now() / 1000);
    return { id: `chatcmpl-${id}`, object, created, model: this.speaker.model.name };
  }
}
