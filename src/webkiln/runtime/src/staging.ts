/** Inputs on their way to the inference worker. */
import type { AskedInput, AskedRuns } from "./protocol.js";

/** As many requests may be under way before their inputs get new memory. */
const KEPT = 8;

/**
 * Memory that is handed over to the worker with the inputs of runs, and comes back with the answer. A
 * message of the tensors themselves would copy them twice, each time into new memory that the system
 * provides page by page, and with them all that lies around a view.
 */
export class Staging {
  private spares: ArrayBuffer[] = [];

  /** The runs with their inputs copied, and the memory that they are in. */
  pack<R extends Pick<AskedRuns, "inputs"> & Partial<AskedRuns>>(runs: R): R & { memory: ArrayBuffer } {
    const { inputs, turns = [] } = runs;
    const size = (input: AskedInput): number => ("carried" in input ? 0 : input.length);
    const bytes = [inputs, ...turns].flat().reduce((sum, input) => sum + size(input), 0);
    const found = this.spares.findIndex(({ byteLength }) => byteLength >= bytes);
    const memory = found < 0 ? new ArrayBuffer(bytes) : this.spares.splice(found, 1)[0]!;
    let at = 0;
    const copied = (input: AskedInput): AskedInput => {
      if ("carried" in input) return input;
      const copy = new Uint8Array(memory, at, input.length);
      copy.set(input);
      at += input.length;
      return copy;
    };
    const copies = { inputs: inputs.map(copied), turns: turns.map((own) => own.map(copied)) };
    return { ...runs, ...copies, memory };
  }

  /** Takes memory that came back. */
  keep(memory: ArrayBuffer): void {
    this.spares = [memory, ...this.spares].slice(0, KEPT);
  }
}
