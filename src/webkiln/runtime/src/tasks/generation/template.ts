/** A conversation → the text that the model was trained to continue, by its chat template. */
import { Template } from "@huggingface/jinja";
import { WebkilnError } from "../../index.js";
import type { LanguageConfig } from "./config.js";
import { refuse } from "./settings.js";
import type { ChatMessage, TextPart } from "./types.js";

/** Renders messages; `more` are further variables of the template. */
export type ChatTemplate = (
  messages: readonly ChatMessage[],
  more?: Readonly<Record<string, unknown>>,
) => string;

function plainContent(content: unknown, path: string): string | null {
  if (typeof content === "string" || content === null) return content;
  if (!Array.isArray(content)) return refuse(path, "a text, or a list of parts", content);
  const texts = content.map((part: Partial<TextPart> | null, i) => {
    if (part?.type === "text" && typeof part.text === "string") return part.text;
    return refuse(`${path}[${i}]`, 'a part of type "text"', part);
  });
  return texts.join("");
}

/** Checks what the caller gave, and joins the parts of messages. */
function plainMessages(messages: readonly ChatMessage[]): ChatMessage[] {
  if (!Array.isArray(messages) || !messages.length) {
    refuse("messages", "a list with at least one message", messages);
  }
  return messages.map((message: ChatMessage | null, i) => {
    if (typeof message !== "object" || message === null) {
      return refuse(`messages[${i}]`, "a message", message);
    }
    const { role, content } = message;
    if (typeof role !== "string" || !role) refuse(`messages[${i}].role`, "a role", role);
    return { ...message, content: plainContent(content ?? null, `messages[${i}].content`) };
  });
}

function failed(why: string, hint: string, cause?: unknown): WebkilnError {
  return new WebkilnError("template-failed", why, hint, { cause });
}

function reason(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/\.$/, "");
}

/** @throws WebkilnError "template-failed" from what it returns. */
export function chatTemplate({ chat_template, tokens }: LanguageConfig): ChatTemplate {
  let template: Template | undefined;
  const parsed = (): Template => {
    if (chat_template === null) {
      const hint = "Use generate() with a prompt of your own.";
      throw failed("This model has no chat template: it was not made for conversations.", hint);
    }
    try {
      return (template ??= new Template(chat_template));
    } catch (cause) {
      const hint = "Build the bundle again with a template that works.";
      throw failed(`The model's chat template can't be read: ${reason(cause)}.`, hint, cause);
    }
  };
  const special = Object.entries(tokens).map(([role, token]) => [`${role}_token`, token]);
  return (messages, more = {}) => {
    const variables = {
      // Templates ask whether these are none.
      tools: null,
      documents: null,
      ...Object.fromEntries(special),
      ...more,
      messages: plainMessages(messages),
      add_generation_prompt: true,
    };
    const ready = parsed();
    try {
      return ready.render(variables);
    } catch (cause) {
      const hint = "Check the order and the roles of the messages.";
      throw failed(
        `The model's chat template refused the messages: ${reason(cause)}.`,
        hint,
        cause,
      );
    }
  };
}
