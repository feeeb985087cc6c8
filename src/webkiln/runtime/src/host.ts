/**
 * Chooses the device, holds the engine, and brings it back when it failed. Lives in the inference
 * worker.
 */
import { faster, measure, median, patience, type Verdict } from "./compare.js";
import { reason, type Engine, type WeightSource } from "./engine.js";
import { WebkilnError, type WebkilnErrorCode } from "./errors.js";
import { storedBytes } from "./feeds.js";
import { identify, requestAdapter } from "./gpu-device.js";
import type { ModelState, Timings, WeightStorage } from "./model.js";
import { nextTask } from "./next-task.js";
import { neededFirst } from "./plan.js";
import {
  SMALL,
  type AskedInput,
  type AskedRuns,
  type FromWorker,
  type Loaded,
  type LoadRequest,
  type RunInputs,
} from "./protocol.js";
import type { Rest } from "./rest.js";
import { streamWeights } from "./shards.js";
import { openWasm, type WasmEngine } from "./wasm.js";
import { openWebGPU, type WebGPUModel } from "./webgpu.js";

/** Progress is posted at most this often, in ms. */
const INTERVAL = 30;
/** What can wait does while runs follow one another within so many ms, as an answer's do; so long at most. */
const PAUSE = 250;
const LONGEST_PAUSE = 5000;
/** Between runs that were asked for together nothing is heard from the page for so many ms. */
const DEAF = 100;
const PROFILE_RUNS = 5;

/** What another device may do better at. A missing shard, say, is missing for all of them. */
const DEVICE_PROBLEMS: ReadonlySet<WebkilnErrorCode> = new Set([
  "no-wasm",
  "no-webgpu",
  "webgpu-limits",
  "webgpu-validation",
  "device-lost",
  "out-of-memory",
]);

/** Does `work` when no run is under way; runs that come meanwhile wait for it. */
export type Queue = <T>(work: () => Promise<T>) => Promise<T>;

export class Host {
  private engine: Engine | undefined;
  /** The engine, while it is the one that "auto" starts with. */
  private wasm: WasmEngine | undefined;
  /** Weights of the engine that may still be on their way. */
  private rest: Rest | undefined;
  private fallbacks: string[] = [];
  private timings: Timings = {};
  private comparing = false;
  /** Milliseconds spent in runs so far. */
  private busy = 0;
  /** When the last one ended. */
  private ran = -Infinity;
  /** The latest run and its outputs. */
  private latest: { readonly run: RunInputs; readonly outputs: readonly ArrayBuffer[] } | undefined;
  private readonly base: URL;

  constructor(
    private readonly request: LoadRequest,
    private readonly queue: Queue,
    private readonly post: (message: FromWorker) => void,
  ) {
    this.base = new URL(request.base);
  }

  /** Loads the model onto the device asked for. @throws WebkilnError whatever prevents it. */
  async load(): Promise<Loaded> {
    const { device } = this.request;
    let undecided = false;
    if (device === "webgpu") this.engine = await this.openGPU();
    else if (device === "wasm") this.engine = await this.openWasm();
    else undecided = await this.openFirst();
    const total = this.neededBytes();
    this.post({ progress: { phase: "ready", loaded: total, total } });
    return { state: this.state(), undecided };
  }

  /** The outputs of each run. Those that have not begun never will once they are `cancelled`. */
  async run(asked: AskedRuns, cancelled: () => boolean): Promise<ArrayBuffer[][]> {
    const { program, dims, own, outputs } = asked;
    const inputs = [...asked.inputs];
    const all: ArrayBuffer[][] = [];
    let heard = performance.now();
    for (const turn of [[], ...asked.turns]) {
      if (performance.now() - heard > DEAF) {
        await nextTask();
        heard = performance.now();
      }
      if (cancelled()) break;
      turn.forEach((input, i) => (inputs[own[i]!] = input));
      all.push(await this.runOne({ program, dims, inputs: this.known(asked, inputs), outputs }));
    }
    return all;
  }

  private async runOne(run: RunInputs): Promise<ArrayBuffer[]> {
    const start = performance.now();
    this.latest = undefined;
    try {
      const outputs = await this.outputs(run);
      this.latest = { run, outputs };
      return outputs;
    } finally {
      this.ran = performance.now();
      this.busy += this.ran - start;
    }
  }

  private async outputs(run: RunInputs): Promise<ArrayBuffer[]> {
    const attempt = async (): Promise<ArrayBuffer[]> => {
      const engine = await this.opened();
      await this.rest?.forRun(this.request.plan, run);
      return await engine.run(run);
    };
    try {
      return await attempt();
    } catch (error) {
      await this.recover(error);
      return await attempt();
    }
  }

