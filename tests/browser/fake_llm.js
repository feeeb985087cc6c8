/**
 * Stands in for webkiln.js under the chat's page: a model of OpenAI's shape that says what a test
 * tells it to. `globalThis.script` directs it, `globalThis.requests` has what it was asked.
 */
export class WebkilnError extends Error {
  name = "WebkilnError";
  constructor(code, message, hint, options) {
    super(hint ? `${message} ${hint}` : message, options);
    this.code = code;
    this.hint = hint;
  }
}

const script = (globalThis.script = {
  loadMs: 0, // how long loading takes
  loadError: undefined, // [code, message, hint]
  tokenMs: 4, // between tokens
  prefillMs: 10,
  answers: [], // said in turn; then `otherwise`
  otherwise: "The capital of France is **Paris**.",
  failAfter: Infinity, // tokens, then `error`
  error: undefined,
  finish: "stop",
  keptBytes: 0, // of weights on the device
  storage: { state: "kept", bytes: 0, reason: "" },
  ...globalThis.script,
});
const requests = (globalThis.requests = []);
const TOTAL = 98_400_000;

const pause = (ms, signal) => new Promise((go, stop) => {
  const timer = setTimeout(go, ms);
  signal?.addEventListener("abort", () => {
    clearTimeout(timer);
    stop(new WebkilnError("aborted", "The caller aborted."));
  });
});

export async function pipeline(url, { device, signal, onProgress } = {}) {
  const steps = Math.ceil(script.loadMs / 50);
  for (let i = 0; i < steps; i++) {
    onProgress?.({ phase: "weights", loaded: (TOTAL * i) / steps, total: TOTAL });
    await pause(50, signal);
  }
  if (script.loadError) {
    const error = new WebkilnError(...script.loadError);
    script.loadError = undefined;
    throw error;
  }
  onProgress?.({ phase: "compile", loaded: TOTAL, total: TOTAL });
  return new Llm(device);
}

export function storage() {
  return {
    bytes: async () => script.keptBytes,
    persisted: () => navigator.storage.persisted(),
    persist: () => navigator.storage.persist(),
    clear: async () => void (script.keptBytes = 0),
  };
}

class Llm {
  constructor(device) {
    const gpu = device === "webgpu";
    this.context = script.context ?? 2048;
    this.task = { name: "text-generation", sampling: { temperature: 0.7, top_p: 0.95, top_k: 40 } };
    this.model = {
      name: "SmolLM2-135M-Instruct",
      device: gpu
        ? { type: "webgpu", description: "Apple M2", threads: 1 }
        : { type: "wasm", description: "WebAssembly × 2 threads, SIMD relaxed", threads: 2 },
      fallbacks: [], timings: {}, comparing: false, weightBytes: TOTAL,
      storage: script.storage,
      selfTest: async () => [{ sample: 0, output: "logits", maxAbsError: 1e-5, maxRelError: 1e-5, ok: true }],
    };
    this.chat = { completions: { create: async (request) => this.stream(request) } };
  }

  async dispose() {}

  async *stream({ messages, signal, ...options }) {
    requests.push({ messages: structuredClone(messages), ...options });
    await pause(script.prefillMs, signal);
    const text = script.answers.shift() ?? script.otherwise;
    const tokens = text.match(/\s*\S+|\s+/g) ?? [];
    let count = 0;
    for (const content of tokens) {
      if (count === script.failAfter || count === script.maxTokens) break;
      await pause(script.tokenMs, signal);
      count++;
      yield { choices: [{ index: 0, delta: { content }, finish_reason: null }] };
    }
    if (script.error && count === Math.min(script.failAfter, tokens.length)) {
      const error = new WebkilnError(...script.error);
      script.error = undefined;
      script.failAfter = Infinity;
      throw error;
    }
    yield { choices: [{ index: 0, delta: {}, finish_reason: script.finish }], usage: null };
    const left = this.context - (script.promptTokens ?? 40) - count;
    yield {
      choices: [],
      usage: {
        prompt_tokens: script.promptTokens ?? 40, completion_tokens: count,
        total_tokens: (script.promptTokens ?? 40) + count,
        extra: {
          prefill_tokens_per_s: 412.3, decode_tokens_per_s: 118.6, context_left: Math.max(0, left),
        },
      },
    };
  }
}
