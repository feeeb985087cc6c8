/** webkiln.worker.js: the inference worker, and the same script again for each helper thread. */
import { expect, receive } from "./early.js";
import { toPlain, WebkilnError } from "./errors.js";
import { Host } from "./host.js";
import { SMALL, type Answer, type FromWorker, type Numbered, type ToWorker } from "./protocol.js";
import { serveAsThread, THREAD } from "./wasm-threads.js";

const post = (message: FromWorker, transfer: Transferable[] = []): void =>
  self.postMessage(message, { transfer });

/** What an answer hands over: large outputs, and the memory that the inputs were in. */
function memoryOf(answer: Answer): ArrayBuffer[] {
  if ("error" in answer) return [];
  const outputs = [answer.value].flat(2).filter((part) => part instanceof ArrayBuffer);
  const large = outputs.filter(({ byteLength }) => byteLength > SMALL);
  return answer.memory ? [answer.memory, ...large] : large;
}

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

  const handle = async (request: Numbered): Promise<Answer | undefined> => {
    if (cancelled.delete(request.id)) return undefined;
    const { id } = request;
    if (request.type === "load") {
      host = new Host(request, queue, post);
      return { id, value: await host.load() };
    }
    if (!host) throw new WebkilnError("worker-failed", "The model is not loaded.");
    if (request.type === "compare") return { id, value: await host.compare(request.sample) };
    const memory = request.memory!;
    if (request.type === "profile") return { id, value: await host.profile(request), memory };
    return { id, value: await host.run(request, () => cancelled.delete(id)), memory };
  };

  const serveOne = async (request: Numbered): Promise<void> => {
    const failed = (error: unknown): Answer => ({ id: request.id, error: toPlain(error) });
    const answer = await handle(request).catch(failed);
    if (answer) post({ answer }, memoryOf(answer));
  };

  self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
    if ("early" in data) return expect(data.early, data.fresh);
    if ("file" in data) return receive(data);
    if ("cancel" in data) return void cancelled.add(data.cancel);
    const { request } = data;
    // A comparison takes its turns in the queue by itself, between runs.
    if (request.type === "compare") void serveOne(request);
    else void queue(() => serveOne(request));
  };
}

if (self.name === THREAD) serveAsThread();
else serve();
