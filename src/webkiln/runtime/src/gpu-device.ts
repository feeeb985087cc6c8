/** Getting a GPU device, and turning what the browser refuses into named errors. */
import { WebkilnError } from "./errors.js";
import type { Shader, WebGPUTarget } from "./plan.js";

export const align = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/** @throws WebkilnError "no-webgpu". */
export async function requestAdapter(): Promise<GPUAdapter> {
  const adapter = await navigator.gpu
    ?.requestAdapter({ powerPreference: "high-performance" })
    .catch(() => null);
  if (adapter) return adapter;
  const why = navigator.gpu
    ? "no GPU adapter is available"
    : "this browser, or this insecure page, has none";
  throw new WebkilnError(
    "no-webgpu",
    `WebGPU can't be used: ${why}.`,
    'Use device "auto" or "wasm".',
  );
}

/** Tells a GPU from another one; as much as the browser lets on. */
export function identify({ info }: GPUAdapter): string {
  return [info.vendor, info.architecture, info.device, info.description].join("/");
}

/** What `adapter` lacks for a variant of the target. */
function lacking(target: WebGPUTarget, variant: Shader, adapter: GPUAdapter): string[] {
  const limits = adapter.limits as unknown as Readonly<Record<string, number | undefined>>;
  const needed = Object.entries({ ...target.limits, ...variant.limits });
  return [
    ...variant.features.filter((name) => !adapter.features.has(name)),
    ...needed
      .filter(([name, least]) => least > (limits[name] ?? 0))
      .map(([name, least]) => `${name} ${least} (it has ${limits[name] ?? "no such limit"})`),
  ];
}

/**
 * The variants that the adapter can run, best first; at least one.
 * @throws WebkilnError "webgpu-limits", naming what it lacks for the last, which needs least.
 */
export function usableShaders(target: WebGPUTarget, adapter: GPUAdapter): readonly Shader[] {
  const found = target.variants.filter((variant) => !lacking(target, variant, adapter).length);
  if (found.length) return found;
  throw new WebkilnError(
    "webgpu-limits",
    `This GPU lacks what the model needs: ${lacking(target, target.variants.at(-1)!, adapter).join(", ")}.`,
    'Use device "auto" or "wasm".',
  );
}

/**
 * A device with the features and limits that any of the variants needs.
 * @throws WebkilnError "no-webgpu".
 */
export async function openDevice(
  target: WebGPUTarget,
  variants: readonly Shader[],
  adapter: GPUAdapter,
): Promise<GPUDevice> {
  const needed = new Set(variants.flatMap(({ features }) => features));
  const features = [...needed, "timestamp-query"].filter((name) => adapter.features.has(name));
  const limits = { ...target.limits };
  for (const [name, least] of variants.flatMap((variant) => Object.entries(variant.limits)))
    limits[name] = Math.max(least, limits[name] ?? 0);
  try {
    return await adapter.requestDevice({
      requiredFeatures: features as GPUFeatureName[],
      requiredLimits: limits,
    });
  } catch (cause) {
    throw new WebkilnError(
      "no-webgpu",
      `The GPU refused a device: ${String(cause)}.`,
      'Use device "auto" or "wasm".',
      { cause },
    );
  }
}

/**
 * Runs `work` inside error scopes, so that what the browser refuses becomes a named error. The
 * scopes cover what `work` does before it first waits.
 */
export async function checked<T>(device: GPUDevice, work: () => Promise<T>): Promise<T> {
  device.pushErrorScope("out-of-memory");
  device.pushErrorScope("validation");
  let result: T | undefined;
  // Scopes are a stack: closed before anything is awaited, or calls would close each other's.
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
    throw new WebkilnError(
      "out-of-memory",
      `The GPU has too little memory: ${memory.message}`,
      'Use device "wasm", or build with --quantize.',
    );
  }
  if (validation)
    throw new WebkilnError(
      "webgpu-validation",
      `The browser refused the model's GPU work: ${validation.message}`,
    );
}

/** writeBuffer takes multiples of 4 bytes; buffers are that long too. */
export function write(
  device: GPUDevice,
  buffer: GPUBuffer,
  offset: number,
  data: Uint8Array,
): void {
  const bytes = data as Uint8Array<ArrayBuffer>; // shared memory will do, whatever its type says
  const rest = bytes.length % 4;
  const whole = bytes.length - rest;
  if (whole) device.queue.writeBuffer(buffer, offset, bytes, 0, whole);
  if (rest) {
    const last = new Uint8Array(4);
    last.set(bytes.subarray(whole));
    device.queue.writeBuffer(buffer, offset + whole, last);
  }
}
