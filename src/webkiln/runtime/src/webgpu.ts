/** The WebGPU engine: buffers by slot, pipelines by kernel, a program is one compute pass. */
import type { Engine, WeightSource } from "./engine.js";
import { WebkilnError } from "./errors.js";
import { evaluate, type Dims } from "./expression.js";
import { storedBytes } from "./feeds.js";
import { get, versioned } from "./http.js";
import type { Kernel, Plan, PlanProgram, WebGPUTarget } from "./plan.js";
import { StepTimer } from "./timing.js";

/** Offsets of uniform bindings are multiples of this on every adapter. */
const ALIGN = 256;

const align = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/** A program made ready: a bind group a step, and a slice of the parameters' buffer each. */
interface Ready {
  readonly plan: PlanProgram;
  readonly groups: readonly GPUBindGroup[];
  readonly params: GPUBuffer | undefined;
  readonly staging: GPUBuffer;
  /** The dimensions that `params` and `workgroups` are for, as text. */
  dims: string;
  workgroups: readonly (readonly number[])[];
}

/**
 * Loads the model onto the GPU. Pipelines are compiled while weights arrive.
 * @throws WebkilnError "no-webgpu", "webgpu-limits", "webgpu-validation", "out-of-memory", "not-found", and what `weights`
 * throws.
 */
export async function openWebGPU(
  plan: Plan, base: URL, weights: WeightSource,
): Promise<WebGPUModel> {
  const target = plan.webgpu;
  if (!target) throw new WebkilnError("no-webgpu", "This bundle was built without WebGPU.", "Build with --targets webgpu,wasm.");
  const { adapter, device } = await openDevice(target);
  const stop = new AbortController();
  try {
    const [buffers, layouts] = await checked(device, async () =>
      [allocate(device, target), makeLayouts(device, plan.kernels)] as const);
    const building = buildPipelines(device, plan, base, layouts, stop.signal);
    const placing = weights((offset, bytes) => placeWeights(device, target, buffers, offset, bytes), stop.signal);
    const [pipelines] = await Promise.all([building, placing]);
    const programs = await checked(device, async () =>
      plan.programs.map((program) => prepare(device, plan, program, buffers, layouts)));
    return new WebGPUModel(plan, adapter, device, buffers, pipelines, programs);
  } catch (error) {
    stop.abort();
    device.destroy();
    throw error;
  }
}

async function openDevice(target: WebGPUTarget): Promise<{ adapter: GPUAdapter; device: GPUDevice }> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  if (!adapter) {
    const why = navigator.gpu ? "no GPU adapter is available" : "this browser, or this insecure page, has none";
    throw new WebkilnError("no-webgpu", `WebGPU can't be used: ${why}.`, 'Use device "auto" or "wasm".');
  }
  const limits = adapter.limits as unknown as Readonly<Record<string, number | undefined>>;
  const lacking = target.features.filter((name) => !adapter.features.has(name as GPUFeatureName));
  for (const [name, needed] of Object.entries(target.limits)) {
    if (needed > (limits[name] ?? 0)) lacking.push(`${name} ${needed} (it has ${limits[name] ?? "no such limit"})`);
  }
  if (lacking.length) {
    throw new WebkilnError("webgpu-limits", `This GPU lacks what the model needs: ${lacking.join(", ")}.`, 'Use device "auto" or "wasm".');
  }
  const features = [...target.features, "timestamp-query"].filter((name) => adapter.features.has(name as GPUFeatureName));
  try {
    const device = await adapter.requestDevice({
      requiredFeatures: features as GPUFeatureName[],
      requiredLimits: { ...target.limits },
    });
    return { adapter, device };
  } catch (cause) {
    throw new WebkilnError("no-webgpu", `The GPU refused a device: ${String(cause)}.`, 'Use device "auto" or "wasm".', { cause });
  }
}

/**
 * Runs `work` inside error scopes, so that what the browser refuses becomes a named error. The scopes cover what `work`
 * does before it first waits.
 */
async function checked<T>(device: GPUDevice, work: () => Promise<T>): Promise<T> {
  device.pushErrorScope("out-of-memory");
  device.pushErrorScope("validation");
  let result: T | undefined;
  // Scopes are a stack: they are closed before anything is awaited, or two of these would close each other's.
  const working = work();
  const [validation, memory] = [device.popErrorScope(), device.popErrorScope()];
  let failure: unknown;
  try {
    result = await working;
  } catch (error) {
    failure = error;
  }
  raise(await validation, await memory);
  if (failure) throw failure;
  return result as T;
}

