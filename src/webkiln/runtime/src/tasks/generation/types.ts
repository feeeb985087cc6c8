/** What a language model's pipeline offers: OpenAI's shapes, and what is added to them. */
import type { Model } from "../../model.js";
import type { TaskConfig } from "../task.js";

/** One part of a message's content. Language models read text. */
export interface TextPart {
  readonly type: "text";
  readonly text: string;
}

/** One message of a conversation. Roles beyond the usual four are the chat template's affair. */
export interface ChatMessage {
  readonly role: "system" | "user" | "assistant" | "tool" | (string & {});
  readonly content: string | readonly TextPart[] | null;
  readonly [field: string]: unknown;
}

/** A schema that `response_format` holds an answer to; docs/generation-api.md has the subset. */
export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

/** What the answer has to look like. */
export type ResponseFormat =
  | { readonly type: "text" }
  | { readonly type: "json_object" }
  | {
      readonly type: "json_schema";
      readonly json_schema: {
        readonly name?: string;
        readonly description?: string;
        readonly strict?: boolean | null;
        readonly schema: JsonSchema;
      };
    };

/**
 * How the next token is chosen, when to stop, and what to report. `null` means the default, as in
 * OpenAI's API. Defaults are those of the bundle (`plan.task.sampling`), then the ones named here.
 */
export interface GenerationOptions {
  /** Tokens of the answer at most; default until the context is full. */
  readonly max_tokens?: number | null;
  /** The newer name of `max_tokens`. */
  readonly max_completion_tokens?: number | null;
  /** 0 to 2; 0 always takes the likeliest token. Default 1. */
  readonly temperature?: number | null;
  /** 0 to 1: only the likeliest tokens that together have this probability. Default 1. */
  readonly top_p?: number | null;
  /** Only so many of the likeliest tokens; 0, the default, means all. */
  readonly top_k?: number | null;
  /** 0 to 1: only tokens at least this share as likely as the likeliest. Default 0. */
  readonly min_p?: number | null;
  /** Above 0; over 1 makes tokens of the prompt and the answer less likely. Default 1. */
  readonly repetition_penalty?: number | null;
  /** -2 to 2, taken off the logit of every token that the answer has already. Default 0. */
  readonly presence_penalty?: number | null;
  /** -2 to 2, taken off for each time that the answer has the token. Default 0. */
  readonly frequency_penalty?: number | null;
  /** Texts that end the answer; they are not part of it. */
  readonly stop?: string | readonly string[] | null;
  /** A whole number: the same seed gives the same answer on the same device. Default random. */
  readonly seed?: number | null;
  /** Report the log-probability of every token. */
  readonly logprobs?: boolean | null;
  /** 0 to 20: and of so many likeliest alternatives. Needs `logprobs`. */
  readonly top_logprobs?: number | null;
  readonly response_format?: ResponseFormat | null;
  /** Aborting rejects with code "aborted", in the queue, in prefill and in decode. */
  readonly signal?: AbortSignal | null;
}

/** Options of `chat.completions.create`. `model`, `user`, `store` and `metadata` are ignored. */
export interface ChatOptions extends GenerationOptions {
  readonly messages: readonly ChatMessage[];
  readonly stream?: boolean | null;
  readonly stream_options?: { readonly include_usage?: boolean } | null;
  /** More variables for the chat template, such as `{ enable_thinking: false }`. */
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>> | null;
  readonly n?: 1 | null;
  readonly model?: string;
  readonly user?: string;
  readonly store?: boolean | null;
  readonly metadata?: unknown;
}

/** Why an answer ended: by itself or at a `stop`, or at `max_tokens` or the context's end. */
export type FinishReason = "stop" | "length";

/** A token and how likely it was. `bytes` is its UTF-8, which may be part of a character. */
export interface TokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

export interface ContentLogprob extends TokenLogprob {
  readonly top_logprobs: readonly TokenLogprob[];
}

/** Tokens and speed of one answer. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  /** How much of the prompt the cache held from the turns before. */
  readonly prompt_tokens_details: { readonly cached_tokens: number };
  readonly extra: {
    /** Tokens of the prompt that were run, each second until the first token of the answer. */
    readonly prefill_tokens_per_s: number;
    /** Tokens after the first one, each second. */
    readonly decode_tokens_per_s: number;
    readonly time_to_first_token_s: number;
    readonly e2e_latency_s: number;
    /** Positions left in the context; with none left the conversation can't go on. */
    readonly context_left: number;
    /** How often the GPU was lost and the answer was resumed. */
    readonly recoveries: number;
  };
}

