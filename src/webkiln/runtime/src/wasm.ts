/** The WebAssembly engine: one memory, one instance a thread, the whole step list inside wasm. */
import { relaxedSimd, simd, threads as sharedMemory } from "wasm-feature-detect";
import { reason, type Engine, type State, type WeightSource } from "./engine.js";
import { toPlain, WebkilnError } from "./errors.js";
import { storedBytes } from "./feeds.js";
import { get, versioned } from "./http.js";
import { hasNarrowDot } from "./narrow-dot.js";
import type { Plan, Variant, WasmTarget } from "./plan.js";
import type { WeightSink } from "./pieces.js";
import type { Helpers, RunInputs } from "./protocol.js";

/** The exports of every variant; see docs/plan.md. */
interface Exports {
  readonly run: (program: number, threads: number) => void;
  readonly step: (program: number, step: number) => void;
  readonly serve?: (thread: number) => void;
  readonly stop?: () => void;
  readonly __stack_pointer: WebAssembly.Global;
}

/** What a helper thread is started with. */
export interface ThreadStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly thread: number;
  readonly stackPointer: number;
}

/** The name of helper threads' workers; they run the same script as the inference worker. */
export const THREAD = "webkiln-thread";

/**
 * Words of the ABI (wasm_runtime.h), by address: what helpers sleep on, the barriers passed, the tiles
 * handed out, and whether a thread trapped.
 */
const CALL = 512;
const PHASE = 640;
const CLAIMED = 704;
const TRAPPED = 768;

/** Weights go to another engine in portions of so many bytes, between which runs may happen. */
const PORTION = 8 << 20;

/** Weights that arrive within so many ms would only be held up. */
const WARM_UP_DELAY = 100;

/** Of a symbolic dimension, where code is only to become warm. */
const WARM_UP_EXTENT = 16;

/** A helper that has not started by then won't. */
const START_TIMEOUT = 10_000;

export interface WasmEngine extends Engine {
  /** Hands the weights in memory to another engine. */
  readonly weights: WeightSource;
  /** Its helper threads, where it has any. */
  readonly helpers: Helpers | undefined;
  saveState(): State;
  restoreState(state: State): void;
}

const FEATURES: Readonly<Record<string, () => Promise<boolean>>> = {
  simd,
  "relaxed-simd": relaxedSimd,
  "narrow-dot": async () => (await relaxedSimd()) && hasNarrowDot(),
  threads: async () =>
    typeof SharedArrayBuffer === "function" &&
    globalThis.crossOriginIsolated &&
    (await sharedMemory()),
};

/**
 * Loads the best variant that runs here; `threads` is the most to use.
 * @throws WebkilnError "no-wasm", "out-of-memory", "not-found", and what `weights` throws.
 */
export async function openWasm(
  plan: Plan,
  base: URL,
  weights: WeightSource,
  threads: number | undefined,
): Promise<WasmEngine> {
  const target = plan.wasm;
  if (!target)
    throw new WebkilnError(
      "no-wasm",
      "This bundle was built without WebAssembly.",
      "Build with --targets webgpu,wasm.",
    );
  const wanted = Math.max(
    1,
    Math.min(threads ?? navigator.hardwareConcurrency ?? 1, target.maxThreads),
  );
  const fallbacks: string[] = [];
  const usable = await usableVariants(target);
  if (wanted > 1 && !usable.some(isThreaded) && target.variants.some(isThreaded)) {
    fallbacks.push(
      globalThis.crossOriginIsolated
        ? "WebAssembly threads: this browser has none"
        : "WebAssembly threads: the page is not cross-origin isolated; " +
            "the server must send COOP and COEP headers",
    );
  }
  const order =
    wanted > 1 ? usable : [...usable.filter((v) => !isThreaded(v)), ...usable.filter(isThreaded)];
  const variant = order[0];
  if (!variant) {
    throw new WebkilnError(
      "no-wasm",
      "This browser runs none of the bundle's WebAssembly variants: they need SIMD.",
      "Update the browser.",
    );
  }
  const plain = order.find((v) => !isThreaded(v));
  try {
    return await openVariant(plan, target, variant, base, weights, wanted, fallbacks);
  } catch (error) {
    if (!isThreaded(variant) || !plain || !(error instanceof ThreadStartError)) throw error;
    fallbacks.push(reason("WebAssembly threads", error));
    return openVariant(plan, target, plain, base, weights, 1, fallbacks);
  }
}

