// The page's half of `webkiln bench`. Every function here is called by name from Python and returns JSON.

const PAUSE_MS = 30; // thread pools spin for a while after a run; a pause keeps that out of the next figure

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

async function timed(run) {
  await pause();
  const start = performance.now();
  await run();
  return performance.now() - start;
}

/** GFLOP/s and GB/s of one thread: the best of some rounds, since noise only ever slows down. */
async function peak({ modules, flops, bytes, pages }) {
  for (const module of modules) {
    const code = Uint8Array.from(atob(module), (letter) => letter.charCodeAt(0));
    if (!WebAssembly.validate(code)) continue;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const { instance } = await WebAssembly.instantiate(code, { env: { memory } });
    instance.exports.__stack_pointer.value = 131072;
    new Uint32Array(memory.buffer).fill(0x3f800000, 1048576 / 4); // touched, so that every page is really there
    const best = [Infinity, Infinity];
    for (let round = 0; round < 12; round++) {
      for (const step of [0, 1]) {
        const start = performance.now();
        instance.exports.step(0, step);
        if (round > 1) best[step] = Math.min(best[step], performance.now() - start);
      }
      await pause();
    }
    return { gflops: flops / best[0] / 1e6, gbps: bytes / best[1] / 1e6 };
  }
  throw new Error("this browser has no WebAssembly SIMD");
}

async function loadWebkiln({ device, threads }) {
  const { load } = await import(new URL("./webkiln.js", location.href).href);
  const start = performance.now();
  const model = await load(new URL("./model/", location.href).href, { device, threads });
  const sample = await model.sample();
  const loaded = performance.now() - start;
  const first = performance.now();
  await model.run(sample);
  const firstMs = performance.now() - first;
  if (model.device.type !== device || (device === "wasm" && model.device.threads !== threads)) {
    await model.dispose();
    throw new Error(`asked for ${device} × ${threads}, got ${model.device.description}: ${model.fallbacks.join(" ")}`);
  }
  const bad = (await model.selfTest()).filter((check) => !check.ok);
  if (bad.length) throw new Error(`wrong result on ${device}: ${JSON.stringify(bad)}`);
  return { model, sample, loadMs: loaded, firstMs, run: () => model.run(sample) };
}

async function loadPeer(sample, { device, threads }) {
  const ort = await import(new URL(`./__peer__/ort.${device}.bundle.min.mjs`, location.href).href);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = new URL("./__peer__/", location.href).href;
  ort.env.wasm.numThreads = threads;
  const start = performance.now();
  const session = await ort.InferenceSession.create(new URL("./__bench__/model.onnx", location.href).href, {
    executionProviders: [device],
    graphOptimizationLevel: "all",
  });
  const loadMs = performance.now() - start;
  const feeds = {};
  for (const [name, { dtype, data, shape }] of Object.entries(sample)) feeds[name] = new ort.Tensor(dtype, data, shape);
  const first = performance.now();
  await session.run(feeds);
  return { loadMs, firstMs: performance.now() - first, run: () => session.run(feeds), dispose: () => session.release(),
    version: ort.env.versions.web };
}

/** The largest difference over all outputs, relative to each output's largest value. */
function difference(ours, theirs) {
  let worst = 0;
  for (const [name, { data }] of Object.entries(ours)) {
    const other = theirs[name]?.data;
    if (other?.length !== data.length) throw new Error(`the peer's output ${name} has another size`);
    let scale = 0, error = 0;
    for (let i = 0; i < data.length; i++) {
      scale = Math.max(scale, Math.abs(Number(other[i])));
      error = Math.max(error, Math.abs(Number(data[i]) - Number(other[i])));
    }
    worst = Math.max(worst, scale ? error / scale : error);
  }
  return worst;
}

/** Loads, checks, warms up and times one configuration, interleaved with the peer's where there is one. */
async function measure({ device, threads, runs, against, profile }) {
  const ours = await loadWebkiln({ device, threads });
  const peer = against ? await loadPeer(ours.sample, { device, threads }) : null;
  const entry = { ms: [], loadMs: ours.loadMs, firstMs: ours.firstMs, description: ours.model.device.description };
  const other = peer && { ms: [], loadMs: peer.loadMs, firstMs: peer.firstMs, version: peer.version };
  if (peer) other.difference = difference(await ours.run(), await peer.run());
  for (let i = 0; i < 3; i++) { await timed(ours.run); if (peer) await timed(peer.run); }
  for (let i = 0; i < runs; i++) {
    // ours, theirs, then theirs, ours: neither always runs on the other's heels
    if (!peer || i % 2 === 0) entry.ms.push(await timed(ours.run));
    if (peer) other.ms.push(await timed(peer.run));
    if (peer && i % 2) entry.ms.push(await timed(ours.run));
  }
  const steps = profile ? await ours.model.profile(ours.sample) : [];
  await ours.model.dispose();
  await peer?.dispose();
  return { ours: entry, peer: other, steps };
}

window.webkilnBench = { peak, measure };
