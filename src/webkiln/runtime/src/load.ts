import { WebkilnError } from "./errors.js";
import { goldenReader, goldenTensors, type GoldenFile } from "./golden.js";
import { aborted, get, throwIfAborted } from "./http.js";
import type { DeviceOption, LoadOptions, Model } from "./model.js";
import { readPlan, type Plan } from "./plan.js";
import type { Loaded, RunInputs } from "./protocol.js";
import { Link, prepareRun, RemoteModel } from "./remote.js";

const DEVICES: readonly DeviceOption[] = ["auto", "webgpu", "wasm"];

/**
 * Loads a model.
 *
 * `url` is the model's folder (relative to the page) or its plan.json.
 *
 *     const model = await load("./model/", { onProgress: ({ loaded, total }) => ... });
 *     const { logits } = await model.run({ x: new Tensor("float32", data, [1, 3, 224, 224]) });
 *
 * Works from any folder of a site. WebGPU needs https or localhost; threads also need the headers
 * Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy. A Content-Security-Policy has to
 * allow `script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'`.
 *
 * @throws WebkilnError; its `code` says what happened.
 */
export async function load(url: string | URL, options: LoadOptions = {}): Promise<Model> {
  const address = planAddress(url);
  checkOptions(options);
  throwIfAborted(options.signal);
  // The worker starts while the plan is on its way.
  const link = new Link();
  link.onProgress = options.onProgress;
  const abort = (): void => link.close(aborted());
  options.signal?.addEventListener("abort", abort);
  try {
    return await open(address, options, link);
  } catch (error) {
    link.close(new WebkilnError("disposed", "The model was not loaded."));
    throw options.signal?.aborted ? aborted() : error;
  } finally {
    options.signal?.removeEventListener("abort", abort);
    link.onProgress = undefined;
  }
}

async function open(
  address: URL,
  { device = "auto", threads, signal }: LoadOptions,
  link: Link,
): Promise<Model> {
  const text = await (await get(address, signal, "no-cache")).text();
  const plan = readPlan(parse(text, address));
  const hash = fingerprint(text);
  const base = new URL(".", address);
  const golden = goldenReader(base, hash);
  // A choice holds for as many threads as it was made with.
  const cores = globalThis.crossOriginIsolated ? (threads ?? navigator.hardwareConcurrency) : 1;
  const key = `webkiln ${hash} ${cores}`;
  const remembered = device === "auto" ? recall(key) : undefined;
  const comparing =
    device === "auto" && !remembered && plan.wasm && plan.webgpu && "gpu" in navigator;
  const sample = comparing ? await firstSample(plan, golden) : undefined;
  const request = {
    type: "load",
    plan,
    base: base.href,
    device,
    prefer: remembered,
    threads,
    sample,
  } as const;
  const loaded = await link.ask(request, signal);
  if (Object.keys(loaded.timings).length) remember(key, loaded);
  else if (remembered && remembered !== loaded.device.type) forget(key);
  return new RemoteModel(plan, golden, link, loaded);
}

/** Where plan.json is. @throws WebkilnError "file-protocol", "option-invalid". */
export function planAddress(url: string | URL): URL {
  let address: URL;
  try {
    address = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    throw new WebkilnError("option-invalid", `Not an address: ${String(url)}.`);
  }
  if (address.protocol === "file:") {
    throw new WebkilnError(
      "file-protocol",
      "A model can't be loaded over file://, where browsers forbid fetch and workers.",
      'Serve the folder instead: "webkiln serve DIR", or any static server.',
    );
  }
  if (!address.pathname.endsWith(".json")) {
    if (!address.pathname.endsWith("/")) address.pathname += "/";
    address.pathname += "plan.json";
  }
  return address;
}

function checkOptions({ device, threads }: LoadOptions): void {
  if (device !== undefined && !DEVICES.includes(device)) {
    throw new WebkilnError(
      "option-invalid",
      `No such device: ${String(device)}.`,
      `Use one of ${DEVICES.join(", ")}.`,
    );
  }
  if (threads !== undefined && !(Number.isInteger(threads) && threads > 0)) {
    throw new WebkilnError(
      "option-invalid",
      `threads should be a whole number from 1, but is ${String(threads)}.`,
    );
  }
}

function parse(text: string, address: URL): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new WebkilnError(
      "plan-invalid",
      `${address.href} is not JSON.`,
      "Check the address of the model's folder.",
      { cause },
    );
  }
}

async function firstSample(plan: Plan, golden: GoldenFile): Promise<RunInputs | undefined> {
  const sample = plan.golden[0];
  if (!sample) return undefined;
  const file = await golden(sample.file).catch(() => undefined);
  return file && prepareRun(plan, goldenTensors(file, sample.inputs), { dims: sample.dims });
}

/**
 * 32-bit FNV-1a, which tells builds apart in names of caches and settings. Not for verification.
 */
function fingerprint(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16);
}

// Storage may be blocked; then every visit compares anew.
function recall(key: string): "webgpu" | "wasm" | undefined {
  try {
    const value = localStorage.getItem(key);
    return value === "webgpu" || value === "wasm" ? value : undefined;
  } catch {
    return undefined;
  }
}

function remember(key: string, { device }: Loaded): void {
  try {
    localStorage.setItem(key, device.type);
  } catch {}
}

function forget(key: string): void {
  try {
    localStorage.removeItem(key);
  } catch {}
}
