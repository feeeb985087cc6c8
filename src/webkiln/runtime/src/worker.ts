/** webkiln.worker.js: the inference worker, and the same script again for each helper thread. */
import { expect, receive } from "./early.js";
import { toPlain, WebkilnError } from "./errors.js";
import { Host } from "./host.js";
import { nextTask } from "./next-task.js";
import { SMALL, type Answer, type FromWorker, type Numbered, type ToWorker } from "./protocol.js";
import { serveAsThread, THREAD } from "./wasm-threads.js";

/** No answer waits longer for the next one, in ms: text that comes thirty times a second flows. */
const HELD = 33;

const post = (message: FromWorker, transfer: Transferable[] = []): void =>
  self.postMessage(message, { transfer });

/** What an answer hands over: large outputs, and the memory that the inputs were in. */
function memoryOf(answer: Answer): ArrayBuffer[] {
  if ("error" in answer) return [];
  const large = [answer.value]
    .flat()
    .filter((part) => part instanceof ArrayBuffer && part.byteLength > SMALL) as ArrayBuffer[];
  return answer.memory ? [answer.memory, ...large] : large;
}

/** Whether the second takes about as long as the first. */
function alike(first: Numbered, second: Numbered | undefined): boolean {
  return first.type === "run" && second?.type === "run" && first.program === second.program;
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
    return { id, value: await host.run(request), memory };
  };

  /** Handles what came together. Answers leave together where that holds none of them up. */
  const handleAll = async (requests: readonly Numbered[]): Promise<void> => {
    let answers: Answer[] = [];
    let since = performance.now();
    for (const [i, request] of requests.entries()) {
      const start = performance.now();
      const failed = (error: unknown): Answer => ({ id: request.id, error: toPlain(error) });
      const answer = await handle(request).catch(failed);
      if (answer) answers.push(answer);
      const now = performance.now();
      const next = requests[i + 1];
      if (alike(request, next) && now - since + (now - start) < HELD) continue;
      if (answers.length) post({ answers }, answers.flatMap(memoryOf));
      answers = [];
      if (next) await nextTask(); // it may have been cancelled
      since = performance.now();
    }
  };

  self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
    if ("early" in data) return expect(data.early, data.fresh);
    if ("file" in data) return receive(data);
    if ("cancel" in data) return void cancelled.add(data.cancel);
    const { requests } = data;
    // A comparison takes its turns in the queue by itself, between runs.
    if (requests[0]!.type === "compare") void handleAll(requests);
    else void queue(() => handleAll(requests));
  };
}

if (self.name === THREAD) serveAsThread();
else serve();