class ThreadStartError extends Error {}

function isThreaded({ features }: Variant): boolean {
  return features.includes("threads");
}

async function usableVariants({ variants }: WasmTarget): Promise<Variant[]> {
  const names = [...new Set(variants.flatMap(({ features }) => features))];
  const known = await Promise.all(
    names.map(async (name) => [name, await (FEATURES[name]?.() ?? false)] as const),
  );
  const supported = new Map(known);
  return variants.filter(({ features }) => features.every((name) => supported.get(name)));
}

async function openVariant(
  plan: Plan,
  target: WasmTarget,
  variant: Variant,
  base: URL,
  weights: WeightSource,
  wanted: number,
  fallbacks: readonly string[],
): Promise<WasmEngine> {
  const threaded = isThreaded(variant);
  const count = threaded ? wanted : 1;
  const memory = allocate(target.memory.bytes, threaded);
  const stop = new AbortController();
  const compiling = compile(versioned(variant, base), stop.signal);
  // Threads start while weights stream, so that nothing waits for them afterwards.
  const starting = startThreads(compiling, memory, target, count);
  const sink: WeightSink = {
    memory: (offset, bytes) => new Uint8Array(memory.buffer, target.memory.weights + offset, bytes),
    place: () => undefined, // it arrived there
  };
  const ready = Promise.all([starting, weights(sink, stop.signal)]);
  ready.catch(() => undefined); // heard below, where compiling may have failed first
  try {
    const { stacks } = target.memory;
    const exports = instantiate(await compiling, memory, stacks.offset + stacks.bytes);
    const warm = await warmUp(plan, target, exports, memory, ready);
    const [workers] = await ready;
    return new WasmModel(
      plan,
      target,
      exports,
      memory,
      workers,
      describe(variant, count),
      fallbacks,
      warm ? count : Math.max(1, Math.min(count, (navigator.hardwareConcurrency ?? Infinity) - 1)),
    );
  } catch (error) {
    stop.abort();
    void starting.then(stopAll, () => undefined);
    throw error;
  }
}

/**
 * Runs every step once on what is in memory, zeros at first, until `ready`: engines optimise code
 * only when it was used, and while weights are on their way there is time. What it leaves behind is
 * overwritten by a run, except for states, so models that have any are left alone: they are language
 * models, whose layers share their code. It ends early where a step traps.
 *
 * @returns Whether there is little left to optimise in the first run.
 */
async function warmUp(
  plan: Plan,
  target: WasmTarget,
  exports: Exports,
  memory: WebAssembly.Memory,
  ready: Promise<unknown>,
): Promise<boolean> {
  if (plan.buffers.some(({ role }) => role === "state")) return true;
  let waiting = true;
  const over = (): void => void (waiting = false);
  ready.then(over, over);
  await Promise.race([ready, new Promise((resolve) => setTimeout(resolve, WARM_UP_DELAY))]);
  const stack = exports.__stack_pointer.value as number;
  const extents = plan.dims.map(({ min, max }) => Math.max(min, Math.min(max, WARM_UP_EXTENT)));
  setDims(memory, target, extents);
  for (const [program, { steps }] of plan.programs.entries()) {
    for (let step = 0; step < steps.wasm.length; step++) {
      await nextTask(); // bytes that arrived go first
      if (!waiting) return false;
      try {
        exports.step(program, step);
      } catch {
        // Indices among weights may be anything before all of them are there and found right.
        exports.__stack_pointer.value = stack;
        new Int32Array(memory.buffer)[CLAIMED / 4] = 0;
        return false;
      }
    }
  }
  return true;
}