export interface ChatChoice {
  readonly index: 0;
  readonly message: {
    readonly role: "assistant";
    readonly content: string;
    readonly refusal: null;
  };
  readonly logprobs: { readonly content: readonly ContentLogprob[]; readonly refusal: null } | null;
  readonly finish_reason: FinishReason;
}

export interface ChatCompletion {
  readonly id: string;
  readonly object: "chat.completion";
  /** Unix time in seconds. */
  readonly created: number;
  readonly model: string;
  readonly choices: readonly [ChatChoice];
  readonly usage: Usage;
}

export interface ChatChunkChoice {
  readonly index: 0;
  readonly delta: { readonly role?: "assistant"; readonly content?: string };
  readonly logprobs: { readonly content: readonly ContentLogprob[]; readonly refusal: null } | null;
  readonly finish_reason: FinishReason | null;
}

export interface ChatCompletionChunk {
  readonly id: string;
  readonly object: "chat.completion.chunk";
  readonly created: number;
  readonly model: string;
  /** Empty in the chunk that brings `usage`, which is the last one where it was asked for. */
  readonly choices: readonly ChatChunkChoice[];
  readonly usage?: Usage | null;
}

/**
 * What streams: iterate it once. Leaving the loop early ends the answer, as does `abort()`; what
 * was generated is in the cache for the next turn.
 */
export interface AnswerStream<T> extends AsyncIterableIterator<T, void, void> {
  readonly controller: AbortController;
  abort(): void;
}

/** The answer to a raw prompt. */
export interface Generation {
  readonly text: string;
  /** The ids of all tokens, with the one that ended the answer. */
  readonly tokens: readonly number[];
  readonly finish_reason: FinishReason;
  readonly logprobs: readonly ContentLogprob[] | null;
  readonly usage: Usage;
}

/** A part of a streamed answer; the last one says why it ended, and what it took. */
export interface GenerationPart {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly logprobs: readonly ContentLogprob[] | null;
  readonly finish_reason: FinishReason | null;
  readonly usage: Usage | null;
}

/** `chat.completions.create` */
export interface CreateChatCompletion {
  (options: ChatOptions & { readonly stream: true }): Promise<AnswerStream<ChatCompletionChunk>>;
  (options: ChatOptions & { readonly stream?: false | null }): Promise<ChatCompletion>;
  (options: ChatOptions): Promise<ChatCompletion | AnswerStream<ChatCompletionChunk>>;
}

export interface GenerateText {
  (
    prompt: string | readonly number[],
    options: GenerationOptions & { readonly stream: true },
  ): Promise<AnswerStream<GenerationPart>>;
  (
    prompt: string | readonly number[],
    options?: GenerationOptions & { readonly stream?: false | null },
  ): Promise<Generation>;
}

/**
 * A language model: `const llm = await pipeline<TextGeneration>("./")`. Calls at once are queued.
 * Called as a function it answers one message, or a conversation, with a text.
 *
 * Errors beside those of `Model.run`: "option-invalid", "prompt-too-long", "context-full",
 * "template-failed", "schema-unsupported", "input-text".
 */
export interface TextGeneration {
  (input: string | readonly ChatMessage[], options?: GenerationOptions): Promise<string>;
  /** Runs of one's own on it are queued with the answers, and empty the cache. */
  readonly model: Model;
  readonly task: TaskConfig;
  /** Frees the model; answers under way reject with "disposed". May be called twice. */
  dispose(): Promise<void>;
  readonly chat: { readonly completions: { readonly create: CreateChatCompletion } };
  /** Continues a raw prompt (a text or token ids): no chat template. */
  readonly generate: GenerateText;
  /** How many tokens prompt and answer have together at most. */
  readonly context: number;
  /** Token ids of a text; special tokens written out, such as `<|im_end|>`, become theirs. */
  tokenize(text: string): number[];
  detokenize(ids: readonly number[]): string;
  /** How many tokens a conversation has, as the model will read it; of a text, as it is. */
  countTokens(input: string | readonly ChatMessage[]): number;
  /** Forgets what the cache holds, after the calls that wait. The next turn is run as a whole. */
  reset(): Promise<void>;
}
