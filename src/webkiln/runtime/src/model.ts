import type { DType, Tensor } from "./tensor.js";
import type { Expression } from "./expression.js";
import type { Dim } from "./plan.js";

/**
 * An input or output of the model. A shape's entry is a number, a dimension's name or an expression
 * over dimensions.
 */
export interface Port {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly Expression[];
}

/**
 * Where to run. `auto` starts on WebAssembly, which is ready sooner, times WebGPU in the background
 * and moves there between two runs if it is faster. The next visit starts on the faster one.
 */
export type DeviceOption = "auto" | "webgpu" | "wasm";

/**
 * How far loading is. `loaded` and `total` are bytes of weights: those that every run needs. Of a table
 * of embeddings, say, a run needs the rows that its inputs name; the others arrive when a run asks for
 * them, or after it.
 */
export interface Progress {
  readonly phase: "weights" | "compile" | "ready";
  readonly loaded: number;
  readonly total: number;
}

/** Whether the weights stay on the device, so that the next visit needs no download. */
export interface WeightStorage {
  /**
   * "pending": they are being written, after loading. "kept": all of them are here. "full": the
   * browser has no room for all of them. "unavailable": it keeps nothing for this page.
   */
  readonly state: "pending" | "kept" | "full" | "unavailable";
  /** Bytes of the shards that are here. */
  readonly bytes: number;
  /** For people: why they are not kept and what to do. Empty unless "full" or "unavailable". */
  readonly reason: string;
}

/** Options of `load` and `pipeline`. */
export interface LoadOptions {
  /** Default "auto". */
  readonly device?: DeviceOption;
  /**
   * Threads on WebAssembly, at most; the default is as many as the machine has and the bundle
   * allows.
   */
  readonly threads?: number;
  readonly onProgress?: (progress: Progress) => void;
  /**
   * Called after loading whenever `device`, `fallbacks`, `timings` or `comparing` of the model
   * change.
   */
  readonly onDevice?: (model: Model) => void;
  /** Called once it is clear whether the weights stay on the device, mostly after loading. */
  readonly onStorage?: (storage: WeightStorage) => void;
  /** Aborting rejects with code "aborted" and frees everything. */
  readonly signal?: AbortSignal;
}

/** Options of one run. */
export interface RunOptions {
  /**
   * Aborting rejects at once with code "aborted". Runs that wait in the queue are then never started;
   * those asked for together with one under way stop within some 100 ms.
   */
  readonly signal?: AbortSignal;
  /** Which of `model.programs` to run; the default is the first. */
  readonly program?: string;
  /** Values of dimensions that no input's shape gives. */
  readonly dims?: Readonly<Record<string, number>>;
  /** Names of the outputs that are wanted; the default is all. */
  readonly outputs?: readonly string[];
  /**
   * Inputs, not among the feeds, that take what an output of the run before this one was: `{ input_ids:
   * "token" }`. So a run may be asked for before that one has ended. The output was asked for, is as
   * large as the input, and has at most 4 KiB.
   */
  readonly carry?: Readonly<Record<string, string>>;
}

/** One entry point of a model. Most models have one; a chat model has "prefill" and "decode". */
export interface Program {
  readonly name: string;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

/** Where the model runs. */
export interface Device {
  readonly type: "webgpu" | "wasm";
  /** For people: the GPU's name, perhaps with ", f16"; or "WebAssembly × 2 threads, SIMD relaxed". */
  readonly description: string;
  /** Threads in use; 1 on WebGPU. */
  readonly threads: number;
}

/** What one step of the program costs. */
export interface StepProfile {
  /** Which nodes of the model the step computes. */
  readonly label: string;
  /** The rule that scheduled it. */
  readonly kind: string;
  /** Median milliseconds. On WebAssembly a step is timed on one thread alone. */
  readonly ms: number;
  readonly flops: number;
  readonly bytes: number;
}

/** How far an output is from its reference, made at build time. */
export interface OutputCheck {
  readonly sample: number;
  readonly output: string;
  readonly maxAbsError: number;
  /** |actual - expected| / |expected|, over the elements where |expected| > atol. */
  readonly maxRelError: number;
  /** Every element is within atol + rtol × |expected|. */
  readonly ok: boolean;
}

/**
 * Median milliseconds of one run, where "auto" measured them. WebGPU's is a lower bound where it
 * was given up for being much slower.
 */
export type Timings = Readonly<Partial<Record<"webgpu" | "wasm", number>>>;

/** Where a model runs, and why there. */
export interface ModelState {
  readonly device: Device;
  /** Why a better device is not in use, best first; empty when the best one is. */
  readonly fallbacks: readonly string[];
  /** What "auto" measured, on this visit or on an earlier one. */
  readonly timings: Timings;
  /** Whether "auto" is trying WebGPU just now, in the background. */
  readonly comparing: boolean;
}

/** A loaded model. Runs are queued and executed in order, in a worker: the page never blocks. */
export interface Model extends ModelState {
  readonly name: string;
  /** Inputs and outputs of the first program. */
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly programs: readonly Program[];
  /** The symbolic dimensions and their bounds. */
  readonly dims: readonly Dim[];
  /** `plan.task`. */
  readonly task: { readonly name: string; readonly [setting: string]: unknown };
  /** Bytes of weights. */
  readonly weightBytes: number;
  /** Whether they stay on the device. */
  readonly storage: WeightStorage;

  /**
   * Runs the model once.
   * @throws WebkilnError "input-name", "input-dtype", "input-shape", "aborted", "device-lost",
   * "run-failed", "disposed"; "shard-missing", "shard-corrupt", "network" where it reads rows of a
   * table that are not here yet.
   */
  run(
    feeds: Readonly<Record<string, Tensor>>,
    options?: RunOptions,
  ): Promise<Record<string, Tensor>>;
  /**
   * Runs the model once for each of `feeds`, one right after another. They are sent and answered
   * together, and a tensor that all of them have is checked and sent once: for many short runs that is
   * faster. All have the same inputs, of the same types and shapes.
   */
  runs(
    feeds: readonly Readonly<Record<string, Tensor>>[],
    options?: RunOptions,
  ): Promise<Record<string, Tensor>[]>;
  /** Times every step of the program, on `feeds` or on the first golden sample. */
  profile(feeds?: Readonly<Record<string, Tensor>>, options?: RunOptions): Promise<StepProfile[]>;
  /** Replays the bundle's golden samples on this device and compares. */
  selfTest(): Promise<OutputCheck[]>;
  /**
   * A golden sample's inputs (the first, unless told), for a first run without data of one's own.
   */
  sample(index?: number): Promise<Record<string, Tensor>>;
  /**
   * Frees memory, threads and GPU buffers. Waiting runs reject with code "disposed". May be called
   * twice.
   */
  dispose(): Promise<void>;
}
