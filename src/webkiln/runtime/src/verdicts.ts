/** Verdicts of earlier visits. Storage may be blocked; then every visit compares anew. */
import type { Verdict } from "./compare.js";

export function recall(key: string): Verdict | undefined {
  try {
    const { device, adapter, timings } = JSON.parse(localStorage.getItem(key)!) as Verdict;
    const valid = (device === "webgpu" || device === "wasm") && typeof adapter === "string";
    return valid ? { device, adapter, timings: { ...timings } } : undefined;
  } catch {
    return undefined;
  }
}

export function remember(key: string, verdict: Verdict): void {
  try {
    localStorage.setItem(key, JSON.stringify(verdict));
  } catch {}
}

export function forget(key: string): void {
  try {
    localStorage.removeItem(key);
  } catch {}
}