/** Writes the symbolic dimensions of a run, in the plan's order. */
function setDims({ buffer }: WebAssembly.Memory, target: WasmTarget, extents: number[]): void {
  new Int32Array(buffer, target.memory.dims, extents.length).set(extents);
}

/** Resolves in a task of its own, without the delay that timers have. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(undefined);
  });
}

function stopAll(workers: readonly Worker[]): void {
  for (const worker of workers) worker.terminate();
}

function allocate(bytes: number, shared: boolean): WebAssembly.Memory {
  const pages = bytes / 65536;
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
  } catch (cause) {
    throw new WebkilnError(
      "out-of-memory",
      `The model needs ${Math.ceil(bytes / 2 ** 20)} MiB of memory, which the browser refused.`,
      "Close other pages, or build with --quantize.",
      { cause },
    );
  }
}

/** Compiles while downloading; a server that sends another MIME type costs only that overlap. */
async function compile(url: URL, signal: AbortSignal): Promise<WebAssembly.Module> {
  const response = await get(url, signal);
  try {
    if (response.headers.get("content-type")?.startsWith("application/wasm")) {
      return await WebAssembly.compileStreaming(response);
    }
    return await WebAssembly.compile(await response.arrayBuffer());
  } catch (cause) {
    throw new WebkilnError(
      "no-wasm",
      `${url.pathname.split("/").pop()} does not compile: ${String(cause)}.`,
      undefined,
      { cause },
    );
  }
}

function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  stackPointer: number,
): Exports {
  const exports = new WebAssembly.Instance(module, { env: { memory } })
    .exports as unknown as Exports;
  exports.__stack_pointer.value = stackPointer;
  return exports;
}

/** Starts the helpers at once; each gets the module when that is compiled. */
async function startThreads(
  compiling: Promise<WebAssembly.Module>,
  memory: WebAssembly.Memory,
  { memory: { stacks } }: WasmTarget,
  count: number,
): Promise<Worker[]> {
  const workers: Worker[] = [];
  const started: Promise<void>[] = [];
  for (let thread = 1; thread < count; thread++) {
    const worker = new Worker(self.location.href, { type: "module", name: THREAD });
    workers.push(worker);
    started.push(heardFrom(worker, compiling));
    const stackPointer = stacks.offset + stacks.bytes * (thread + 1);
    void compiling.then(
      (module) =>
        worker.postMessage({ module, memory, thread, stackPointer } satisfies ThreadStart),
      () => undefined,
    );
  }
  try {
    await Promise.all([compiling, ...started]);
    return workers;
  } catch (error) {
    stopAll(workers);
    throw error;
  }
}

/** A helper answers when it has instantiated the module. */
function heardFrom(worker: Worker, compiling: Promise<WebAssembly.Module>): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => reject(new ThreadStartError(why));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = (): void => fail("a helper thread did not start");
    compiling.then(() => (timer = setTimeout(late, START_TIMEOUT)), reject);
    worker.onmessage = ({ data }: MessageEvent<string | undefined>) => {
      clearTimeout(timer);
      data ? fail(data) : resolve();
    };
    worker.onerror = (event) => {
      event.preventDefault(); // or it counts as this worker's own error too
      fail(event.message || "a helper thread could not be loaded");
    };
  });
}

/** A helper thread's whole life: instantiate, say so, and serve runs until told to stop. */
export function serveAsThread(): void {
  self.onmessage = ({ data }: MessageEvent<ThreadStart>) => {
    let exports: Exports;
    try {
      exports = instantiate(data.module, data.memory, data.stackPointer);
    } catch (error) {
      self.postMessage(toPlain(error).message);
      return;
    }
    self.postMessage(undefined);
    try {
      exports.serve!(data.thread);
    } catch {
      // A trap. The others would wait for this thread at the next barrier: let them trap there.
      const words = new Int32Array(data.memory.buffer);
      Atomics.store(words, TRAPPED / 4, 1);
      Atomics.add(words, PHASE / 4, 1);
      Atomics.notify(words, PHASE / 4);
    }
    self.close();
  };
}

