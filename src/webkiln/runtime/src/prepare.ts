/** From what a caller asks of a run to what the inference worker is told. */
import { WebkilnError } from "./errors.js";
import { bind, toStorage } from "./feeds.js";
import type { RunOptions } from "./model.js";
import type { Plan, PlanProgram } from "./plan.js";
import type { AskedInput, AskedRuns, RunInputs } from "./protocol.js";
import type { Tensor } from "./tensor.js";

export type Feeds = Readonly<Record<string, Tensor>>;

/** Prepares one run: program, dimensions, and bytes in storage types. */
export function prepareRun(
  plan: Plan,
  feeds: Feeds,
  options: Omit<RunOptions, "carry"> = {},
): RunInputs {
  return firstRun(prepareRuns(plan, [feeds], options));
}

/** The first of runs that carry nothing over. */
export function firstRun({ program, dims, inputs, outputs }: AskedRuns): RunInputs {
  return { program, dims, inputs: inputs as RunInputs["inputs"], outputs };
}

/** Prepares runs, perhaps with inputs that the run before will give. */
export function prepareRuns(
  plan: Plan,
  feeds: readonly Feeds[],
  { program: name, dims: given, outputs: wanted, carry = {} }: RunOptions,
): AskedRuns {
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
  const [one = {}] = feeds;
  checkCarry(plan, chosen, one, carry);
  const dims = bind(plan, chosen, one, given, carry);
  const stored = (tensors: Feeds, input: number): AskedInput => {
    const { name, buffer } = chosen.inputs[input]!;
    const carried = carry[name];
    if (carried !== undefined) return { carried };
    return toStorage(tensors[name]!, plan.buffers[buffer]!.dtype, name);
  };
  const own = differing(chosen, feeds);
  return {
    program,
    dims,
    inputs: chosen.inputs.map((_, input) => stored(one, input)),
    own,
    turns: feeds.slice(1).map((tensors) => own.map((input) => stored(tensors, input))),
    outputs: outputIndices(chosen, wanted),
  };
}

/** The inputs that are not the same tensor in all runs. They have the same type and shape there. */
function differing({ inputs }: PlanProgram, [one = {}, ...others]: readonly Feeds[]): number[] {
  const found = new Set<number>();
  const names = Object.keys(one);
  for (const feeds of others) {
    if (Object.keys(feeds).length !== names.length) unlike();
    for (const name of names) {
      const [tensor, before] = [feeds[name], one[name]!];
      if (tensor === before) continue;
      if (tensor?.dtype !== before.dtype || tensor.shape.join() !== before.shape.join()) unlike(name);
      found.add(inputs.findIndex((port) => port.name === name));
    }
  }
  return [...found];
}

function unlike(name?: string): never {
  throw new WebkilnError(
    "input-shape",
    name === undefined ? "The runs have different inputs." : `"${name}" differs in its type or shape.`,
    "Runs that are asked for together have the same inputs, of the same types and shapes.",
  );
}

/** Sizes are compared when both are known, by the host. */
function checkCarry(
  plan: Plan,
  { inputs, outputs }: PlanProgram,
  feeds: Feeds,
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
