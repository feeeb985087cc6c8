/** The caller's options, checked and completed. */
import { WebkilnError } from "../../index.js";
import { randomSeed } from "./random.js";
import type { GenerationOptions, JsonSchema, ResponseFormat } from "./types.js";

/** How a token is chosen from logits. */
export interface Sampling {
  readonly temperature: number;
  readonly top_p: number;
  /** 0 means all. */
  readonly top_k: number;
  readonly min_p: number;
  readonly repetition_penalty: number;
  readonly presence_penalty: number;
  readonly frequency_penalty: number;
  readonly seed: number;
}

export interface Settings {
  readonly sampling: Sampling;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  /** How many alternatives to report of each token; undefined for no report at all. */
  readonly logprobs: number | undefined;
  /** What the answer is held to; undefined for free text. */
  readonly schema: JsonSchema | undefined;
  readonly signal: AbortSignal | undefined;
}

/** Defaults that a bundle may bring, as in a model's generation_config.json. */
export type SamplingDefaults = Readonly<Partial<Record<keyof Sampling, number>>>;

const DEFAULTS: Omit<Sampling, "seed"> = {
  temperature: 1,
  top_p: 1,
  top_k: 0,
  min_p: 0,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
};

/** What each number has to be, in words and as a test. */
const NUMBERS: Readonly<Record<keyof Sampling, readonly [string, (value: number) => boolean]>> = {
  temperature: ["a number from 0 to 2", (v) => v >= 0 && v <= 2],
  top_p: ["a number from 0 to 1", (v) => v >= 0 && v <= 1],
  top_k: ["a whole number from 0", (v) => Number.isSafeInteger(v) && v >= 0],
  min_p: ["a number from 0 to 1", (v) => v >= 0 && v <= 1],
  repetition_penalty: ["a number above 0", (v) => v > 0 && v < Infinity],
  presence_penalty: ["a number from -2 to 2", (v) => v >= -2 && v <= 2],
  frequency_penalty: ["a number from -2 to 2", (v) => v >= -2 && v <= 2],
  seed: ["a whole number", Number.isSafeInteger],
};

const OPTIONS: ReadonlySet<string> = new Set<keyof GenerationOptions>([
  ...(Object.keys(NUMBERS) as (keyof Sampling)[]),
  "max_tokens",
  "max_completion_tokens",
  "stop",
  "logprobs",
  "top_logprobs",
  "response_format",
  "signal",
]);

function shown(value: unknown): string {
  const text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** Throws "option-invalid": names the option, what it should be, and what it is. */
export function refuse(name: string, expected: string, value: unknown): never {
  throw new WebkilnError(
    "option-invalid",
    `${name} should be ${expected}, but is ${shown(value)}.`,
  );
}

/** Refuses options that nobody reads: a misspelt one would otherwise be ignored in silence. */
export function checkNames(options: object, more: readonly string[] = []): void {
  for (const [name, value] of Object.entries(options)) {
    if (OPTIONS.has(name) || more.includes(name) || value === undefined) continue;
    const known = [...more, ...OPTIONS].join(", ");
    throw new WebkilnError(
      "option-invalid",
      `There is no option "${name}".`,
      `It is one of ${known}.`,
    );
  }
}

function boolean(name: string, value: unknown): boolean {
  return typeof (value ?? false) === "boolean"
    ? Boolean(value)
    : refuse(name, "true or false", value);
}

function whole(name: string, value: unknown, min: number, max: number): number {
  const expected =
    max < Infinity ? `a whole number from ${min} to ${max}` : `a whole number from ${min}`;
  const fits = Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max;
  return fits ? (value as number) : refuse(name, expected, value);
}

function readSampling(options: GenerationOptions, defaults: SamplingDefaults): Sampling {
  const base = { seed: undefined, ...DEFAULTS, ...defaults };
  const entries = (Object.keys(NUMBERS) as (keyof Sampling)[]).map((name) => {
    const [expected, valid] = NUMBERS[name];
    const value = options[name] ?? base[name] ?? randomSeed();
    return [
      name,
      typeof value === "number" && valid(value) ? value : refuse(name, expected, value),
    ];
  });
  return Object.fromEntries(entries) as Sampling;
}

function readStop(stop: GenerationOptions["stop"]): readonly string[] {
  const list = stop === undefined || stop === null ? [] : typeof stop === "string" ? [stop] : stop;
  const valid =
    Array.isArray(list) && list.every((text) => typeof text === "string" && text !== "");
  return valid ? (list as readonly string[]) : refuse("stop", "a text, or a list of texts", stop);
}

function readLogprobs({ logprobs, top_logprobs }: GenerationOptions): number | undefined {
  const wanted = boolean("logprobs", logprobs);
  const top = whole("top_logprobs", top_logprobs ?? 0, 0, 20);
  if (top && !wanted) {
    throw new WebkilnError("option-invalid", "top_logprobs needs logprobs: true.");
  }
  return wanted ? top : undefined;
}

function readFormat(format: ResponseFormat | null | undefined): JsonSchema | undefined {
  if (format === undefined || format === null || format.type === "text") return undefined;
  if (format.type === "json_object") return { type: "object" };
  if (format.type === "json_schema") {
    const schema = format.json_schema?.schema;
    if (typeof schema === "boolean" || (typeof schema === "object" && schema !== null))
      return schema;
    return refuse("response_format.json_schema.schema", "a JSON schema", schema);
  }
  const { type } = format as { type: unknown };
  return refuse("response_format.type", '"text", "json_object" or "json_schema"', type);
}

/** @throws WebkilnError "option-invalid", which names the option. */
export function readSettings(
  options: GenerationOptions,
  defaults: SamplingDefaults = {},
): Settings {
  const { max_completion_tokens, max_tokens, signal } = options;
  const name = max_completion_tokens != null ? "max_completion_tokens" : "max_tokens";
  const limit = max_completion_tokens ?? max_tokens;
  if (signal && !(signal instanceof AbortSignal)) refuse("signal", "an AbortSignal", signal);
  return {
    sampling: readSampling(options, defaults),
    maxTokens: limit == null ? Infinity : whole(name, limit, 1, Infinity),
    stop: readStop(options.stop),
    logprobs: readLogprobs(options),
    schema: readFormat(options.response_format),
    signal: signal ?? undefined,
  };
}
