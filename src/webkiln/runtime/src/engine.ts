import type { Device } from "./model.js";
import type { RunInputs } from "./protocol.js";
import type { WeightSink } from "./pieces.js";

/** A model in memory on one device. Calls never overlap: the worker queues them. */
export interface Engine {
  readonly device: Device;
  /** What would be better but isn't to be had, and why. */
  readonly fallbacks: readonly string[];
  /** Runs a program; the outputs asked for, in storage types. */
  run(run: RunInputs): Promise<ArrayBuffer[]>;
  /** Milliseconds of every step of one run. */
  profile(run: RunInputs): Promise<number[]>;
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
