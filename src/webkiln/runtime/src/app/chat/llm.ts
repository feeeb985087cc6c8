/** The part of a language model's pipeline that this page uses. */
import type { ChatMessage, TextGeneration, Usage } from "../../tasks/text-generation.js";

export type { Usage };
export type Llm = TextGeneration;

export interface Message extends ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** What the settings choose of sampling. Left out: what the model's makers recommend. */
export type Sampling = Readonly<Partial<Record<
  "temperature" | "top_p" | "top_k" | "min_p" | "repetition_penalty" | "max_tokens" | "seed", number
>>>;

export interface Request extends Sampling {
  readonly messages: readonly Message[];
  readonly stream: true;
  readonly stream_options: { readonly include_usage: true };
  readonly signal: AbortSignal;
}

/** What the bundle recommends where nothing is chosen: `plan.task.sampling`. */
export function recommended({ task }: Pick<Llm, "task">): Sampling {
  return (task["sampling"] ?? {}) as Sampling;
}
