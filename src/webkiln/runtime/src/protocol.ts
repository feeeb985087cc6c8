/** What the page and the inference worker say to each other. */
import type { PlainError } from "./errors.js";
import type { Dims } from "./expression.js";
import type { Device, DeviceOption, Progress, Timings } from "./model.js";
import type { Plan } from "./plan.js";

/** Inputs of one run: bytes in storage types, in the program's order. */
export interface RunInputs {
  readonly program: number;
  readonly dims: Dims;
  readonly inputs: readonly Uint8Array<ArrayBuffer>[];
}

export interface LoadRequest {
  readonly type: "load";
  readonly plan: Plan;
  readonly base: string;
  readonly device: DeviceOption;
  /** What "auto" chose on an earlier visit. */
  readonly prefer: Device["type"] | undefined;
  readonly threads: number | undefined;
  /** What to time both devices on; without it "auto" takes WebGPU where it works. */
  readonly sample: RunInputs | undefined;
}

export interface RunRequest extends RunInputs {
  readonly type: "run";
}

export interface ProfileRequest extends RunInputs {
  readonly type: "profile";
}

export type Request = LoadRequest | RunRequest | ProfileRequest;

/** To the worker: a request with its number, or "forget request `cancel`". */
export type ToWorker = (Request & { readonly id: number }) | { readonly cancel: number };

export interface Loaded {
  readonly device: Device;
  readonly fallbacks: readonly string[];
  readonly timings: Timings;
}

/** What each request is answered with. */
export interface Replies {
  readonly load: Loaded;
  readonly run: ArrayBuffer[];
  readonly profile: number[];
}

/** From the worker: an answer, progress, or the news that the model moved to another device. */
export type FromWorker =
  | { readonly id: number; readonly value: Replies[keyof Replies] }
  | { readonly id: number; readonly error: PlainError }
  | { readonly progress: Progress }
  | { readonly moved: Loaded };
