/** The WebAssembly engine: one memory, one instance a thread, the whole step list inside wasm. */
import { relaxedSimd, simd, threads as sharedMemory } from "wasm-feature-detect";
import { reason, type Engine, type State, type WeightSource } from "./engine.js";
import { WebkilnError } from "./errors.js";
import { storedBytes } from "./feeds.js";
import { get, versioned } from "./http.js";
import { hasNarrowDot } from "./narrow-dot.js";
import { nextTask } from "./next-task.js";
import type { Plan, Variant, WasmTarget } from "./plan.js";
import type { WeightSink } from "./pieces.js";
import type { Helpers, RunInputs } from "./protocol.js";
import { Crew, instantiate, ThreadStartError, type Exports } from "./wasm-threads.js";

/** A word of the ABI (wasm_runtime.h), by its address: what helpers sleep on. */
const CALL = 512;

/** Weights go to another engine in portions of so many bytes, between which runs may happen. */
const PORTION = 8 << 20;

/** Weights that arrive within so many ms would only be held up. */
const WARM_UP_DELAY = 100;

/** Of a symbolic dimension, where code is only to become warm. */
const WARM_UP_EXTENT = 16;

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
 * Loads the best variant that runs here; `threads` is the most to use. `onThreads` is called when
 * helper threads that a first run did without have started, or have failed to.
 * @throws WebkilnError "no-wasm", "out-of-memory", "not-found", and what `weights` throws.
 */
export async function openWasm(
  plan: Plan,
  base: URL,
  weights: WeightSource,
  threads: number | undefined,
  onThreads: (failed: boolean) => void,
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
    return await openVariant(plan, target, variant, base, weights, wanted, fallbacks, onThreads);
  } catch (error) {
    if (!isThreaded(variant) || !plain || !(error instanceof ThreadStartError)) throw error;
    fallbacks.push(reason("WebAssembly threads", error));
    return openVariant(plan, target, plain, base, weights, 1, fallbacks, onThreads);
  }
}

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
  onThreads: (failed: boolean) => void,
): Promise<WasmEngine> {
  const threaded = isThreaded(variant);
  const count = threaded ? wanted : 1;
  const memory = allocate(target.memory.bytes, threaded);
  const stop = new AbortController();
  const compiling = compile(versioned(variant, base), stop.signal);
  const crew = new Crew(compiling, memory, target.memory.stacks);
  // A first run in code that was never used leaves a core to the engine's compiler. What it needs starts
  // while weights stream, so that nothing waits for it afterwards.
  const cores = navigator.hardwareConcurrency ?? Infinity;
  const starting = crew.grow(Math.min(count, Math.max(1, cores - 1)));
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
    await Promise.all([ready, warm && crew.grow(count)]);
    const described = (threads: number): Engine["device"] => describe(variant, threads);
    return new WasmModel(plan, target, exports, memory, crew, count, described, fallbacks, onThreads);
  } catch (error) {
    stop.abort();
    crew.stop();
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

function describe({ features }: Variant, threads: number): Engine["device"] {
  const parts = [`WebAssembly × ${threads} thread${threads > 1 ? "s" : ""}`];
  if (features.includes("relaxed-simd")) parts.push("SIMD relaxed");
  else if (features.includes("simd")) parts.push("SIMD");
  return { type: "wasm", description: parts.join(", "), threads };
}

class WasmModel implements WasmEngine {
  device: Engine["device"];
  /** From the end of the first run on: every helper has started, or none will any more. */
  private growing: Promise<void> | undefined;
  private readonly bytes: Uint8Array;

  constructor(
    private readonly plan: Plan,
    private readonly target: WasmTarget,
    private readonly exports: Exports,
    private readonly memory: WebAssembly.Memory,
    private readonly crew: Crew,
    threads: number,
    private readonly described: (threads: number) => Engine["device"],
    public fallbacks: readonly string[],
    private readonly onThreads: (failed: boolean) => void,
  ) {
    this.device = described(threads);
    this.bytes = new Uint8Array(memory.buffer);
  }

  async run(run: RunInputs): Promise<ArrayBuffer[]> {
    await this.growing;
    const { program, dims, outputs } = run;
    this.write(run);
    try {
      this.exports.run(program, this.crew.size);
      this.growing ??= this.grow();
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
      const at = this.plan.buffers[port.buffer]!.wasm!;
      return this.bytes.slice(at, at + storedBytes(this.plan, port, dims)).buffer as ArrayBuffer;
    });
  }

  /** Starts the helpers that the first run did without. */
  private async grow(): Promise<void> {
    if (this.crew.size === this.device.threads) return;
    await nextTask(); // to make a worker takes milliseconds, and the first answer goes before
    const failed = await this.crew.grow(this.device.threads).catch((error: unknown) => error);
    if (failed) {
      this.device = this.described(this.crew.size);
      this.fallbacks = [...this.fallbacks, reason("WebAssembly threads", failed)];
    }
    this.onThreads(Boolean(failed));
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
    const extents = this.plan.dims.map(({ name }) => dims[name]!);
    setDims(this.memory, this.target, extents);
    this.plan.programs[program]!.inputs.forEach((port, i) => {
      this.bytes.set(inputs[i]!, this.plan.buffers[port.buffer]!.wasm!);
    });
  }

  get helpers(): Helpers | undefined {
    if (this.crew.size === 1) return undefined;
    const words = new Int32Array(this.memory.buffer as unknown as SharedArrayBuffer);
    return { words, call: CALL / 4 };
  }

  readonly weights: WeightSource = async (sink, signal) => {
    const { weights } = this.target.memory;
    const total = this.plan.weights.bytes;
    for (let offset = 0; offset < total && !signal.aborted; offset += PORTION) {
      const bytes = Math.min(PORTION, total - offset);
      sink.place(offset, this.bytes.subarray(weights + offset, weights + offset + bytes));
      await new Promise((done) => setTimeout(done)); // runs that wait go first
    }
  };

  saveState(): State {
    const state = this.plan.buffers.flatMap((buffer, index) => {
      if (buffer.role !== "state") return [];
      const copy = this.bytes.slice(buffer.wasm!, buffer.wasm! + buffer.bytes);
      return [[index, copy as Uint8Array<ArrayBuffer>] as const];
    });
    return new Map(state);
  }

  restoreState(state: State): void {
    for (const [index, bytes] of state) this.bytes.set(bytes, this.plan.buffers[index]!.wasm!);
  }

  dispose(): void {
    this.exports.stop?.();
    this.crew.stop();
  }
}
