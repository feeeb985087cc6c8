// Language models: engines side by side in one page, sane answers first, then interleaved timing.
//
// An engine is `{description, generate(prompt, count, onTokens), dispose()}`: `generate` continues a raw prompt greedily by
// at most `count` tokens, calls `onTokens(n)` as n of them arrive, and resolves to the text. All get the same prompts, and no two prompts
// begin alike, so that nobody's cache of an earlier one helps.

const PAUSE_MS = 50;

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

async function loadWebkiln({ folder, device, threads }) {
  const { pipeline } = await import(`${folder}webkiln.js`);
  const llm = await pipeline(new URL(folder, location.href).href, { device, threads });
  const used = llm.model.device;
  if (used.type !== device || (device === "wasm" && used.threads !== threads)) {
    throw new Error(`asked for ${device} × ${threads}, got ${used.description}`);
  }
  return {
    description: `webkiln, ${used.description}`,
    async generate(prompt, count, onTokens) {
      let text = "";
      await llm.reset();
      const stream = await llm.generate(prompt, { stream: true, max_tokens: count, temperature: 0 });
      for await (const part of stream) {
        if (part.tokens.length) onTokens(part.tokens.length);
        text += part.text;
      }
      return text;
    },
    tokenize: (text) => llm.tokenize(text),
    detokenize: (ids) => llm.detokenize(ids),
    /** Resolves when the weights are on the device. */
    async kept() {
      while (llm.model.storage.state === "pending") await pause();
      if (llm.model.storage.state !== "kept") throw new Error(llm.model.storage.reason);
    },
    dispose: () => llm.dispose(),
  };
}

async function loadWllama({ file, device, threads }) {
  const { Wllama } = await import("./wllama/index.js");
  // Where its tensors are belongs beside its figures: without a GPU that it takes it goes on in silence.
  const places = new Set();
  const note = (...words) => {
    const place = /(\S+) model buffer size/.exec(words.join(" "));
    if (place) places.add(place[1]);
  };
  const logger = { debug: note, log: note, warn: note, error: console.error };
  const wllama = new Wllama({ default: new URL("./wllama/wasm/wllama.wasm", location.href).href }, { logger });
  const blob = await (await fetch(file)).blob();
  await wllama.loadModel([blob], {
    n_ctx: 1024,
    n_threads: threads,
    n_parallel: 1,
    n_gpu_layers: device === "webgpu" ? 999 : 0,
    warmup: true,
    jinja: false,
  });
  return {
    description: `wllama, ${device} × ${wllama.getNumThreads()}, ${file.split(".").at(-2)}`,
    places: [...places],
    async generate(prompt, count, onTokens) {
      let text = "";
      const stream = await wllama.createCompletion({
        prompt,
        max_tokens: count,
        temperature: 0,
        temp: 0,
        top_k: 1,
        ignore_eos: true,
        cache_prompt: false,
        stream: true,
      });
      for await (const chunk of stream) {
        const piece = chunk.choices?.[0]?.text ?? "";
        if (piece) onTokens(1);
        text += piece;
      }
      return text;
    },
    dispose: () => wllama.exit(),
  };
}

/** onnxruntime-web has no tokenizer: it takes that of `webkiln`, the engine. Its cache goes from run to run as it is. */
async function loadOrt({ file, device, threads }, webkiln) {
  const ort = await import(`./ort/ort.${device}.bundle.min.mjs`);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(file, { executionProviders: [device], graphOptimizationLevel: "all" });
  const nothing = session.inputMetadata
    .filter(({ name }) => name.startsWith("past."))
    .map(({ name, shape: [, heads, , size] }) => [name, new ort.Tensor("float32", [], [1, heads, 0, size])]);
  return {
    description: `onnxruntime-web ${ort.env.versions.web}, ${device} × ${threads}, ${file.split(".").at(-2)}`,
    async generate(prompt, count, onTokens) {
      const made = [];
      let ids = webkiln.tokenize(prompt);
      let past = nothing;
      for (let length = ids.length; made.length < count; length++) {
        const { logits, ...present } = await session.run({
          input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
          seqlens_k: new ort.Tensor("int32", [length - 1], [1]),
          total_sequence_length: new ort.Tensor("int32", [length], []),
          ...Object.fromEntries(past),
        });
        ids = [largest(logits.data)];
        made.push(...ids);
        onTokens(1);
        past = Object.entries(present).map(([name, tensor]) => [name.replace("present", "past"), tensor]);
      }
      return webkiln.detokenize(made);
    },
    dispose: () => session.release(),
  };
}

function largest(numbers) {
  let best = 0;
  for (let i = 1; i < numbers.length; i++) if (numbers[i] > numbers[best]) best = i;
  return best;
}

const ENGINES = { webkiln: loadWebkiln, wllama: loadWllama, ort: loadOrt };

/** Milliseconds to the first token, and tokens a second after it. */
async function time(engine, prompt, count) {
  await pause();
  const arrivals = [];
  const start = performance.now();
  await engine.generate(prompt, count, (n) => arrivals.push([performance.now(), n]));
  const tokens = arrivals.slice(1).reduce((sum, [, n]) => sum + n, 0);
  if (tokens < count / 2) throw new Error(`${engine.description}: only ${tokens} tokens came`);
  return { first: arrivals[0][0] - start, perSecond: (1000 * tokens) / (arrivals.at(-1)[0] - arrivals[0][0]) };
}

const question = (text) => `<|im_start|>user\n${text}<|im_end|>\n<|im_start|>assistant\n`;

/**
 * `{name: {description, answer, first: [ms], perSecond: [tokens/s]}}`; the i-th entries of all were measured right after
 * one another. `prompts` are of one length; a round takes the next of them. The engine "webkiln" comes first.
 */
window.llm = async ({ engines, prompts, count, rounds }) => {
  if (!crossOriginIsolated) throw new Error("the page is not cross-origin isolated");
  const loaded = {};
  const results = {};
  for (const [name, options] of Object.entries(engines)) {
    const engine = (loaded[name] = await ENGINES[options.engine](options, loaded.webkiln));
    const answer = await engine.generate(question("What is the capital of France?"), 12, () => undefined);
    if (!answer.includes("Paris")) throw new Error(`${name} answers ${JSON.stringify(answer)}`);
    await engine.kept?.(); // it would go on while others are measured
    const { description, places } = engine;
    results[name] = { description, places, answer, first: [], perSecond: [] };
  }
  const names = Object.keys(engines);
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 ? [...names].reverse() : names;
    for (const name of order) {
      const { first, perSecond } = await time(loaded[name], prompts[round % prompts.length], count);
      results[name].first.push(first);
      results[name].perSecond.push(perSecond);
    }
  }
  for (const name of names) await loaded[name].dispose();
  return results;
};

/** A visit: milliseconds from the navigation to the first token. Ends when the next one finds the weights on the device. */
window.visit = async (options) => {
  const engine = await loadWebkiln(options);
  let first;
  await engine.generate(question("What is the capital of France?"), 4, () => (first ??= performance.now()));
  await engine.kept();
  await engine.dispose();
  return first;
};
