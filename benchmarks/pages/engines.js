// The engines behind one interface: `load(name, testcase, {device, threads})` gives `{run, dispose, description}`, and
// `run()` resolves to the outputs by name, in memory that JavaScript can read. `testcase` is a promise, so that an engine
// loads while the case is on its way; inputs are made ready before any warm timing.

/** onnxruntime-web with the settings that its documentation recommends for speed. */
async function loadOrt(name, testcase, { device, threads }) {
  const ort = await import(`./ort/ort.${device}.bundle.min.mjs`);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(`./cases/${name}/model.onnx`, {
    executionProviders: [device],
    graphOptimizationLevel: "all",
    freeDimensionOverrides: (await testcase).dims, // lets it plan for this very length
  });
  const { inputs } = await testcase;
  const feeds = {};
  for (const { name: input, dtype, data, shape } of inputs) feeds[input] = new ort.Tensor(dtype, data, shape);
  return {
    description: `onnxruntime-web ${ort.env.versions.web}, ${device}`,
    async run() {
      const outputs = await session.run(feeds);
      return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
    },
    dispose: () => session.release(),
  };
}

async function loadWebkiln(name, testcase, { device, threads }) {
  const folder = `./cases/${name}/bundle/`;
  const { load, Tensor } = await import(`${folder}webkiln.js`);
  const model = await load(new URL(`${folder}model/`, location.href).href, { device, threads });
  if (model.device.type !== device || (device === "wasm" && model.device.threads !== threads)) {
    throw new Error(`asked for ${device} × ${threads}, got ${model.device.description}: ${model.fallbacks.join(" ")}`);
  }
  const { inputs } = await testcase;
  const feeds = {};
  for (const { name: input, dtype, data, shape } of inputs) feeds[input] = new Tensor(dtype, data, shape);
  return {
    description: `webkiln, ${model.device.description}`,
    async run() {
      const outputs = await model.run(feeds);
      return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
    },
    dispose: () => model.dispose(),
  };
}

export const ENGINES = { webkiln: loadWebkiln, ort: loadOrt };
