/**
 * Chooses the device, holds the engine, and brings it back when a GPU is lost. Lives in the
 * inference worker.
 */
import { reason, type Engine, type WeightSource } from "./engine.js";
import { WebkilnError, type WebkilnErrorCode } from "./errors.js";
import type { Progress, Timings } from "./model.js";
import type { Loaded, LoadRequest, RunInputs } from "./protocol.js";
import { streamWeights } from "./shards.js";
import { openWasm, type WasmEngine } from "./wasm.js";
import { openWebGPU } from "./webgpu.js";

/** Progress is posted at most this often, in ms. */
const INTERVAL = 30;
const PROFILE_RUNS = 5;

/** What another device may do better at. A missing shard, say, is missing for all of them. */
const DEVICE_PROBLEMS: ReadonlySet<WebkilnErrorCode> = new Set([
  "no-webgpu",
  "webgpu-limits",
  "webgpu-validation",
  "device-lost",
  "out-of-memory",
]);

export class Host {
  private engine: Engine | undefined;
  private fallbacks: string[] = [];
  private timings: Timings = {};
  private readonly base: URL;

  constructor(
    private readonly request: LoadRequest,
    private readonly report: (progress: Progress) => void,
    private readonly moved: (loaded: Loaded) => void,
  ) {
    this.base = new URL(request.base);
  }

  /** Loads the model onto the device asked for. @throws WebkilnError whatever prevents it. */
  async load(): Promise<Loaded> {
    const { device } = this.request;
    if (device === "webgpu")
      this.engine = await openWebGPU(this.request.plan, this.base, this.network());
    else if (device === "wasm") this.engine = await this.openWasm();
    else this.engine = await this.openBest();
    const total = this.request.plan.weights.bytes;
    this.report({ phase: "ready", loaded: total, total });
    return this.state();
  }

  async run({ program, dims, inputs }: RunInputs): Promise<ArrayBuffer[]> {
    try {
      return await this.engine!.run(program, dims, inputs);
    } catch (error) {
      await this.recover(error);
      return this.engine!.run(program, dims, inputs);
    }
  }

  /** Median milliseconds of every step over some runs. */
  async profile({ program, dims, inputs }: RunInputs): Promise<number[]> {
    const runs: number[][] = [];
    for (let i = 0; i < PROFILE_RUNS; i++)
      runs.push(await this.engine!.profile(program, dims, inputs));
    return runs[0]!.map((_, step) => median(runs.map((run) => run[step]!)));
  }

  private state(): Loaded {
    return {
      device: this.engine!.device,
      fallbacks: [...this.fallbacks, ...this.engine!.fallbacks],
      timings: this.timings,
    };
  }

  private openWasm(): Promise<WasmEngine> {
    return openWasm(this.request.plan, this.base, this.network(), this.request.threads);
  }

  /** Both devices, timed on the sample; whatever fails on one is a reason to keep the other. */
  private async openBest(): Promise<Engine> {
    const { plan, prefer, sample } = this.request;
    if (!plan.wasm) return openWebGPU(plan, this.base, this.network());
    if (prefer === "wasm") return this.openWasm();
    if (!sample) {
      const gpu = await this.attempt(() => openWebGPU(plan, this.base, this.network()));
      return gpu ?? this.openWasm();
    }
    const wasm = await this.openWasm();
    const total = plan.weights.bytes;
    this.report({ phase: "compare", loaded: total, total });
    // The weights are here already: they go to the GPU from wasm's memory.
    const gpu = await this.attempt(() => openWebGPU(plan, this.base, wasm.weights));
    if (!gpu) return wasm;
    const wasmTime = await time(wasm, sample, Infinity);
    const gpuTime = await this.attempt(() => time(gpu, sample, wasmTime));
    if (gpuTime !== undefined) this.timings = { wasm: wasmTime, webgpu: gpuTime };
    const [faster, slower] =
      gpuTime !== undefined && gpuTime < wasmTime ? [gpu, wasm] : [wasm, gpu];
    slower.dispose();
    return faster;
  }

  private async attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof WebkilnError && DEVICE_PROBLEMS.has(error.code))) throw error;
      this.fallbacks.push(reason("WebGPU", error));
      return undefined;
    }
  }

  /**
   * After a lost GPU device: opens it again, or goes on in wasm. Programs that keep state lost it,
   * so their caller hears of the loss all the same.
   */
  private async recover(error: unknown): Promise<void> {
    if (!(error instanceof WebkilnError) || error.code !== "device-lost") throw error;
    const { plan } = this.request;
    this.engine!.dispose();
    const gpu = await this.attempt(() => openWebGPU(plan, this.base, this.network()));
    if (gpu) {
      this.fallbacks.pop();
      this.engine = gpu;
    } else if (plan.wasm && this.request.device === "auto") {
      this.engine = await this.openWasm();
    } else {
      throw error;
    }
    this.moved(this.state());
    if (plan.buffers.some(({ role }) => role === "state")) throw error;
  }

  /** The weights from the network or the cache, with progress. */
  private network(): WeightSource {
    const { plan } = this.request;
    const total = plan.weights.bytes;
    return async (sink, signal) => {
      let loaded = 0;
      let last = -Infinity;
      this.report({ phase: "weights", loaded, total });
      await streamWeights(
        plan.weights,
        this.base,
        sink,
        (count) => {
          loaded += count;
          if (performance.now() - last < INTERVAL) return;
          last = performance.now();
          this.report({ phase: "weights", loaded, total });
        },
        signal,
      );
      this.report({ phase: "compile", loaded: total, total });
    };
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}

/**
 * Median milliseconds of a run. One that takes over three times as long as `rival` has lost, and is
 * not tried further.
 */
async function time(
  engine: Engine,
  { program, dims, inputs }: RunInputs,
  rival: number,
): Promise<number> {
  const once = async (): Promise<number> => {
    const start = performance.now();
    await engine.run(program, dims, inputs);
    return performance.now() - start;
  };
  // The first runs compile: wasm's optimised code and a GPU driver's pipelines arrive with use.
  await once();
  const second = await once();
  if (second > 3 * rival) return second;
  return median([second, await once(), await once()]);
}
