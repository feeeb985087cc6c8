/** One answer, as the model writes it. */
import { WebkilnError } from "../../index.js";
import { explain } from "../problems.js";
import type { Answer } from "./conversation.js";
import type { Llm, Request, Usage } from "./llm.js";

/** What is known while an answer is under way. */
export interface Pace {
  readonly tokens: number;
  /** Tokens a second since the first one; undefined before there are enough to tell. */
  readonly write: number | undefined;
}

// Fewer say nothing about speed.
const ENOUGH = 4;

/** Errors that say that the conversation has outgrown what the model can keep in mind. */
const FULL: readonly string[] = ["context-full", "prompt-too-long"];

/** Fills `answer`; never rejects, since whatever happens is part of the answer. */
export async function writeAnswer(
  llm: Llm, request: Request, answer: Answer, onText: (pace: Pace) => void,
): Promise<void> {
  const begin = performance.now();
  let first = 0;
  let tokens = 0;
  let usage: Usage | undefined;
  let reason: string | undefined;
  const speed = (): number | undefined =>
    tokens > ENOUGH ? (1000 * (tokens - 1)) / (performance.now() - first) : undefined;
  try {
    for await (const chunk of await llm.chat.completions.create(request)) {
      usage = chunk.usage ?? usage;
      const [choice] = chunk.choices;
      reason = choice?.finish_reason ?? reason;
      if (!choice?.delta.content) continue;
      first ||= performance.now();
      tokens++;
      answer.text += choice.delta.content;
      onText({ tokens, write: speed() });
    }
    answer.ending = reason === "length" ? whichLength(request, usage) : "complete";
  } catch (error) {
    if (request.signal.aborted) answer.ending = "stopped";
    else {
      const full = error instanceof WebkilnError && FULL.includes(error.code);
      answer.ending = full ? "context" : "failed";
      const { title, message, hint } = explain(error);
      answer.problem = { title, message, hint };
    }
  }
  if (!tokens && !usage) return;
  answer.cost = {
    prompt: usage?.prompt_tokens ?? 0,
    tokens: usage?.completion_tokens ?? tokens,
    read: usage?.extra.prefill_tokens_per_s || undefined,
    write: usage?.extra.decode_tokens_per_s || speed(),
    first: (first || performance.now()) - begin,
  };
}

/** "length" is said of the limit that was asked for, and of the model's own. */
function whichLength({ max_tokens }: Request, usage?: Usage): "length" | "context" {
  return max_tokens === undefined || usage?.extra.context_left === 0 ? "context" : "length";
}