  /** The inputs with what they take from the run before. */
  private known({ program, dims }: AskedRuns, inputs: readonly AskedInput[]): RunInputs["inputs"] {
    const { plan } = this.request;
    return inputs.map((input, i) => {
      if (!("carried" in input)) return input;
      const found = this.output(input.carried);
      const wanted = storedBytes(plan, plan.programs[program]!.inputs[i]!, dims);
      if (found?.byteLength === wanted) return new Uint8Array(found);
      throw new WebkilnError(
        "option-invalid",
        `The run before gave no "${input.carried}" of ${wanted} bytes that could be carried over.`,
        `Ask that run for it; outputs of up to ${SMALL} bytes are kept.`,
      );
    });
  }

  /** A small output of the latest run. */
  private output(name: string): ArrayBuffer | undefined {
    if (!this.latest) return undefined;
    const { run, outputs } = this.latest;
    const ports = this.request.plan.programs[run.program]!.outputs;
    return outputs.find((found, i) => ports[run.outputs[i]!]!.name === name && found.byteLength <= SMALL);
  }

  /** Resolves in a pause between runs, or when there was none for long. */
  private async pause(): Promise<void> {
    const end = performance.now() + LONGEST_PAUSE;
    while (performance.now() < Math.min(this.ran + PAUSE, end)) {
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  }

  /** Median milliseconds of every step over some runs. */
  async profile(run: RunInputs): Promise<number[]> {
    const engine = await this.opened();
    await this.rest?.forRun(this.request.plan, run);
    const runs: number[][] = [];
    for (let i = 0; i < PROFILE_RUNS; i++) runs.push(await engine.profile(run));
    return runs[0]!.map((_, step) => median(runs.map((times) => times[step]!)));
  }

  /**
   * Times WebGPU against WebAssembly, which goes on serving runs, and moves the model if that is
   * faster. Undefined when there is nothing new to find out. Not to be called in the queue.
   */
  async compare(sample: RunInputs): Promise<Verdict | undefined> {
    // WebGPU gets the weights from here.
    const complete = await (this.rest?.complete ?? Promise.resolve()).then(() => true, () => false);
    // Nothing that fails here may trouble the model, which runs.
    const attempt = <T>(work: () => Promise<T>): Promise<T | undefined> =>
      this.attempt(work, () => true);
    const adapter = complete ? await attempt(requestAdapter) : undefined;
    const verdict =
      adapter && identify(adapter) !== this.request.verdict?.adapter
        ? await attempt(() => this.contest(adapter, sample))
        : undefined;
    this.comparing = false;
    this.announce();
    return verdict;
  }

  private async contest(adapter: GPUAdapter, sample: RunInputs): Promise<Verdict> {
    this.comparing = true;
    this.announce();
    const wasm = await this.timeWasm(sample);
    const { plan } = this.request;
    const gpu = await openWebGPU(plan, this.base, this.wasm!.weights, adapter);
    try {
      this.timings = { wasm, webgpu: await this.timeGPU(gpu, sample, wasm) };
    } catch (error) {
      gpu.dispose();
      throw error;
    }
    const device = faster(this.timings);
    if (device === "webgpu") await this.moveTo(gpu);
    else gpu.dispose();
    return { device, adapter: identify(adapter), timings: this.timings };
  }

  private async timeWasm(sample: RunInputs): Promise<number> {
    const once = (): Promise<number> =>
      this.queue(async () => {
        await this.opened();
        // The sample must leave no trace in a model that remembers.
        const state = this.wasm!.saveState();
        const ms = await time(this.wasm!, sample);
        this.wasm!.restoreState(state);
        return ms;
      });
    await once(); // optimised code arrives with use
    return measure(once);
  }

  /** The first run, which may be long, lets others pass; those that count have the queue alone. */
  private async timeGPU(gpu: WebGPUModel, sample: RunInputs, rival: number): Promise<number> {
    const [start, busy] = [performance.now(), this.busy];
    const spent = (): number => performance.now() - start - (this.busy - busy);
    const finished = await gpu.warmUp(sample, () => spent() < patience(rival));
    if (!finished) return spent();
    return measure(() => this.queue(() => time(gpu, sample)), rival);
  }

  private moveTo(gpu: WebGPUModel): Promise<void> {
    return this.queue(async () => {
      await this.opened();
      gpu.restoreState(this.wasm!.saveState());
      this.engine!.dispose();
      this.engine = gpu;
      this.wasm = undefined;
      this.post({ helpers: undefined });
    });
  }

  private state(): ModelState {
    return {
      device: this.engine!.device,
      fallbacks: [...this.fallbacks, ...this.engine!.fallbacks],
      timings: this.timings,
      comparing: this.comparing,
    };
  }

  private announce(): void {
    if (this.engine) this.post({ state: this.state() });
  }

  private openGPU(adapter?: GPUAdapter): Promise<WebGPUModel> {
    return openWebGPU(this.request.plan, this.base, this.network(), adapter);
  }

  private async openWasm(): Promise<WasmEngine> {
    const { plan, threads } = this.request;
    const onThreads = (failed: boolean): void => {
      this.post({ helpers: this.wasm?.helpers });
      if (failed) this.announce();
    };
    this.wasm = await openWasm(plan, this.base, this.network(), threads, onThreads);
    this.post({ helpers: this.wasm.helpers });
    return this.wasm;
  }

  /** The engine, which a failed run may have left to be opened again. */
  private async opened(): Promise<Engine> {
    return (this.engine ??= await this.openWasm());
  }

  /** Opens what "auto" starts on. True if WebGPU is still to be tried. */
  private async openFirst(): Promise<boolean> {
    const { plan, verdict } = this.request;
    if (!plan.wasm) {
      this.engine = await this.openGPU();
      return false;
    }
    if (verdict?.device === "webgpu") {
      this.engine = await this.attempt(async () => {
        const adapter = await requestAdapter();
        return identify(adapter) === verdict.adapter ? this.openGPU(adapter) : undefined;
      });
      if (this.engine) this.timings = verdict.timings;
      if (this.engine) return false;
    }
    const tried = this.fallbacks.length > 0;
    try {
      this.engine = await this.openWasm();
    } catch (error) {
      if (!plan.webgpu || tried || !isDeviceProblem(error)) throw error;
      this.engine = await this.attempt(() => this.openGPU());
      if (!this.engine) throw error;
      this.fallbacks = [reason("WebAssembly", error)];
      return false;
    }
    if (verdict?.device === "wasm") this.timings = verdict.timings;
    // Whether there is an adapter takes the browser a while to say, but without the API it's clear.
    if (plan.webgpu && !navigator.gpu) await this.attempt(requestAdapter);
    return Boolean(plan.webgpu && navigator.gpu && !tried);
  }

  /** Undefined, and a reason in `fallbacks`, where WebGPU fails. */
  private async attempt<T>(
    work: () => Promise<T>,
    tolerable: (error: unknown) => boolean = isDeviceProblem,
  ): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!tolerable(error)) throw error;
      this.fallbacks.push(reason("WebGPU", error));
      return undefined;
    }
  }

  /**
   * After a failed run. A lost GPU device is opened again, or the model goes on in wasm; programs
   * that keep state lost it, so their caller hears of the loss all the same. What is left of a
   * trapped wasm instance is not to be trusted: it is opened anew while the caller hears of it.
   */
  private async recover(error: unknown): Promise<void> {
    const code = error instanceof WebkilnError ? error.code : undefined;
    if (code === "run-failed") {
      this.engine!.dispose();
      this.engine = undefined;
      void this.queue(() => this.opened()).catch(() => undefined);
    }
    if (code !== "device-lost") throw error;
    const { plan } = this.request;
    this.engine!.dispose();
    const gpu = await this.attempt(() => this.openGPU());
    if (gpu) {
      this.engine = gpu;
    } else if (plan.wasm && this.request.device === "auto") {
      this.engine = await this.openWasm();
    } else {
      throw error;
    }
    this.announce();
    if (plan.buffers.some(({ role }) => role === "state")) throw error;
  }

  /** The weights from the network or the cache, with progress. */
  private network(): WeightSource {
    const { plan } = this.request;
    const total = this.neededBytes();
    const report = (phase: "weights" | "compile", loaded: number): void =>
      this.post({ progress: { phase, loaded, total } });
    return async (sink, signal) => {
      this.rest?.stop();
      let loaded = 0;
      let last = -Infinity;
      report("weights", loaded);
      const onBytes = (bytes: number): void => {
        loaded += bytes;
        if (performance.now() - last < INTERVAL) return;
        last = performance.now();
        report("weights", loaded);
      };
      const onStorage = (storage: WeightStorage): void => this.post({ storage });
      const pause = (): Promise<void> => this.pause();
      const listener = { onBytes, onStorage, pause };
      this.rest = await streamWeights(plan.weights, this.base, sink, listener, signal);
      last = Infinity; // the rest is no part of loading
      report("compile", total);
    };
  }

  /** Bytes of weights that are here before the first run. */
  private neededBytes(): number {
    const { shards } = this.request.plan.weights;
    return neededFirst(shards).reduce((sum, { bytes }) => sum + bytes, 0);
  }
}

function isDeviceProblem(error: unknown): boolean {
  return error instanceof WebkilnError && DEVICE_PROBLEMS.has(error.code);
}

/** Milliseconds of one run. */
async function time(engine: Engine, run: RunInputs): Promise<number> {
  const start = performance.now();
  await engine.run(run);
  return performance.now() - start;
}
