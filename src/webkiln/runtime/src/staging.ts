/** Inputs on their way to the inference worker. */
import type { AskedRun } from "./protocol.js";

/** As many runs may be under way before their inputs get new memory. */
const KEPT = 8;

/**
 * Memory that is handed over to the worker with the inputs of a run, and comes back with the answer. A
 * message of the tensors themselves would copy them twice, each time into new memory that the system
 * provides page by page, and with them all that lies around a view.
 */
export class Staging {
  private spares: ArrayBuffer[] = [];

  /** The run with its inputs copied, and the memory that they are in. */
  pack<R extends Pick<AskedRun, "inputs">>(run: R): R & { memory: ArrayBuffer } {
    const bytes = run.inputs.reduce((sum, input) => sum + ("carried" in input ? 0 : input.length), 0);
    const found = this.spares.findIndex(({ byteLength }) => byteLength >= bytes);
    const memory = found < 0 ? new ArrayBuffer(bytes) : this.spares.splice(found, 1)[0]!;
    let at = 0;
    const inputs = run.inputs.map((input) => {
      if ("carried" in input) return input;
      const copy = new Uint8Array(memory, at, input.length);
      copy.set(input);
      at += input.length;
      return copy;
    });
    return { ...run, inputs, memory };
  }

  /** Takes memory that came back. */
  keep(memory: ArrayBuffer): void {
    this.spares = [memory, ...this.spares].slice(0, KEPT);
  }
}
