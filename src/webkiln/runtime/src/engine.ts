import type { Dims } from "./expression.js";
import type { Device } from "./model.js";
import type { WeightSink } from "./shards.js";

/** A model in memory on one device. Calls never overlap: the worker queues them. */
export interface Engine {
  readonly device: Device;
  /** What would be better but isn't to be had, and why. */
  readonly fallbacks: readonly string[];
  /**
   * Runs a program. Inputs are in storage types, in the program's order, and so are the outputs.
   */
  run(
    program: number,
    dims: Dims,
    inputs: readonly Uint8Array<ArrayBuffer>[],
  ): Promise<ArrayBuffer[]>;
  /** Milliseconds of every step of one run. */
  profile(
    program: number,
    dims: Dims,
    inputs: readonly Uint8Array<ArrayBuffer>[],
  ): Promise<number[]>;
  dispose(): void;
}

/**
 * Brings all weights to a sink: from the network, or from another engine's memory. The signal ends
 * it.
 */
export type WeightSource = (sink: WeightSink, signal: AbortSignal) => Promise<void>;

/** What programs keep between runs: bytes by the buffer's index in the plan. */
export type State = ReadonlyMap<number, Uint8Array<ArrayBuffer>>;

/** Why something is not in use, for `model.fallbacks`. */
export function reason(what: string, error: unknown): string {
  return `${what}: ${error instanceof Error ? error.message : String(error)}`;
}
