/** The page's side of a model: checks and converts, and asks the worker. */
import { fromPlain, WebkilnError } from "./errors.js";
import { evaluate } from "./expression.js";
import { fromStorage } from "./feeds.js";
import { compare, goldenTensors, type GoldenFile } from "./golden.js";
import { aborted } from "./http.js";
import type {
  LoadOptions,
  Model,
  ModelState,
  OutputCheck,
  Progress,
  RunOptions,
  StepProfile,
  WeightStorage,
} from "./model.js";
import { resolve, type Plan } from "./plan.js";
import { firstRun, prepareRun, prepareRuns, type Feeds } from "./prepare.js";
import type {
  Answer,
  FromWorker,
  Helpers,
  Replies,
  Request,
  RunInputs,
  ToWorker,
} from "./protocol.js";
import { Staging } from "./staging.js";
import type { Tensor } from "./tensor.js";

/** Without a run for so long, devices are compared before the first one. In ms. */
const IDLE = 1000;

/** Helper threads sleep soundly after so long without a run. In ms. */
const ASLEEP = 3;

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

function workerFailed(why: string): WebkilnError {
  return new WebkilnError(
    "worker-failed",
    `The inference worker failed: ${why}.`,
    "webkiln.worker.js must lie beside webkiln.js, on the page's own origin, " +
      "and be allowed by its Content-Security-Policy.",
  );
}

/** A worker as a function of requests. */
export class Link {
  onProgress: ((progress: Progress) => void) | undefined;
  onState: ((state: ModelState) => void) | undefined;
  onStorage: ((storage: WeightStorage) => void) | undefined;
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiting>();
  private readonly staging = new Staging();
  private next = 0;
  private helpers: Helpers | undefined;
  /** When an answer came last. */
  private answered = 0;
  private closed: WebkilnError | undefined;
  private fail!: (error: WebkilnError) => void;
  /** Rejects when the worker failed or was closed. */
  readonly end = new Promise<never>((_, reject) => (this.fail = reject));

  /** Ends what the page downloads for it. */
  private early: AbortController | undefined;

  /** Takes over a worker that the page started, or starts one. */
  constructor(started?: Worker) {
    try {
      this.worker =
        started ??
        new Worker(new URL("./webkiln.worker.js", import.meta.url), {
          type: "module",
          name: "webkiln",
        });
    } catch (cause) {
      throw workerFailed(cause instanceof Error ? cause.message : String(cause));
    }
    this.end.catch(() => undefined);
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.receive(data);
    this.worker.onerror = (event) =>
      this.close(workerFailed(event.message || "webkiln.worker.js could not be loaded"));
  }

  /** Downloads of the page for this worker: some under way, or what begins them. */
  feed(begin: (worker: Worker) => AbortController): void {
    if (!this.closed) this.early = begin(this.worker);
  }

  /** Sends a request. An abort rejects at once; a request that has not begun never will. */
  ask<R extends Request>(
    request: R,
    signal?: AbortSignal,
  ): Promise<Replies[R["type"]]> {
    if (this.closed) return Promise.reject(this.closed);
    if (signal?.aborted) return Promise.reject(aborted());
    if (request.type === "run") this.wakeHelpers();
    const id = this.next++;
    return new Promise<Replies[R["type"]]>((resolve, reject) => {
      const abort = (): void => {
        this.waiting.delete(id);
        this.send({ cancel: id });
        reject(aborted());
      };
      const done = (): void => signal?.removeEventListener("abort", abort);
      signal?.addEventListener("abort", abort);
      this.waiting.set(id, {
        resolve: (value) => (done(), resolve(value)),
        reject: (error) => (done(), reject(error)),
      });
      const message: Request = request;
      if (!("inputs" in message)) return this.send({ request: { ...message, id } });
      const staged = this.staging.pack(message);
      this.send({ request: { ...staged, id } }, [staged.memory]);
    });
  }

  /**
   * Helper threads that slept for a while are awake, and have a core of their own, by the time the
   * worker has the request. The system would let them share the worker's if that woke them itself:
   * Linux did in three of four runs after a pause of 50 ms, for some 4 ms each.
   */
  private wakeHelpers(): void {
    if (!this.helpers || performance.now() - this.answered < ASLEEP) return;
    Atomics.notify(this.helpers.words, this.helpers.call);
  }

  /** Ends the worker and its threads, and rejects what still waits. */
  close(error: WebkilnError): void {
    this.closed ??= error;
    this.fail(this.closed);
    this.early?.abort();
    this.helpers = undefined;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(this.closed);
    this.waiting.clear();
  }

  private send(message: ToWorker, transfer: Transferable[] = []): void {
    this.worker.postMessage(message, transfer);
  }

  private receive(message: FromWorker): void {
    if ("progress" in message) return this.onProgress?.(message.progress);
    if ("state" in message) return this.onState?.(message.state);
    if ("storage" in message) return this.onStorage?.(message.storage);
    if ("helpers" in message) return void (this.helpers = message.helpers);
    this.answered = performance.now();
    this.settle(message.answer);
  }

  private settle(answer: Answer): void {
    if ("value" in answer && answer.memory) this.staging.keep(answer.memory);
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    if ("error" in answer) waiting?.reject(fromPlain(answer.error));
    else waiting?.resolve(answer.value as never);
  }
}

