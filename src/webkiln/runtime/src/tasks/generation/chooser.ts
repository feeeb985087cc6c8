/** Who chooses the next token: the model's own programs where they end in a sampler, or we. */
import { Tensor, WebkilnError, type Model } from "../../index.js";
import type { GenerationConfig } from "./config.js";
import { argmax, logProbability, penalise, sample, top, type Past } from "./sampler.js";
import type { Tensors } from "./session.js";
import type { Settings } from "./settings.js";

export interface Scored {
  readonly id: number;
  readonly logprob: number;
}

/** The next token, and if it was asked for, how likely it and the likeliest ones were. */
export interface Chosen extends Scored {
  readonly top: readonly Scored[];
}

/** What to run the model with, and how to read the token off its outputs. */
export interface Question {
  readonly feeds: Tensors;
  readonly outputs: readonly string[];
  readonly read: (outputs: Tensors) => Chosen;
}

export interface Chooser {
  /**
   * Asks for the token number `step` of an answer. Bit `i % 32` of word `i / 32` in `mask` allows
   * token i.
   */
  ask(past: Past, step: number, mask?: Uint32Array<ArrayBuffer>): Question;
  /** The output that is the token, where what is asked does not depend on the past. */
  readonly token?: string | undefined;
}

/** Sizes of the sampler's ports, and its bound on top-k: docs/generation.md. */
const PENALTIES = 256;
const CANDIDATES = 64;

export function vocabularySize(model: Pick<Model, "programs">, name: string): number {
  const port = model.programs[0]!.outputs.find((output) => output.name === name);
  const size = port?.shape.at(-1);
  if (typeof size === "number") return size;
  throw new WebkilnError(
    "plan-invalid",
    `plan.json is not valid: no output "${name}" [1, 1, vocabulary].`,
  );
}

/** Whether the programs end in the sampler of docs/generation.md. */
function hasSampler({ programs }: Pick<Model, "programs">): boolean {
  return programs.every(
    ({ inputs, outputs }) =>
      inputs.some(({ name }) => name === "sampling") &&
      outputs.some(({ name }) => name === "token"),
  );
}

export function chooser(
  model: Pick<Model, "programs">,
  config: GenerationConfig,
  settings: Settings,
): Chooser {
  const host = hostChooser(config, settings);
  if (!hasSampler(model)) return host;
  const device = deviceChooser(vocabularySize(model, config.logits), settings);
  if (settings.sampling.top_k <= CANDIDATES) return device;
  // More candidates than the device keeps: it gets its inputs, but the host reads the logits.
  return {
    ask: (past, step, mask) => ({
      ...host.ask(past, step, mask),
      feeds: device.ask(past, step, mask).feeds,
    }),
  };
}

function forbid(logits: Float32Array, mask: Uint32Array): void {
  for (let id = 0; id < logits.length; id++) {
    if (!((mask[id >>> 5]! >>> (id & 31)) & 1)) logits[id] = -Infinity;
  }
}

function hostChooser(
  { logits: name }: GenerationConfig,
  { sampling, logprobs }: Settings,
): Chooser {
  const ask: Chooser["ask"] = (past, step, mask) => ({
    feeds: {},
    outputs: [name],
    read(outputs) {
      const raw = outputs[name]!.toFloat32();
      const logits = raw.slice();
      penalise(logits, past, sampling);
      if (mask) forbid(logits, mask);
      const id = sample(logits, sampling, step);
      if (id < 0) throw new WebkilnError("run-failed", "The model's logits are not numbers.");
      if (logprobs === undefined) return { id, logprob: 0, top: [] };
      const greatest = raw[argmax(raw)]!;
      const score = (token: number): Scored => ({
        id: token,
        logprob: logProbability(raw, token, greatest),
      });
      return { ...score(id), top: top(logits, logprobs).map(score) };
    },
  });
  return { ask };
}

/** Which tokens occurred and how often, the latest ones first. */
function occurrences({ ids, start }: Past): Tensors {
  const found = new Map<number, number>();
  for (let i = ids.length - 1; i >= 0; i--) {
    const id = ids[i]!;
    if (i >= start) found.set(id, (found.get(id) ?? 0) + 1);
    else if (found.size >= PENALTIES) break;
    else if (!found.has(id)) found.set(id, -1);
  }
  const tokens = new BigInt64Array(PENALTIES).fill(-1n);
  const counts = new Float32Array(2 * PENALTIES);
  [...found].slice(0, PENALTIES).forEach(([id, count], i) => {
    tokens[i] = BigInt(id);
    counts[i] = count;
  });
  return {
    penalty_ids: new Tensor("int64", tokens, [PENALTIES]),
    penalties: new Tensor("float32", counts, [2, PENALTIES]),
  };
}

function deviceChooser(size: number, { sampling, logprobs }: Settings): Chooser {
  const { temperature, top_p, min_p, top_k, seed } = sampling;
  const { repetition_penalty, presence_penalty, frequency_penalty } = sampling;
  const penalties = repetition_penalty !== 1 || presence_penalty !== 0 || frequency_penalty !== 0;
  const settings = [temperature, top_p, min_p, repetition_penalty, presence_penalty];
  settings.push(frequency_penalty, Math.min(top_k, CANDIDATES), Number(logprobs !== undefined));
  const fixed = new Tensor("float32", settings, [8]);
  const words = Math.ceil(size / 32);
  const masked = (mask: Uint32Array): Tensor => new Tensor("uint32", mask, [words]);
  const free = masked(new Uint32Array(words).fill(0xffffffff));
  const none = occurrences({ ids: [], start: 0 });
  const outputs = logprobs === undefined ? ["token"] : ["token", "top_ids", "logprobs"];

  const ask: Chooser["ask"] = (past, step, mask) => {
    return {
      outputs,
      feeds: {
        ...(penalties ? occurrences(past) : none),
        sampling: fixed,
        seed: new Tensor("uint32", new Uint32Array([seed, step]), [2]),
        token_mask: mask ? masked(mask) : free,
      },
      read(found) {
        const id = Number(found["token"]!.data[0]!);
        if (logprobs === undefined) return { id, logprob: 0, top: [] };
        const scores = found["logprobs"]!.toFloat32();
        const ids = Array.from(found["top_ids"]!.data as BigInt64Array, Number).slice(0, logprobs);
        const best = ids.map((token, i) => ({ id: token, logprob: scores[1 + i]! }));
        return { id, logprob: scores[0]!, top: best };
      },
    };
  };
  return { ask, token: penalties ? undefined : "token" };
}
