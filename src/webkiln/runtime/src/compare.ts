/** How "auto" decides between WebAssembly and WebGPU: by timing both, without anyone waiting. */
import type { Device, Timings } from "./model.js";

/** What a comparison found, as it is remembered for the next visit. */
export interface Verdict {
  readonly device: Device["type"];
  /** The GPU that it holds for. */
  readonly adapter: string;
  readonly timings: Timings;
}

/** One run that takes this many times as long as the rival's has lost. */
const HOPELESS = 2;
const RUNS = 5;
/** Runs end early once they took this long together, in ms. */
const BUDGET = 500;
/** A GPU's first run also ends the driver's compilation, which may take this long, in ms. */
const FIRST_RUN = 500;

/**
 * Median milliseconds of `once`, which runs the model and says how long it took. A run that is
 * hopeless against `rival` is the last.
 */
export async function measure(
  once: () => Promise<number>,
  rival: number = Infinity,
): Promise<number> {
  const times: number[] = [];
  for (let spent = 0; times.length < RUNS && spent < BUDGET; spent += times.at(-1)!) {
    times.push(await once());
    if (times.at(-1)! > HOPELESS * rival) break;
  }
  return median(times);
}

/** How long a GPU's first run may take against a rival that takes `rival`. In milliseconds. */
export function patience(rival: number): number {
  return HOPELESS * rival + FIRST_RUN;
}

/** The device to keep. */
export function faster({ wasm = Infinity, webgpu = Infinity }: Timings): Device["type"] {
  return webgpu < wasm ? "webgpu" : "wasm";
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}
