/** What a program needs on the GPU: layouts and pipelines by kernel, bind groups by step. */
import { WebkilnError } from "./errors.js";
import { evaluate, type Dims } from "./expression.js";
import { align } from "./gpu-device.js";
import { get, versioned } from "./http.js";
import type { Kernel, Plan, PlanProgram, Shader } from "./plan.js";

/** Offsets of uniform bindings are multiples of this on every adapter. */
const ALIGN = 256;

/** A program made ready: a bind group a step, and a slice of the parameters' buffer each. */
export interface Ready {
  readonly plan: PlanProgram;
  readonly groups: readonly GPUBindGroup[];
  readonly params: GPUBuffer | undefined;
  readonly staging: GPUBuffer;
  /** The dimensions that `params` and `workgroups` are for, as text. */
  dims: string;
  workgroups: readonly (readonly number[])[];
}

/** A bind group layout a kernel; kernels that access alike share it. */
export function makeLayouts(device: GPUDevice, kernels: readonly Kernel[]): GPUBindGroupLayout[] {
  const known = new Map<string, GPUBindGroupLayout>();
  return kernels.map(({ access, params }) => {
    const types: GPUBufferBindingType[] = access.map((mode) =>
      mode === "read" ? "read-only-storage" : "storage",
    );
    if (params) types.push("uniform");
    const key = types.join();
    const layout =
      known.get(key) ??
      device.createBindGroupLayout({
        entries: types.map((type, binding) => ({
          binding,
          visibility: GPUShaderStage.COMPUTE,
          buffer: { type },
        })),
      });
    known.set(key, layout);
    return layout;
  });
}

/**
 * Compiles every kernel of a shader, all at once.
 * @throws WebkilnError "webgpu-validation", "not-found".
 */
async function buildPipelines(
  device: GPUDevice,
  shader: Shader,
  plan: Plan,
  base: URL,
  layouts: readonly GPUBindGroupLayout[],
  signal: AbortSignal,
): Promise<GPUComputePipeline[]> {
  const code = await (await get(versioned(shader, base), signal)).text();
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
    throw new WebkilnError(
      "webgpu-validation",
      `The browser refused the model's shader: ${what}`,
      'Use device "wasm".',
      { cause },
    );
  }
}

/**
 * The pipelines of the first of `shaders` that the browser takes: drivers may refuse what their
 * features promise.
 * @throws WebkilnError "webgpu-validation" when it refuses them all, "not-found", "network".
 */
export async function buildFirst(
  device: GPUDevice,
  [shader, ...others]: readonly Shader[],
  plan: Plan,
  base: URL,
  layouts: readonly GPUBindGroupLayout[],
  signal: AbortSignal,
): Promise<{ shader: Shader; pipelines: GPUComputePipeline[] }> {
  try {
    const pipelines = await buildPipelines(device, shader!, plan, base, layouts, signal);
    return { shader: shader!, pipelines };
  } catch (error) {
    const refused = error instanceof WebkilnError && error.code === "webgpu-validation";
    if (!refused || !others.length) throw error;
    return buildFirst(device, others, plan, base, layouts, signal);
  }
}

/** Makes the bind groups of a program, and the buffers for its parameters and outputs. */
export function prepare(
  device: GPUDevice,
  plan: Plan,
  program: PlanProgram,
  buffers: readonly GPUBuffer[],
  layouts: readonly GPUBindGroupLayout[],
): Ready {
  const sizes = program.steps.webgpu.map(({ params }) => align(4 * params.length, ALIGN));
  const total = sizes.reduce((a, b) => a + b, 0);
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const params = total ? device.createBuffer({ label: "params", size: total, usage }) : undefined;
  let at = 0;
  const groups = program.steps.webgpu.map((step, i) => {
    const resources: GPUBufferBinding[] = step.buffers.map((index) => {
      const { bytes, webgpu } = plan.buffers[index]!;
      return {
        buffer: buffers[webgpu!.slot]!,
        offset: webgpu!.offset,
        size: Math.max(4, align(bytes, 4)),
      };
    });
    if (sizes[i])
      resources.push({ buffer: params!, offset: at, size: align(4 * step.params.length, 16) });
    at += sizes[i]!;
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    return device.createBindGroup({ label: step.label, layout: layouts[step.kernel]!, entries });
  });
  const read = program.outputs.reduce(
    (sum, { buffer }) => sum + align(plan.buffers[buffer]!.bytes, 8),
    0,
  );
  const staging = device.createBuffer({
    label: "staging",
    size: Math.max(8, read),
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  return { plan: program, groups, params, staging, dims: "", workgroups: [] };
}

/** The parameters of every step, each in its own slice. */
export function pack({ plan, params }: Ready, dims: Dims): Int32Array<ArrayBuffer> {
  const values = new Int32Array(params!.size / 4);
  let at = 0;
  for (const step of plan.steps.webgpu) {
    step.params.forEach((param, i) => {
      values[at + i] = evaluate(param, dims);
    });
    at += align(4 * step.params.length, ALIGN) / 4;
  }
  return values;
}
