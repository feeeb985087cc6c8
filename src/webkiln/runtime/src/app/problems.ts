/** Errors, as the page tells them: what happened, and what to do. */
import { WebkilnError, type WebkilnErrorCode } from "../index.js";
import { byId } from "./page.js";

export interface Problem {
  readonly title: string;
  readonly message: string;
  readonly hint: string;
  /** Trying the same again may help. False when the input itself is at fault. */
  readonly fatal: boolean;
}

const TITLES: Partial<Record<WebkilnErrorCode, string>> = {
  "not-found": "A file is missing",
  "shard-missing": "A part of the model is missing",
  "shard-corrupt": "A part of the model is damaged",
  network: "The connection broke",
  "plan-invalid": "This model can't be read",
  "no-webgpu": "WebGPU is not available here",
  "webgpu-limits": "This GPU can't run the model",
  "webgpu-validation": "The GPU refused the model",
  "device-lost": "The GPU stopped answering",
  "no-wasm": "This browser can't run the model",
  "run-failed": "The model failed on this input",
  "out-of-memory": "There is not enough memory",
  "prompt-too-long": "That is more than the model can take",
  "context-full": "The conversation is full",
  "template-failed": "The model can't read this conversation",
  "input-image": "That is not an image",
  "input-text": "That is not a text",
};

/** What a person should read of an error, whoever threw it. */
export function explain(error: unknown): Problem {
  if (error instanceof WebkilnError) {
    const hint = error.hint ?? "";
    const message = hint ? error.message.slice(0, -hint.length - 1) : error.message;
    const fatal = !error.code.startsWith("input-");
    return { title: TITLES[error.code] ?? "That did not work", message, hint, fatal };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { title: "That did not work", message, hint: "Reload the page and try again.", fatal: true };
}

/** Shows the panel. Without `retry` there is nothing to try again, and it can only be closed. */
export function showError(problem: Problem, retry?: () => void, label = "Try again"): void {
  byId("error-title").textContent = problem.title;
  byId("error-message").textContent = problem.message;
  byId("error-hint").textContent = problem.hint;
  const button = byId<HTMLButtonElement>("error-retry");
  button.hidden = !retry;
  button.textContent = label;
  button.onclick = () => {
    clearError();
    retry?.();
  };
  byId<HTMLButtonElement>("error-close").onclick = clearError;
  byId("error").hidden = false;
}

export function clearError(): void {
  byId("error").hidden = true;
}
