/** The WebGPU engine: buffers by slot, pipelines by kernel, a program is one compute pass. */
import type { Engine, State, WeightSource } from "./engine.js";
import { WebkilnError } from "./errors.js";
import { evaluate } from "./expression.js";
import { storedBytes } from "./feeds.js";
import { align, checked, openDevice, requestAdapter, usableShaders, write } from "./gpu-device.js";
import { buildFirst, makeLayouts, pack, prepare, type Ready } from "./gpu-programs.js";
import type { Plan, Shader, WebGPUTarget } from "./plan.js";
import type { RunInputs } from "./protocol.js";
import { StepTimer } from "./timing.js";

/** Steps of one submission while it is open whether the GPU is fast enough to go on. */
const CAUTIOUS = 8;

/**
 * Loads the model onto the GPU, the one `chosen` or the browser's first choice. Pipelines are compiled while weights arrive.
 * @throws WebkilnError "no-webgpu", "webgpu-limits", "webgpu-validation", "out-of-memory", "not-
 * found", and what `weights` throws.
 */
export async function openWebGPU(
  plan: Plan,
  base: URL,
  weights: WeightSource,
  chosen?: GPUAdapter,
): Promise<WebGPUModel> {
  const target = plan.webgpu;
  if (!target)
    throw new WebkilnError(
      "no-webgpu",
      "This bundle was built without WebGPU.",
      "Build with --targets webgpu,wasm.",
    );
  const adapter = chosen ?? (await requestAdapter());
  const shaders = usableShaders(target, adapter);
  const device = await openDevice(target, shaders, adapter);
  const stop = new AbortController();
  try {
    const [buffers, layouts] = await checked(
      device,
      async () => [allocate(device, target), makeLayouts(device, plan.kernels)] as const,
    );
    const building = buildFirst(device, shaders, plan, base, layouts, stop.signal);
    const place = (offset: number, bytes: Uint8Array): void =>
      placeWeights(device, target, buffers, offset, bytes);
    const placing = weights({ place }, stop.signal);
    const [{ shader, pipelines }] = await Promise.all([building, placing]);
    const programs = await checked(device, async () =>
      plan.programs.map((program) => prepare(device, plan, program, buffers, layouts)),
    );
    return new WebGPUModel(plan, adapter, shader, device, buffers, pipelines, programs);
  } catch (error) {
    stop.abort();
    device.destroy();
    throw error;
  }
}

function allocate(device: GPUDevice, { slots }: WebGPUTarget): GPUBuffer[] {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  return slots.map(({ bytes }, i) =>
    device.createBuffer({ label: `slot ${i}`, size: Math.max(4, align(bytes, 4)), usage }),
  );
}

/** Writes the part of the weight space that `bytes` is into every slot that holds some of it. */
function placeWeights(
  device: GPUDevice,
  { slots }: WebGPUTarget,
  buffers: readonly GPUBuffer[],
  offset: number,
  bytes: Uint8Array,
): void {
  slots.forEach((slot, i) => {
    if (slot.weights === null) return;
    const start = Math.max(offset, slot.weights);
    const end = Math.min(offset + bytes.length, slot.weights + slot.bytes);
    if (start >= end) return;
    write(device, buffers[i]!, start - slot.weights, bytes.subarray(start - offset, end - offset));
  });
}

export class WebGPUModel implements Engine {
  readonly device: Engine["device"];
  readonly fallbacks: readonly string[] = [];
  /** Why the device was lost, once it was and not by us. */
  lost: string | undefined;
  private disposed = false;

  constructor(
    private readonly plan: Plan,
    adapter: GPUAdapter,
    shader: Shader,
    private readonly gpu: GPUDevice,
    private readonly buffers: readonly GPUBuffer[],
    private readonly pipelines: readonly GPUComputePipeline[],
    private readonly programs: readonly Ready[],
  ) {
    const { description, vendor, architecture } = adapter.info;
    const name = description || [vendor, architecture].filter(Boolean).join(" ") || "unknown GPU";
    const half = shader.features.includes("shader-f16");
    this.device = { type: "webgpu", description: half ? `${name}, f16` : name, threads: 1 };
    void gpu.lost.then(({ message }) => {
      if (!this.disposed) this.lost = message || "no reason given";
    });
  }