function raise(validation: GPUError | null, memory: GPUError | null): void {
  if (memory) {
    throw new WebkilnError("out-of-memory", `The GPU has too little memory: ${memory.message}`, 'Use device "wasm", or build with --quantize.');
  }
  if (validation) throw new WebkilnError("webgpu-validation", `The browser refused the model's GPU work: ${validation.message}`);
}

function allocate(device: GPUDevice, { slots }: WebGPUTarget): GPUBuffer[] {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  return slots.map(({ bytes }, i) =>
    device.createBuffer({ label: `slot ${i}`, size: Math.max(4, align(bytes, 4)), usage }));
}

/** Writes the part of the weight space that `bytes` is into every slot that holds some of it. */
function placeWeights(
  device: GPUDevice, { slots }: WebGPUTarget, buffers: readonly GPUBuffer[], offset: number, bytes: Uint8Array<ArrayBuffer>,
): void {
  slots.forEach((slot, i) => {
    if (slot.weights === null) return;
    const start = Math.max(offset, slot.weights);
    const end = Math.min(offset + bytes.length, slot.weights + slot.bytes);
    if (start >= end) return;
    write(device, buffers[i]!, start - slot.weights, bytes.subarray(start - offset, end - offset));
  });
}

/** writeBuffer takes multiples of 4 bytes; buffers are that long too. */
function write(device: GPUDevice, buffer: GPUBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
  const rest = bytes.length % 4;
  const whole = bytes.length - rest;
  if (whole) device.queue.writeBuffer(buffer, offset, bytes, 0, whole);
  if (rest) {
    const last = new Uint8Array(4);
    last.set(bytes.subarray(whole));
    device.queue.writeBuffer(buffer, offset + whole, last);
  }
}

/** A bind group layout a kernel; kernels that access alike share it. */
function makeLayouts(device: GPUDevice, kernels: readonly Kernel[]): GPUBindGroupLayout[] {
  const known = new Map<string, GPUBindGroupLayout>();
  return kernels.map(({ access, params }) => {
    const types: GPUBufferBindingType[] = access.map((mode) => (mode === "read" ? "read-only-storage" : "storage"));
    if (params) types.push("uniform");
    const key = types.join();
    const layout = known.get(key) ?? device.createBindGroupLayout({
      entries: types.map((type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } })),
    });
    known.set(key, layout);
    return layout;
  });
}

async function buildPipelines(
  device: GPUDevice, plan: Plan, base: URL, layouts: readonly GPUBindGroupLayout[], signal: AbortSignal,
): Promise<GPUComputePipeline[]> {
  const code = await (await get(versioned(plan.webgpu!.shader, base), signal)).text();
  const module = device.createShaderModule({ code });
  const build = (kernel: Kernel, i: number): Promise<GPUComputePipeline> =>
    device.createComputePipelineAsync({
      label: kernel.name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layouts[i]!] }),
      compute: { module, entryPoint: kernel.name },
    });
  try {
    return await Promise.all(plan.kernels.map(build));
  } catch (cause) {
    const { messages } = await module.getCompilationInfo();
    const first = messages.find(({ type }) => type === "error");
    const what = first ? `line ${first.lineNum}: ${first.message}` : (cause as Error).message;
    throw new WebkilnError("webgpu-validation", `The browser refused the model's shader: ${what}`, 'Use device "wasm".', { cause });
  }
}