/** What `load` returns. Runs may be asked for before the worker has loaded; they wait. */
export class RemoteModel implements Model {
  // Set by `loaded`, before anyone else has the model.
  device!: ModelState["device"];
  fallbacks!: ModelState["fallbacks"];
  timings!: ModelState["timings"];
  comparing!: ModelState["comparing"];
  storage: WeightStorage = { state: "pending", bytes: 0, reason: "" };
  private compare: ((first?: RunInputs) => void) | undefined;
  private idle: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly plan: Plan,
    private readonly golden: GoldenFile,
    private readonly link: Link,
    onStorage: LoadOptions["onStorage"],
  ) {
    link.onStorage = (storage) => {
      this.storage = storage;
      onStorage?.(storage);
    };
  }

  loaded(state: ModelState, onDevice: LoadOptions["onDevice"]): void {
    Object.assign(this, state);
    this.link.onState = (changed) => {
      Object.assign(this, changed);
      onDevice?.(this);
    };
  }

  /**
   * Compares devices on a golden sample (without one, on the first run's inputs) once the first run
   * is over, or when none comes for a while. `ask` does it; the model loses nothing if it fails.
   */
  compareLater(ask: (sample: RunInputs) => Promise<void>): void {
    this.compare = (first): void => {
      clearTimeout(this.idle);
      if (!first && !this.plan.golden.length) return;
      this.compare = undefined;
      const sample = this.plan.golden[0] ? this.goldenInputs() : Promise.resolve(first!);
      sample.then(ask).catch(() => undefined);
    };
    this.idle = setTimeout(() => this.compare?.(), IDLE);
  }

  private async goldenInputs(): Promise<RunInputs> {
    return prepareRun(this.plan, await this.sample(), { dims: this.plan.golden[0]!.dims });
  }

  get name(): string {
    return this.plan.name;
  }
  get task(): Model["task"] {
    return this.plan.task;
  }
  get dims(): Model["dims"] {
    return this.plan.dims;
  }
  get programs(): Model["programs"] {
    return this.plan.programs;
  }
  get inputs(): Model["inputs"] {
    return this.plan.programs[0]!.inputs;
  }
  get outputs(): Model["outputs"] {
    return this.plan.programs[0]!.outputs;
  }
  get weightBytes(): number {
    return this.plan.weights.bytes;
  }

  async run(feeds: Feeds, options: RunOptions = {}): Promise<Record<string, Tensor>> {
    const [outputs] = await this.runs([feeds], options);
    return outputs!;
  }

  async runs(feeds: readonly Feeds[], options: RunOptions = {}): Promise<Record<string, Tensor>[]> {
    if (!feeds.length) return [];
    clearTimeout(this.idle);
    const prepared = prepareRuns(this.plan, feeds, options);
    const stored = await this.link.ask({ type: "run", ...prepared }, options.signal);
    if (!options.carry) this.compare?.(firstRun(prepared));
    const { outputs } = this.plan.programs[prepared.program]!;
    const ports = prepared.outputs.map((index) => {
      const { name, dtype, shape, buffer } = outputs[index]!;
      const storage = this.plan.buffers[buffer]!.dtype;
      return { name, dtype, storage, shape: resolve(shape, prepared.dims) };
    });
    return stored.map((values) =>
      Object.fromEntries(
        ports.map(({ name, dtype, storage, shape }, i) => [
          name,
          fromStorage(values[i]!, dtype, storage, shape),
        ]),
      ),
    );
  }

  async profile(
    feeds?: Readonly<Record<string, Tensor>>,
    options: RunOptions = {},
  ): Promise<StepProfile[]> {
    const prepared = prepareRun(this.plan, feeds ?? (await this.sample()), options);
    const times = await this.link.ask({ type: "profile", ...prepared }, options.signal);
    const { wasm, webgpu } = this.plan.programs[prepared.program]!.steps;
    const steps =
      this.device.type === "wasm"
        ? wasm
        : webgpu.map((step) => ({ ...step, kind: this.plan.kernels[step.kernel]!.kind }));
    return steps.map(({ label, kind, flops, bytes }, i) => ({
      label,
      kind,
      ms: times[i]!,
      flops: evaluate(flops, prepared.dims),
      bytes: evaluate(bytes, prepared.dims),
    }));
  }

  async selfTest(): Promise<OutputCheck[]> {
    const checks: OutputCheck[] = [];
    for (const [sample, golden] of this.plan.golden.entries()) {
      const file = await this.golden(golden.file);
      const actual = await this.run(goldenTensors(file, golden.inputs), { dims: golden.dims });
      for (const [output, wanted] of Object.entries(goldenTensors(file, golden.outputs))) {
        checks.push({ sample, output, ...compare(actual[output], wanted, golden) });
      }
    }
    return checks;
  }

  async sample(index = 0): Promise<Record<string, Tensor>> {
    const golden = this.plan.golden[index];
    if (!golden)
      throw new WebkilnError("option-invalid", `The bundle has no golden sample ${index}.`);
    return goldenTensors(await this.golden(golden.file), golden.inputs);
  }

  async dispose(): Promise<void> {
    clearTimeout(this.idle);
    this.compare = this.link.onState = this.link.onStorage = undefined;
    this.link.close(new WebkilnError("disposed", "The model was disposed.", "Load it again."));
  }
}