  async run(run: RunInputs): Promise<ArrayBuffer[]> {
    const ready = this.programs[run.program]!;
    return this.guard(() => {
      this.write(ready, run);
      const encoder = this.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      ready.groups.forEach((_, step) => this.encode(pass, ready, step));
      pass.end();
      return this.read(ready, encoder, run);
    });
  }

  /**
   * Runs a program for the driver's sake, a few steps at a time, for as long as `goOn` says. True
   * if it came to its end.
   */
  async warmUp(run: RunInputs, goOn: () => boolean): Promise<boolean> {
    const ready = this.programs[run.program]!;
    await this.guard(async () => this.write(ready, run));
    for (let step = 0; step < ready.groups.length; step += CAUTIOUS) {
      await this.guard(() => {
        const encoder = this.gpu.createCommandEncoder();
        const pass = encoder.beginComputePass();
        ready.groups
          .slice(step, step + CAUTIOUS)
          .forEach((_, i) => this.encode(pass, ready, step + i));
        pass.end();
        this.gpu.queue.submit([encoder.finish()]);
        return this.gpu.queue.onSubmittedWorkDone();
      });
      if (!goOn()) return false;
    }
    return true;
  }

  /** Takes over what another engine's programs keep between runs. */
  restoreState(state: State): void {
    for (const [index, bytes] of state) {
      const { slot, offset } = this.plan.buffers[index]!.webgpu!;
      write(this.gpu, this.buffers[slot]!, offset, bytes);
    }
  }

  async profile(run: RunInputs): Promise<number[]> {
    const ready = this.programs[run.program]!;
    const timer = new StepTimer(this.gpu, ready.groups.length);
    try {
      return await this.guard(() => {
        this.write(ready, run);
        return timer.time((pass, step) => this.encode(pass, ready, step));
      });
    } finally {
      timer.dispose();
    }
  }

  dispose(): void {
    this.disposed = true;
    this.gpu.destroy();
  }

  /** Work that ends in a named error when the device is lost or refuses it. */
  private async guard<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await checked(this.gpu, work);
    } catch (error) {
      // A lost device makes calls fail in many ways, mostly before the loss itself is reported.
      const why = await Promise.race([
        this.gpu.lost.then(({ message }) => message || "no reason given"),
        new Promise<undefined>((done) => setTimeout(done, 50, undefined)),
      ]);
      if (why === undefined) throw error;
      this.lost = why;
      throw new WebkilnError("device-lost", `The GPU device was lost: ${why}.`, "Run again.", {
        cause: error,
      });
    }
  }

  private encode(
    pass: GPUComputePassEncoder,
    { plan, groups, workgroups }: Ready,
    step: number,
  ): void {
    const [x, y, z] = workgroups[step] as [number, number, number];
    if (x * y * z === 0) return;
    pass.setPipeline(this.pipelines[plan.steps.webgpu[step]!.kernel]!);
    pass.setBindGroup(0, groups[step]!);
    pass.dispatchWorkgroups(x, y, z);
  }

  private write(ready: Ready, { dims, inputs }: RunInputs): void {
    const key = JSON.stringify(dims);
    if (ready.dims !== key) {
      const steps = ready.plan.steps.webgpu;
      ready.workgroups = steps.map((step) => step.workgroups.map((size) => evaluate(size, dims)));
      if (ready.params) this.gpu.queue.writeBuffer(ready.params, 0, pack(ready, dims));
      ready.dims = key;
    }
    ready.plan.inputs.forEach((port, i) => {
      const { slot, offset } = this.plan.buffers[port.buffer]!.webgpu!;
      write(this.gpu, this.buffers[slot]!, offset, inputs[i]!);
    });
  }

  private async read(
    { plan, staging }: Ready,
    encoder: GPUCommandEncoder,
    { dims, outputs }: RunInputs,
  ): Promise<ArrayBuffer[]> {
    let at = 0;
    const places = outputs.map((index) => {
      const port = plan.outputs[index]!;
      const { slot, offset } = this.plan.buffers[port.buffer]!.webgpu!;
      const bytes = storedBytes(this.plan, port, dims);
      encoder.copyBufferToBuffer(this.buffers[slot]!, offset, staging, at, align(bytes, 4));
      const place = [at, bytes] as const;
      at += align(bytes, 8);
      return place;
    });
    this.gpu.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ, 0, Math.max(8, at));
    const mapped = staging.getMappedRange(0, Math.max(8, at));
    const values = places.map(([start, bytes]) => mapped.slice(start, start + bytes));
    staging.unmap();
    return values;
  }
}
