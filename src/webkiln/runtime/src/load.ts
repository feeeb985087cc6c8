import { bringEarly, shardsAtOnce } from "./bring.js";
import { WebkilnError } from "./errors.js";
import { goldenReader } from "./golden.js";
import { aborted, get, throwIfAborted } from "./http.js";
import type { DeviceOption, LoadOptions, Model } from "./model.js";
import { neededFirst, readPlan, readShards, type Plan } from "./plan.js";
import { Link, RemoteModel } from "./remote.js";
import { forget, recall, remember } from "./verdicts.js";

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
  const { model, ready } = await begin(url, options);
  await ready;
  return model;
}

/** A model whose plan is here, while its weights are on their way. */
export interface Beginning {
  readonly model: RemoteModel;
  /** Rejects as `load` does; the model is then disposed. */
  readonly ready: Promise<void>;
}

/** The first half of `load`. */
export async function begin(url: string | URL, options: LoadOptions): Promise<Beginning> {
  const address = planAddress(url);
  checkOptions(options);
  const { signal } = options;
  throwIfAborted(signal);
  const early = takeEarly(address);
  const plan = early?.plan ?? get(address, signal, "no-cache");
  plan.catch(() => undefined); // heard below, where the worker may have failed first
  // The worker starts while the plan is on its way.
  const link = new Link(early?.worker);
  if (early) link.feed(() => early.stop);
  link.onProgress = options.onProgress;
  const abort = (): void => link.close(aborted());
  signal?.addEventListener("abort", abort);
  const guard = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await Promise.race([work, link.end]);
    } catch (error) {
      signal?.removeEventListener("abort", abort);
      link.close(new WebkilnError("disposed", "The model was not loaded."));
      throw signal?.aborted ? aborted() : error;
    }
  };
  const { model, load } = await guard(open(address, plan, Boolean(early), options, link));
  const ready = guard(load).finally(() => {
    signal?.removeEventListener("abort", abort);
    link.onProgress = undefined;
  });
  ready.catch(() => undefined); // whoever has the model awaits it, perhaps later
  return { model, ready };
}

async function open(
  address: URL,
  response: Promise<Response>,
  early: boolean,
  options: LoadOptions,
  link: Link,
): Promise<{ model: RemoteModel; load: Promise<void> }> {
  const text = await (await response).text();
  const json = parse(text, address);
  // Whether WebGPU can run it shows in the worker, and "auto" begins with wasm.
  if (!early && options.device !== "webgpu") {
    const shards = neededFirst(readShards(json));
    const first = shards.slice(0, shardsAtOnce(shards)).map(({ file }) => file);
    link.feed((worker) => bringEarly(worker, address.href, first));
  }
  const plan = readPlan(json);
  const hash = fingerprint(text);
  const base = new URL(".", address);
  const model = new RemoteModel(plan, goldenReader(base, hash), link, options.onStorage);
  const load = loadOn(model, plan, base, hash, options, link);
  load.catch(() => undefined); // the worker may have failed meanwhile, and nobody waits
  return { model, load };
}

async function loadOn(
  model: RemoteModel,
  plan: Plan,
  base: URL,
  hash: string,
  { device = "auto", threads, signal, onDevice }: LoadOptions,
  link: Link,
): Promise<void> {
  // A verdict holds for as many threads as it was found with.
  const cores = globalThis.crossOriginIsolated ? (threads ?? navigator.hardwareConcurrency) : 1;
  const key = `webkiln ${hash} ${cores}`;
  const verdict = device === "auto" ? recall(key) : undefined;
  const request = { type: "load", plan, base: base.href, device, verdict, threads } as const;
  const { state, undecided } = await link.ask(request, signal);
  model.loaded(state, onDevice);
  if (undecided) {
    model.compareLater(async (sample) => {
      const found = await link.ask({ type: "compare", sample });
      if (found) remember(key, found);
    });
  } else if (verdict && verdict.device !== state.device.type) {
    forget(key);
  }
}

/** What a page may have started in its head, before this module was here: see head.ts. */
interface EarlyStart {
  readonly url: string;
  readonly worker: Worker;
  readonly plan: Promise<Response>;
  /** Ends its downloads. */
  readonly stop: AbortController;
}

declare global {
  var webkilnEarly: EarlyStart | undefined;
}

/** Takes over what the page started for this plan. A plan that failed is asked for again. */
function takeEarly(address: URL): EarlyStart | undefined {
  const early = globalThis.webkilnEarly;
  if (early?.url !== address.href) return undefined;
  globalThis.webkilnEarly = undefined;
  const again = (): Promise<Response> => get(address, undefined, "no-cache");
  const plan = early.plan.then((response) => (response.ok ? response : again()), again);
  return { ...early, plan };
}

/** Where plan.json is. @throws WebkilnError "file-protocol", "option-invalid". */
export function planAddress(url: string | URL): URL {
  const address = resolveAddress(url);
  if (address.protocol === "file:") {
    throw new WebkilnError(
      "file-protocol",
      "A model can't be loaded over file://, where browsers forbid fetch and workers.",
      'Serve the folder instead: "webkiln serve DIR", or any static server.',
    );
  }
  return address;
}

/** Where plan.json would be, be it reachable or not. @throws WebkilnError "option-invalid". */
export function resolveAddress(url: string | URL): URL {
  let address: URL;
  try {
    address = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    throw new WebkilnError("option-invalid", `Not an address: ${String(url)}.`);
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

/**
 * 32-bit FNV-1a, which tells builds apart in names of caches and settings. Not for verification.
 */
function fingerprint(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16);
}
