/** A language model without a model: a tokenizer of bytes, and a cache that is checked. */
import { load } from "./load.mjs";

const SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"];

/** GPT-2's letters for bytes, in the order of the bytes. */
function letters() {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : next++);
  });
}

/** tokenizer.json: a token a byte (its id is the byte), "he", "ll", then the special ones. */
export function tokenizerDocument() {
  const vocab = Object.fromEntries(letters().map((letter, id) => [letter, id]));
  vocab.he = 256;
  vocab.ll = 257;
  const added = SPECIAL.map((content, i) => ({
    id: 258 + i,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }));
  const bytes = {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: false,
  };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: bytes,
    post_processor: null,
    decoder: bytes,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges: [
        ["h", "e"],
        ["l", "l"],
      ],
    },
  };
}

export const END = 258;
export const SIZE = 262;
export const TEMPLATE =
  "{% for m in messages %}{% if m.role == 'tool' %}" +
  "{{ raise_exception('no tools here') }}{% endif %}" +
  "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>";

/** A text's ids, byte by byte, but for the special tokens. */
export const spell = (text) => [...new TextEncoder().encode(text)];

/**
 * What `Model.runs` does, on a real cache: `next(ids)` gives the token after the ids that the cache
 * holds up to the position; or logits, as an object of ids. `fail(count)` may throw before a run.
 */
export class FakeModel {
  name = "fake";
  log = [];
  state = [];
  latest = {};
  last = Promise.resolve();
  disposed = false;

  constructor(next, { sampler = false, fail = () => undefined, delay } = {}) {
    Object.assign(this, { next, fail, delay, sampler });
    const port = (name, shape, dtype) => ({ name, dtype, shape });
    const inputs = [port("input_ids", [1, "sequence"], "int64"), port("position", [1], "int64")];
    const outputs = [port("logits", [1, 1, SIZE], "float32")];
    if (sampler) {
      inputs.push(port("sampling", [8], "float32"));
      outputs.push(port("token", [1], "int64"));
    }
    this.programs = ["prefill", "decode"].map((name) => ({ name, inputs, outputs }));
  }

  /** One after another, as the inference worker does them. */
  run(feeds, options) {
    const done = this.last.then(() => this.one(feeds, options));
    this.last = done.catch(() => undefined);
    return done;
  }

  runs(all, options) {
    return Promise.all(all.map((feeds) => this.run(feeds, options)));
  }

  async one(feeds, { program, outputs, carry = {} }) {
    const { Tensor } = this.runtime;
    const { latest } = this;
    this.latest = {};
    const known = Object.entries(carry).map(([input, output]) => [input, latest[output]]);
    feeds = { ...feeds, ...Object.fromEntries(known) };
    if (!feeds.input_ids) throw new WebkilnError("option-invalid", "There is nothing to carry over.");
    const ids = Array.from(feeds.input_ids.data, Number);
    const position = Number(feeds.position.data[0]);
    this.log.push({ program, ids, position, outputs: [...outputs], feeds, carry });
    if (position > this.state.length) throw new Error("a hole in the cache");
    if (program === "decode" && ids.length !== 1) throw new Error("decode takes one token");
    await (this.delay?.(this.log.length) ?? new Promise((resolve) => setTimeout(resolve)));
    this.fail(this.log.length, this);
    this.state.splice(position, Infinity, ...ids);
    const chosen = this.next([...this.state], feeds);
    const logits = new Float32Array(SIZE).fill(-10);
    for (const [id, logit] of typeof chosen === "number"
      ? [[chosen, 10]]
      : Object.entries(chosen)) {
      logits[id] = logit;
    }
    const all = { logits: () => new Tensor("float32", logits, [1, 1, SIZE]) };
    if (this.sampler) Object.assign(all, this.sampler(logits, feeds, Tensor));
    this.latest = Object.fromEntries(outputs.map((name) => [name, all[name]()]));
    return this.latest;
  }

  async selfTest() {
    this.state = [];
    return [];
  }

  async dispose() {
    this.disposed = true;
  }
}

/** A model that says `text` after the last `<|assistant|>`, or after the prompt. */
export function says(text, start = "<|assistant|>") {
  const begin = 258 + SPECIAL.indexOf(start);
  const wanted = [...spell(text), END];
  return (ids) => wanted[ids.length - 1 - ids.lastIndexOf(begin)] ?? END;
}

const module = await load("../tests/language-entry");
export const { WebkilnError } = module;

/** The pipeline of a fake model. */
export async function pipelineOf(model, settings = {}) {
  model.runtime = module;
  const generation = {
    context: 64,
    chunk: 8,
    ids: "input_ids",
    position: "position",
    logits: "logits",
    eos: [END],
    bos: null,
    add_bos: false,
    ...settings.generation,
  };
  const json = Buffer.from(JSON.stringify(tokenizerDocument())).toString("base64");
  const tokenizer = `data:application/json;base64,${json}`;
  const task = {
    name: "text-generation",
    tokenizer,
    chat_template: TEMPLATE,
    tokens: {},
    ...settings,
    generation,
  };
  return module.create(model, task, new URL("http://localhost/model/"));
}
