/** webkiln.worker.js: the inference worker, and the same script again for each helper thread. */
import { expect, receive } from "./early.js";
import { toPlain, WebkilnError } from "./errors.js";
import { Host } from "./host.js";
import type { FromWorker, ToWorker } from "./protocol.js";
import { serveAsThread, THREAD } from "./wasm-threads.js";

type Numbered = Extract<ToWorker, { id: number }>;

const post = (message: FromWorker, transfer: Transferable[] = []): void =>
  self.postMessage(message, { transfer });

function serve(): void {
  let host: Host | undefined;
  const cancelled = new Set<number>();
  // What uses an engine runs one after another, in the order of its arrival.
  let last: Promise<unknown> = Promise.resolve();
  const queue = <T>(work: () => Promise<T>): Promise<T> => {
    const done = last.then(work);
    last = done.catch(() => undefined);
    return done;
  };

  const handle = async (request: Numbered): Promise<void> => {
    if (cancelled.delete(request.id)) return;
    const { id } = request;
    if (request.type === "load") {
      host = new Host(request, queue, post);
      return post({ id, value: await host.load() });
    }
    if (!host) throw new WebkilnError("worker-failed", "The model is not loaded.");
    if (request.type === "compare") return post({ id, value: await host.compare(request.sample) });
    const memory = request.memory!;
    if (request.type === "profile") {
      return post({ id, value: await host.profile(request), memory }, [memory]);
    }
    const outputs = await host.run(request);
    post({ id, value: outputs, memory }, [...outputs, memory]);
  };

  self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
    if ("early" in data) return expect(data.early, data.fresh);
    if ("file" in data) return receive(data);
    if ("cancel" in data) return void cancelled.add(data.cancel);
    // A comparison takes its turns in the queue by itself, between runs.
    const handled = data.type === "compare" ? handle(data) : queue(() => handle(data));
    handled.catch((error: unknown) => post({ id: data.id, error: toPlain(error) }));
  };
}

if (self.name === THREAD) serveAsThread();
else serve();
