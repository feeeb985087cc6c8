/** From what a caller asks of a run to what the inference worker is told. */
import { WebkilnError } from "./errors.js";
import { bind, toStorage } from "./feeds.js";
import type { RunOptions } from "./model.js";
import type { Plan, PlanProgram } from "./plan.js";
import type { AskedRun, RunInputs } from "./protocol.js";
import type { Tensor } from "./tensor.js";

/** Prepares one run: program, dimensions, and bytes in storage types. */
export function prepareRun(
  plan: Plan,
  feeds: Readonly<Record<string, Tensor>>,
  options: Omit<RunOptions, "carry"> = {},
): RunInputs {
  return prepare(plan, feeds, options) as RunInputs; // nothing is carried
}

/** The same, with inputs that the run before will give. */
export function prepare(
  plan: Plan,
  feeds: Readonly<Record<string, Tensor>>,
  { program: name, dims: given, outputs: wanted, carry = {} }: RunOptions,
): AskedRun {
  const program = name === undefined ? 0 : plan.programs.findIndex((entry) => entry.name === name);
  const chosen = plan.programs[program];
  if (!chosen) {
    const names = plan.programs.map((entry) => `"${entry.name}"`).join(", ");
    throw new WebkilnError(
      "option-invalid",
      `The model has no program "${name}".`,
      `It has ${names}.`,
    );
  }
  checkCarry(plan, chosen, feeds, carry);
  const dims = bind(plan, chosen, feeds, given, carry);
  const inputs = chosen.inputs.map(({ name, buffer }) => {
    const carried = carry[name];
    if (carried !== undefined) return { carried };
    return toStorage(feeds[name]!, plan.buffers[buffer]!.dtype, name);
  });
  return { program, dims, inputs, outputs: outputIndices(chosen, wanted) };
}

/** Sizes are compared when both are known, by the host. */
function checkCarry(
  plan: Plan,
  { inputs, outputs }: PlanProgram,
  feeds: Readonly<Record<string, Tensor>>,
  carry: Readonly<Record<string, string>>,
): void {
  for (const [name, from] of Object.entries(carry)) {
    const ports = [inputs.find((port) => port.name === name), outputs.find((port) => port.name === from)];
    const [into, out] = ports.map((port) => port && plan.buffers[port.buffer]!.dtype);
    if (into && into === out && !Object.hasOwn(feeds, name)) continue;
    throw new WebkilnError(
      "option-invalid",
      `The input "${name}" can't be carried over from "${from}".`,
      "They are an input that is not fed, and an output of the same type.",
    );
  }
}

function outputIndices({ outputs }: PlanProgram, wanted: RunOptions["outputs"]): number[] {
  if (!wanted) return outputs.map((_, i) => i);
  return wanted.map((name) => {
    const found = outputs.findIndex((port) => port.name === name);
    if (found >= 0) return found;
    const names = outputs.map((port) => `"${port.name}"`).join(", ");
    throw new WebkilnError("option-invalid", `There is no output "${name}".`, `There is ${names}.`);
  });
}