function prepare(
  device: GPUDevice, plan: Plan, program: PlanProgram, buffers: readonly GPUBuffer[], layouts: readonly GPUBindGroupLayout[],
): Ready {
  const sizes = program.steps.map(({ params }) => align(4 * params.length, ALIGN));
  const total = sizes.reduce((a, b) => a + b, 0);
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const params = total ? device.createBuffer({ label: "params", size: total, usage }) : undefined;
  let at = 0;
  const groups = program.steps.map((step, i) => {
    const resources: GPUBufferBinding[] = step.buffers.map((index) => {
      const { bytes, webgpu } = plan.buffers[index]!;
      return { buffer: buffers[webgpu!.slot]!, offset: webgpu!.offset, size: Math.max(4, align(bytes, 4)) };
    });
    if (sizes[i]) resources.push({ buffer: params!, offset: at, size: align(4 * step.params.length, 16) });
    at += sizes[i]!;
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    return device.createBindGroup({ label: step.label, layout: layouts[step.kernel]!, entries });
  });
  const read = program.outputs.reduce((sum, { buffer }) => sum + align(plan.buffers[buffer]!.bytes, 8), 0);
  const staging = device.createBuffer({
    label: "staging", size: Math.max(8, read), usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  return { plan: program, groups, params, staging, dims: "", workgroups: [] };
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
    private readonly gpu: GPUDevice,
    private readonly buffers: readonly GPUBuffer[],
    private readonly pipelines: readonly GPUComputePipeline[],
    private readonly programs: readonly Ready[],
  ) {
    const { description, vendor, architecture } = adapter.info;
    const name = description || [vendor, architecture].filter(Boolean).join(" ") || "unknown GPU";
    this.device = { type: "webgpu", description: name, threads: 1 };
    void gpu.lost.then(({ message }) => {
      if (!this.disposed) this.lost = message || "no reason given";
    });
  }

  async run(program: number, dims: Dims, inputs: readonly Uint8Array<ArrayBuffer>[]): Promise<ArrayBuffer[]> {
    const ready = this.programs[program]!;
    return this.guard(() => {
      this.write(ready, dims, inputs);
      const encoder = this.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      ready.groups.forEach((_, step) => this.encode(pass, ready, step));
      pass.end();
      return this.read(ready, encoder, dims);
    });
  }

  async profile(program: number, dims: Dims, inputs: readonly Uint8Array<ArrayBuffer>[]): Promise<number[]> {
    const ready = this.programs[program]!;
    const timer = new StepTimer(this.gpu, ready.groups.length);
    try {
      return await this.guard(() => {
        this.write(ready, dims, inputs);
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
      // What fails because the device is lost fails in many ways, and mostly before the loss itself is reported.
      const why = await Promise.race([
        this.gpu.lost.then(({ message }) => message || "no reason given"),
        new Promise<undefined>((done) => setTimeout(done, 50, undefined)),
      ]);
      if (why === undefined) throw error;
      this.lost = why;
      throw new WebkilnError("device-lost", `The GPU device was lost: ${why}.`, "Run again.", { cause: error });
    }
  }

  private encode(pass: GPUComputePassEncoder, { plan, groups, workgroups }: Ready, step: number): void {
    const [x, y, z] = workgroups[step] as [number, number, number];
    if (x * y * z === 0) return;
    pass.setPipeline(this.pipelines[plan.steps[step]!.kernel]!);
    pass.setBindGroup(0, groups[step]!);
    pass.dispatchWorkgroups(x, y, z);
  }

  private write(ready: Ready, dims: Dims, inputs: readonly Uint8Array<ArrayBuffer>[]): void {
    const key = JSON.stringify(dims);
    if (ready.dims !== key) {
      const { steps } = ready.plan;
      ready.workgroups = steps.map((step) => step.workgroups.map((size) => evaluate(size, dims)));
      if (ready.params) this.gpu.queue.writeBuffer(ready.params, 0, pack(ready, dims));
      ready.dims = key;
    }
    ready.plan.inputs.forEach((port, i) => {
      const { slot, offset } = this.plan.buffers[port.buffer]!.webgpu!;
      write(this.gpu, this.buffers[slot]!, offset, inputs[i]!);
    });
  }

  private async read({ plan, staging }: Ready, encoder: GPUCommandEncoder, dims: Dims): Promise<ArrayBuffer[]> {
    let at = 0;
    const places = plan.outputs.map((port) => {
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
    const outputs = places.map(([start, bytes]) => mapped.slice(start, start + bytes));
    staging.unmap();
    return outputs;
  }
}

/** The parameters of every step, each in its own slice. */
function pack({ plan, params }: Ready, dims: Dims): Int32Array<ArrayBuffer> {
  const values = new Int32Array(params!.size / 4);
  let at = 0;
  for (const step of plan.steps) {
    step.params.forEach((param, i) => { values[at + i] = evaluate(param, dims); });
    at += align(4 * step.params.length, ALIGN) / 4;
  }
  return values;
}