function describe({ features }: Variant, threads: number): Engine["device"] {
  const parts = [`WebAssembly × ${threads} thread${threads > 1 ? "s" : ""}`];
  if (features.includes("relaxed-simd")) parts.push("SIMD relaxed");
  else if (features.includes("simd")) parts.push("SIMD");
  return { type: "wasm", description: parts.join(", "), threads };
}

class WasmModel implements WasmEngine {
  constructor(
    private readonly plan: Plan,
    private readonly target: WasmTarget,
    private readonly exports: Exports,
    private readonly memory: WebAssembly.Memory,
    private readonly workers: readonly Worker[],
    readonly device: Engine["device"],
    readonly fallbacks: readonly string[],
    /** Of the next run. A first one in code that was never used leaves a core to the compiler. */
    private threads: number,
  ) {}

  async run(run: RunInputs): Promise<ArrayBuffer[]> {
    const { program, dims, outputs } = run;
    this.write(run);
    try {
      this.exports.run(program, this.threads);
      this.threads = this.device.threads;
    } catch (cause) {
      throw new WebkilnError(
        "run-failed",
        `The program "${this.plan.programs[program]!.name}" failed: ${(cause as Error).message}.`,
        "Values of its inputs may be out of range, such as token ids beyond the vocabulary.",
        { cause },
      );
    }
    return outputs.map((index) => {
      const port = this.plan.programs[program]!.outputs[index]!;
      const bytes = new Uint8Array(storedBytes(this.plan, port, dims));
      bytes.set(
        new Uint8Array(this.memory.buffer, this.plan.buffers[port.buffer]!.wasm!, bytes.length),
      );
      return bytes.buffer;
    });
  }

  async profile(run: RunInputs): Promise<number[]> {
    this.write(run);
    return this.plan.programs[run.program]!.steps.wasm.map((_, step) => {
      const start = performance.now();
      this.exports.step(run.program, step);
      return performance.now() - start;
    });
  }

  private write({ program, dims, inputs }: RunInputs): void {
    const { buffer } = this.memory;
    const extents = this.plan.dims.map(({ name }) => dims[name]!);
    setDims(this.memory, this.target, extents);
    this.plan.programs[program]!.inputs.forEach((port, i) => {
      new Uint8Array(buffer, this.plan.buffers[port.buffer]!.wasm!).set(inputs[i]!);
    });
  }

  get helpers(): Helpers | undefined {
    if (!this.workers.length) return undefined;
    const words = new Int32Array(this.memory.buffer as unknown as SharedArrayBuffer);
    return { words, call: CALL / 4 };
  }

  readonly weights: WeightSource = async (sink, signal) => {
    const { weights } = this.target.memory;
    const total = this.plan.weights.bytes;
    for (let offset = 0; offset < total && !signal.aborted; offset += PORTION) {
      const bytes = Math.min(PORTION, total - offset);
      sink.place(offset, new Uint8Array(this.memory.buffer, weights + offset, bytes));
      await new Promise((done) => setTimeout(done)); // runs that wait go first
    }
  };

  saveState(): State {
    const state = this.plan.buffers.flatMap((buffer, index) => {
      if (buffer.role !== "state") return [];
      const view = new Uint8Array(this.memory.buffer, buffer.wasm!, buffer.bytes);
      return [[index, view.slice() as Uint8Array<ArrayBuffer>] as const];
    });
    return new Map(state);
  }

  restoreState(state: State): void {
    for (const [index, bytes] of state)
      new Uint8Array(this.memory.buffer, this.plan.buffers[index]!.wasm!).set(bytes);
  }

  dispose(): void {
    this.exports.stop?.();
    stopAll(this.workers);
  }
}
