/** What a conversation is: turns of a question and its answers, the newest of which counts. */
import type { Message } from "./llm.js";

/** How an answer came to its end. */
export type Ending = "complete" | "stopped" | "length" | "context" | "failed";

/** What an answer cost. */
export interface Cost {
  /** Tokens of everything that the model had to take in, the conversation so far included. */
  readonly prompt: number;
  readonly tokens: number;
  /** Tokens a second. */
  readonly read?: number | undefined;
  readonly write?: number | undefined;
  /** Milliseconds until the first word. */
  readonly first: number;
}

export interface Answer {
  text: string;
  /** Undefined while it is being written, and when the page was closed meanwhile. */
  ending?: Ending;
  cost?: Cost;
  /** Why it failed, for people. */
  problem?: { readonly title: string; readonly message: string; readonly hint: string };
}

/** `chosen` of the answers is the one shown, and the one that the model is reminded of. */
export interface Turn {
  readonly question: string;
  readonly answers: Answer[];
  chosen: number;
}

export interface Conversation {
  readonly id: string;
  title: string;
  /** The title was given by a person. */
  renamed?: boolean;
  readonly created: number;
  updated: number;
  readonly turns: Turn[];
}

const TITLE_LENGTH = 60;

export function newConversation(): Conversation {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, turns: [] };
}

/** crypto.randomUUID() is missing where the page is neither https nor localhost. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The first question, cut at a word. */
export function titleOf(question: string): string {
  const line = question.trim().split("\n", 1)[0]!.replace(/\s+/g, " ");
  if (line.length <= TITLE_LENGTH) return line;
  const part = line.slice(0, TITLE_LENGTH);
  return `${part.slice(0, Math.max(part.lastIndexOf(" "), TITLE_LENGTH / 2)).trimEnd()}…`;
}

/** What the model gets: everything up to and including the question of the last turn. */
export function messagesOf({ turns }: Conversation, system: string): Message[] {
  const messages: Message[] = system.trim() ? [{ role: "system", content: system.trim() }] : [];
  for (const { question, answers, chosen } of turns.slice(0, -1)) {
    const content = withoutThoughts(answers[chosen]?.text ?? "");
    // Questions and answers take turns; many templates insist on it.
    if (content) messages.push({ role: "user", content: question }, { role: "assistant", content });
  }
  const last = turns.at(-1);
  if (last) messages.push({ role: "user", content: last.question });
  return messages;
}

/** Conversations as Markdown, for people to keep elsewhere. */
export function toMarkdown(conversations: readonly Conversation[]): string {
  const parts = conversations.map(({ title, created, turns }) => {
    const said = turns.map(({ question, answers, chosen }) =>
      `**You:** ${question}\n\n**Answer:** ${withoutThoughts(answers[chosen]?.text ?? "")}`);
    return [`# ${title}`, new Date(created).toLocaleString(), ...said].join("\n\n");
  });
  return `${parts.join("\n\n---\n\n")}\n`;
}

/** What a reasoning model thinks before it answers stands between <think> and </think>. */
export function splitThoughts(text: string): { thoughts: string; answer: string } {
  const match = /^\s*<think>([\s\S]*?)(?:<\/think>|$)/.exec(text);
  if (!match) return { thoughts: "", answer: text };
  return { thoughts: match[1]!.trim(), answer: text.slice(match[0].length).trimStart() };
}

export function withoutThoughts(text: string): string {
  return splitThoughts(text).answer.trim();
}
