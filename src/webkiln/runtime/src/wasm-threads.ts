/** Helper threads of the WebAssembly engine: workers that share its memory and take part in runs. */
import { toPlain } from "./errors.js";
import type { WasmTarget } from "./plan.js";

/** The exports of every variant; see docs/plan.md. */
export interface Exports {
  readonly run: (program: number, threads: number) => void;
  readonly step: (program: number, step: number) => void;
  readonly serve?: (thread: number) => void;
  readonly stop?: () => void;
  readonly __stack_pointer: WebAssembly.Global;
}

/** What a helper thread is started with. */
interface ThreadStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly thread: number;
  readonly stackPointer: number;
}

/** The name of helper threads' workers; they run the same script as the inference worker. */
export const THREAD = "webkiln-thread";

/** Words of the ABI (wasm_runtime.h), by address: the barriers passed, and whether a thread trapped. */
const PHASE = 640;
const TRAPPED = 768;

/** A helper that has not started by then won't. */
const START_TIMEOUT = 10_000;

export class ThreadStartError extends Error {}

/** The threads of one engine, its own among them. */
export class Crew {
  /** How many take part in a run. */
  size = 1;
  private readonly workers: Worker[] = [];

  constructor(
    private readonly compiling: Promise<WebAssembly.Module>,
    private readonly memory: WebAssembly.Memory,
    private readonly stacks: WasmTarget["memory"]["stacks"],
  ) {}

  /** Starts helpers at once, each of which gets the module when that is compiled. @throws ThreadStartError. */
  async grow(size: number): Promise<void> {
    const before = this.workers.length;
    const started: Promise<void>[] = [];
    while (this.workers.length + 1 < size) started.push(this.start(this.workers.length + 1));
    try {
      await Promise.all([this.compiling, ...started]);
      this.size = Math.max(this.size, size);
    } catch (error) {
      terminate(this.workers.splice(before));
      throw error;
    }
  }

  stop(): void {
    terminate(this.workers.splice(0));
  }

  private start(thread: number): Promise<void> {
    const worker = new Worker(self.location.href, { type: "module", name: THREAD });
    this.workers.push(worker);
    const { memory, stacks } = this;
    const stackPointer = stacks.offset + stacks.bytes * (thread + 1);
    void this.compiling.then(
      (module) =>
        worker.postMessage({ module, memory, thread, stackPointer } satisfies ThreadStart),
      () => undefined,
    );
    return heardFrom(worker, this.compiling);
  }
}

function terminate(workers: readonly Worker[]): void {
  for (const worker of workers) worker.terminate();
}

/** A helper answers when it has instantiated the module. */
function heardFrom(worker: Worker, compiling: Promise<WebAssembly.Module>): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => reject(new ThreadStartError(why));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = (): void => fail("a helper thread did not start");
    compiling.then(() => (timer = setTimeout(late, START_TIMEOUT)), reject);
    worker.onmessage = ({ data }: MessageEvent<string | undefined>) => {
      clearTimeout(timer);
      data ? fail(data) : resolve();
    };
    worker.onerror = (event) => {
      event.preventDefault(); // or it counts as this worker's own error too
      fail(event.message || "a helper thread could not be loaded");
    };
  });
}

/** A helper thread's whole life: instantiate, say so, and serve runs until told to stop. */
export function serveAsThread(): void {
  self.onmessage = ({ data }: MessageEvent<ThreadStart>) => {
    let exports: Exports;
    try {
      exports = instantiate(data.module, data.memory, data.stackPointer);
    } catch (error) {
      self.postMessage(toPlain(error).message);
      return;
    }
    self.postMessage(undefined);
    try {
      exports.serve!(data.thread);
    } catch {
      // A trap. The others would wait for this thread at the next barrier: let them trap there.
      const words = new Int32Array(data.memory.buffer);
      Atomics.store(words, TRAPPED / 4, 1);
      Atomics.add(words, PHASE / 4, 1);
      Atomics.notify(words, PHASE / 4);
    }
    self.close();
  };
}

/** An instance for one thread. */
export function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  stackPointer: number,
): Exports {
  const exports = new WebAssembly.Instance(module, { env: { memory } })
    .exports as unknown as Exports;
  exports.__stack_pointer.value = stackPointer;
  return exports;
}
