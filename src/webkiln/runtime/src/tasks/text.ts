/** Text → token ids as the model's own tokenizer makes them, cut to what the model can take. */
import { Tokenizer } from "@huggingface/tokenizers";
import { Tensor, WebkilnError, type Model, type Port } from "../index.js";

/** `plan.task.text`: which of the model's inputs is which. */
export interface TextSettings {
  /** Path of tokenizer.json, relative to plan.json. */
  readonly tokenizer: string;
  readonly inputs: {
    readonly ids: string;
    readonly mask?: string;
    readonly types?: string;
  };
  /** What a model of one fixed length is filled up with. */
  readonly pad: number;
}

/** Turns a text into the model's inputs. */
export interface TextReader {
  /** How many tokens the model takes at most. */
  readonly maxTokens: number;
  /** Token ids with the special ones, cut to `maxTokens`. */
  encode(text: string): { ids: number[]; truncated: boolean };
  /** @throws WebkilnError "input-text" when it is not a string. */
  read(text: string): Record<string, Tensor>;
}

export async function fetchTokenizer(address: URL): Promise<object> {
  const response = await fetch(address).catch((cause: unknown) => {
    throw new WebkilnError("network", `The tokenizer ${address} can't be reached.`, undefined, { cause });
  });
  if (!response.ok) {
    const hint = "Upload the whole folder that webkiln built.";
    throw new WebkilnError("not-found", `The tokenizer ${address} answers ${response.status}.`, hint);
  }
  return response.json() as Promise<object>;
}

/** The greatest number of tokens that an input of shape [batch, tokens] takes. */
function longest(model: Model, port: Port): { length: number; fixed: boolean } {
  const extent = port.shape[1]!;
  if (typeof extent === "number") return { length: extent, fixed: true };
  const dim = model.dims.find(({ name }) => name === extent);
  return { length: dim?.max ?? 512, fixed: false };
}

/** Keeps what the tokenizer puts around a text, and as much of the text as fits between. */
function cut(tokenizer: Tokenizer, text: string, ids: number[], length: number): number[] {
  const body = tokenizer.encode(text, { add_special_tokens: false }).ids;
  const special = ids.length - body.length;
  let before = 0;
  while (before < special && ids[before] !== body[0]) before++;
  const after = ids.slice(before + body.length);
  return [...ids.slice(0, before), ...body.slice(0, Math.max(0, length - special)), ...after];
}

export async function textReader(model: Model, settings: TextSettings, base: URL): Promise<TextReader> {
  const tokenizer = new Tokenizer(await fetchTokenizer(new URL(settings.tokenizer, base)), {});
  const port = (name: string): Port => model.inputs.find((input) => input.name === name)!;
  const { ids: idsName, mask, types } = settings.inputs;
  const { length, fixed } = longest(model, port(idsName));

  function encode(text: string): { ids: number[]; truncated: boolean } {
    // JavaScript lowers a final Σ to ς; tokenizers lower letter by letter, to σ. Models saw the latter.
    const lowered = tokenizer.normalizer?.normalize("Σ") === "σ" ? text.replaceAll("Σ", "σ") : text;
    const { ids } = tokenizer.encode(lowered);
    if (ids.length <= length) return { ids, truncated: false };
    return { ids: cut(tokenizer, lowered, ids, length), truncated: true };
  }

  function read(text: string): Record<string, Tensor> {
    if (typeof text !== "string") {
      throw new WebkilnError("input-text", `A text is a string; this is ${typeof text}.`);
    }
    const { ids } = encode(text);
    const used = ids.length;
    const size = fixed ? length : Math.max(1, used);
    const filled = [...ids, ...new Array<number>(size - used).fill(settings.pad)];
    const tensor = (name: string, values: number[]): [string, Tensor] =>
      [name, new Tensor(port(name).dtype, values, [1, size])];
    const feeds = [tensor(idsName, filled)];
    if (mask) feeds.push(tensor(mask, filled.map((_, i) => Number(i < used))));
    if (types) feeds.push(tensor(types, filled.map(() => 0)));
    return Object.fromEntries(feeds);
  }

  return { maxTokens: length, encode, read };
}
