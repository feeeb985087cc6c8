/** `plan.task` of a language model: what its build-time half wrote. */
import { WebkilnError } from "../../index.js";
import type { TaskConfig } from "../task.js";
import type { SamplingDefaults } from "./settings.js";

/** `plan.task.generation`: which port is which, and the model's limits. */
export interface GenerationConfig {
  /** How many tokens the cache holds. */
  readonly context: number;
  /** Tokens of one prefill at most. */
  readonly chunk: number;
  /** Names of the inputs: token ids [1, sequence], and how many tokens the cache holds [1]. */
  readonly ids: string;
  readonly position: string;
  /** Name of the output: logits of the last token [1, 1, vocabulary]. */
  readonly logits: string;
  /** Tokens that end an answer. */
  readonly eos: readonly number[];
  /** The token that a text begins with, where `add_bos`. */
  readonly bos: number | null;
  readonly add_bos: boolean;
}

export interface LanguageConfig extends TaskConfig {
  readonly generation: GenerationConfig;
  /** Path of tokenizer.json, relative to plan.json. */
  readonly tokenizer: string;
  /** The chat template's text (Jinja); null for a model that only continues texts. */
  readonly chat_template: string | null;
  /** Special tokens by their role: "bos", "eos", ... */
  readonly tokens: Readonly<Record<string, string>>;
  /** The bundle's own defaults. */
  readonly sampling: SamplingDefaults;
}

/** Of a model without a first token. */
const ABSENT: Partial<GenerationConfig> = { bos: null, add_bos: false };

function invalid(what: string): never {
  throw new WebkilnError(
    "plan-invalid",
    `plan.json is not valid: task.${what}.`,
    "Build the bundle again, and upload all of its files together.",
  );
}

/** @throws WebkilnError "plan-invalid" when a part is missing. */
export function readConfig(task: TaskConfig): LanguageConfig {
  const generation = task["generation"] as Partial<GenerationConfig> | undefined;
  if (typeof generation !== "object" || generation === null) invalid("generation is missing");
  for (const name of ["ids", "position", "logits"] as const) {
    if (typeof generation[name] !== "string") invalid(`generation.${name} should be a name`);
  }
  for (const name of ["context", "chunk"] as const) {
    const value = generation[name];
    if (!Number.isSafeInteger(value) || value! < 1) invalid(`generation.${name} should be from 1`);
  }
  if (!Array.isArray(generation.eos)) invalid("generation.eos should be a list of token ids");
  return {
    tokenizer: "tokenizer.json",
    chat_template: null,
    tokens: {},
    sampling: {},
    ...(task as object),
    name: task.name,
    generation: { ...ABSENT, ...(generation as GenerationConfig) },
  };
}
