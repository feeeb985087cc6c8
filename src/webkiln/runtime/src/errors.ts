/** What can go wrong, by name. */
export type WebkilnErrorCode =
  | "file-protocol" // the page or the model is opened over file://
  | "not-found" // plan.json, a wasm file, the shader or a task file is missing (404)
  | "network" // the server can't be reached, or the download broke and could not be resumed
  | "plan-invalid" // plan.json is not a plan, or not one that this runtime reads
  | "shard-missing" // a weight shard is missing (404)
  | "shard-corrupt" // a weight shard does not have its SHA-256, twice in a row
  | "no-webgpu" // WebGPU was asked for and is not there, or the bundle has no WebGPU target
  | "webgpu-limits" // the adapter lacks a feature or a limit that the model needs
  | "webgpu-validation" // the browser refused a shader, a pipeline or a dispatch
  | "device-lost" // the GPU device was lost and could not be brought back
  | "no-wasm" // no WebAssembly variant runs here, or the bundle has no such target
  | "out-of-memory" // the model's memory can't be had
  | "run-failed" // a program trapped; input values, such as token ids, may be out of range
  | "input-name" // an input is missing, or the model has no such input
  | "input-dtype" // an input has another type than the model's
  | "input-shape" // an input has another shape, or a dimension is out of its bounds
  | "input-image" // what should be an image can't be decoded
  | "input-text" // what should be a text is not a string
  | "option-invalid" // an argument of load, run or pipeline is not one of those allowed
  | "prompt-too-long" // a prompt, or one message, has more tokens than the model's context
  | "context-full" // a conversation has outgrown the model's context
  | "template-failed" // the chat template refused the messages, is broken, or there is none
  | "schema-unsupported" // an answer can't be held to this JSON schema; the keyword is named
  | "aborted" // the caller's AbortSignal fired
  | "disposed" // the model was disposed
  | "worker-failed" // the inference worker could not start, or died
  | "task-unknown"; // the bundle's task has no module beside the runtime

/**
 * Every error that webkiln raises: `code` is for programs, `message` says what happened, `hint`
 * what to try.
 */
export class WebkilnError extends Error {
  override readonly name = "WebkilnError";

  constructor(
    readonly code: WebkilnErrorCode,
    message: string,
    readonly hint?: string,
    options?: { cause?: unknown },
  ) {
    super(hint ? `${message} ${hint}` : message, options);
  }
}

/** An error as it travels between threads. */
export interface PlainError {
  readonly code: WebkilnErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
}

/**
 * Takes an error apart for postMessage. Anything that is not a WebkilnError becomes "worker-
 * failed".
 */
export function toPlain(error: unknown): PlainError {
  if (error instanceof WebkilnError) {
    const { code, hint } = error;
    return { code, hint, message: hint ? error.message.slice(0, -hint.length - 1) : error.message };
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { code: "worker-failed", message, hint: undefined };
}

export function fromPlain({ code, message, hint }: PlainError): WebkilnError {
  return new WebkilnError(code, message, hint);
}
