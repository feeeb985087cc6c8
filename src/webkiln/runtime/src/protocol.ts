/** What the page and the inference worker say to each other. */
import type { Verdict } from "./compare.js";
import type { PlainError } from "./errors.js";
import type { Dims } from "./expression.js";
import type { DeviceOption, ModelState, Progress, WeightStorage } from "./model.js";
import type { Plan } from "./plan.js";

/** One run: inputs as bytes in storage types, in the program's order; outputs by index. */
export interface RunInputs {
  readonly program: number;
  readonly dims: Dims;
  readonly inputs: readonly Uint8Array<ArrayBuffer>[];
  readonly outputs: readonly number[];
}

export interface LoadRequest {
  readonly type: "load";
  readonly plan: Plan;
  readonly base: string;
  readonly device: DeviceOption;
  /** What "auto" found on an earlier visit. */
  readonly verdict: Verdict | undefined;
  readonly threads: number | undefined;
}

/**
 * Outputs of so many bytes at most are copied into their answer. They stay with the worker too, and may be
 * carried over to the next run; larger ones are handed over.
 */
export const SMALL = 4096;

/** An input that is the output of this name of the run before. */
export interface Carried {
  readonly carried: string;
}

export type AskedInput = Uint8Array<ArrayBuffer> | Carried;

/**
 * Runs of one program, one after another. `inputs` are those of the first; each of `turns` has what the
 * inputs number `own` are in a run after it.
 */
export interface AskedRuns extends Omit<RunInputs, "inputs"> {
  readonly inputs: readonly AskedInput[];
  readonly own: readonly number[];
  readonly turns: readonly (readonly AskedInput[])[];
}

export interface RunRequest extends AskedRuns {
  readonly type: "run";
}

export interface ProfileRequest extends RunInputs {
  readonly type: "profile";
}

/** Try WebGPU on `sample` while runs go on in WebAssembly, and move there if it is faster. */
export interface CompareRequest {
  readonly type: "compare";
  readonly sample: RunInputs;
}

export type Request = LoadRequest | RunRequest | ProfileRequest | CompareRequest;

/** What arrived of a shard that the page downloads; see bring.ts. It may end before it is whole. */
export type EarlyPart =
  | { readonly file: string; readonly etag: string | null }
  | { readonly file: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly file: string; readonly end: boolean };

/** A request with its number, and the memory that its inputs are in, if it has any. */
export type Numbered = Request & { readonly id: number; readonly memory?: ArrayBuffer };

/**
 * To the worker: a request; "forget request `cancel`"; the files that the page downloads, and whether
 * no earlier visit left any on the device; or a part of one.
 */
export type ToWorker =
  | { readonly request: Numbered }
  | { readonly cancel: number }
  | { readonly early: readonly string[]; readonly fresh: boolean }
  | EarlyPart;

export interface Loaded {
  readonly state: ModelState;
  /** Whether WebGPU is still to be tried. */
  readonly undecided: boolean;
}

/** What each request is answered with. */
export interface Replies {
  readonly load: Loaded;
  /** The outputs of each run. */
  readonly run: ArrayBuffer[][];
  readonly profile: number[];
  readonly compare: Verdict | undefined;
}

/**
 * The memory of an engine with helper threads; `words[call]` is what they sleep on between runs. A
 * page that notifies them as it sends a run has them awake when that arrives.
 */
export interface Helpers {
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly call: number;
}

/** An answer, with the memory that its request's inputs were in. */
export type Answer =
  | { readonly id: number; readonly value: Replies[keyof Replies]; readonly memory?: ArrayBuffer }
  | { readonly id: number; readonly error: PlainError };

/**
 * From the worker: an answer; progress of loading; news of where the model runs or is kept; or the
 * helper threads of the engine, undefined when it has none.
 */
export type FromWorker =
  | { readonly answer: Answer }
  | { readonly progress: Progress }
  | { readonly state: ModelState }
  | { readonly storage: WeightStorage }
  | { readonly helpers: Helpers | undefined };
