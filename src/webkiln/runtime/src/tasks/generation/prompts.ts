/** Conversations and raw prompts → token ids that fit the model's context. */
import { WebkilnError } from "../../index.js";
import type { LanguageConfig } from "./config.js";
import { refuse } from "./settings.js";
import { chatTemplate, type ChatTemplate } from "./template.js";
import type { ChatMessage } from "./types.js";
import type { Vocabulary } from "./vocabulary.js";

export class Prompts {
  private readonly template: ChatTemplate;

  constructor(
    private readonly config: LanguageConfig,
    private readonly vocabulary: Vocabulary,
  ) {
    this.template = chatTemplate(config);
  }

  /** Ids of a text, after the token that the model wants before it. */
  text(text: string): number[] {
    const ids = this.vocabulary.encode(text);
    const { add_bos, bos } = this.config.generation;
    return add_bos && bos !== null && ids[0] !== bos ? [bos, ...ids] : ids;
  }

  /** Ids of a conversation, as the model was trained to read it. */
  messages(messages: readonly ChatMessage[], more?: Readonly<Record<string, unknown>>): number[] {
    return this.text(this.template(messages, more));
  }

  /** @throws WebkilnError "prompt-too-long". */
  raw(prompt: string | readonly number[]): readonly number[] {
    if (typeof prompt !== "string") {
      if (!Array.isArray(prompt)) refuse("prompt", "a text, or a list of token ids", prompt);
      this.vocabulary.check(prompt);
    }
    const ids = typeof prompt === "string" ? this.text(prompt) : prompt;
    if (!ids.length) throw empty();
    if (ids.length > this.context) throw tooLong("prompt", ids.length, this.context);
    return ids;
  }

  /**
   * @throws WebkilnError "prompt-too-long" when the last message alone does not fit the context,
   * "context-full" when the conversation does not.
   */
  chat(messages: readonly ChatMessage[], more?: Readonly<Record<string, unknown>>): number[] {
    const ids = this.messages(messages, more);
    if (!ids.length) throw empty();
    if (ids.length <= this.context) return ids;
    const alone = this.vocabulary.encode(textOf(messages.at(-1)!)).length;
    if (messages.length === 1 || alone >= this.context) {
      throw tooLong(
        "message",
        Math.max(alone, messages.length === 1 ? ids.length : 0),
        this.context,
      );
    }
    throw new WebkilnError(
      "context-full",
      `The conversation has ${ids.length} tokens; the model's context has ${this.context}.`,
      "Start a new conversation, or leave out its first messages.",
    );
  }

  private get context(): number {
    return this.config.generation.context;
  }
}

function empty(): WebkilnError {
  return new WebkilnError("input-text", "The prompt is empty.", "Give at least one character.");
}

function tooLong(what: string, length: number, context: number): WebkilnError {
  return new WebkilnError(
    "prompt-too-long",
    `The ${what} has ${length} tokens; the model's context has ${context}.`,
    "Shorten it, or build the bundle with a larger --max sequence.",
  );
}

/** The template has checked the message by now. */
function textOf({ content }: ChatMessage): string {
  if (typeof content === "string") return content;
  return (content ?? []).map(({ text }) => text).join("");
}
