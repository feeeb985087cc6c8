/** Golden samples: inputs and reference outputs made at build time, replayed here. */
import { get } from "./http.js";
import type { OutputCheck } from "./model.js";
import type { Golden, GoldenTensor } from "./plan.js";
import { elements, Tensor, viewAs } from "./tensor.js";

/** Reads a file of samples by name; each file is downloaded once. */
export type GoldenFile = (name: string) => Promise<ArrayBuffer>;

export function goldenReader(base: URL, planHash: string): GoldenFile {
  const files = new Map<string, Promise<ArrayBuffer>>();
  return (name) => {
    const file =
      files.get(name) ??
      get(new URL(`${name}?${planHash}`, base)).then((response) => response.arrayBuffer());
    files.set(name, file);
    file.catch(() => files.delete(name));
    return file;
  };
}

export function goldenTensors(
  file: ArrayBuffer,
  entries: Readonly<Record<string, GoldenTensor>>,
): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(entries).map(([name, { offset, shape, dtype }]) => [
      name,
      new Tensor(dtype, viewAs(dtype, file, offset, elements(shape)), shape),
    ]),
  );
}

type Comparison = Pick<OutputCheck, "maxAbsError" | "maxRelError" | "ok">;

/** Compares an output with its reference. Two NaNs, or two equal infinities, agree. */
export function compare(
  actual: Tensor | undefined,
  wanted: Tensor,
  { rtol, atol }: Pick<Golden, "rtol" | "atol">,
): Comparison {
  if (!actual || actual.shape.join() !== wanted.shape.join()) {
    return { maxAbsError: Infinity, maxRelError: Infinity, ok: false };
  }
  let [maxAbsError, maxRelError, ok] = [0, 0, true];
  const [a, b] = [actual.toFloat32(), wanted.toFloat32()];
  for (let i = 0; i < b.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (Object.is(x, y) || x === y) continue;
    const error = Number.isNaN(x - y) ? Infinity : Math.abs(x - y);
    maxAbsError = Math.max(maxAbsError, error);
    if (Math.abs(y) > atol) maxRelError = Math.max(maxRelError, error / Math.abs(y));
    if (!(error <= atol + rtol * Math.abs(y))) ok = false;
  }
  return { maxAbsError, maxRelError, ok };
}
