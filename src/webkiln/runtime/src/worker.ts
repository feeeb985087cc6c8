/** webkiln.worker.js: the inference worker, and the same script again for each helper thread. */
import { toPlain, WebkilnError } from "./errors.js";
import { Host } from "./host.js";
import type { FromWorker, ToWorker } from "./protocol.js";
import { serveAsThread, THREAD } from "./wasm.js";

type Numbered = Extract<ToWorker, { id: number }>;

const post = (message: FromWorker, transfer: Transferable[] = []): void =>
  self.postMessage(message, { transfer });

function serve(): void {
  let host: Host | undefined;
  const cancelled = new Set<number>();
  // Requests run one after another, in the order of their arrival.
  let last: Promise<void> = Promise.resolve();

  const handle = async (request: Numbered): Promise<void> => {
    if (cancelled.delete(request.id)) return;
    if (request.type === "load") {
      host = new Host(
        request,
        (progress) => post({ progress }),
        (moved) => post({ moved }),
      );
      post({ id: request.id, value: await host.load() });
    } else if (!host) {
      throw new WebkilnError("worker-failed", "The model is not loaded.");
    } else if (request.type === "run") {
      const outputs = await host.run(request);
      post({ id: request.id, value: outputs }, outputs);
    } else {
      post({ id: request.id, value: await host.profile(request) });
    }
  };

  self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
    if ("cancel" in data) {
      cancelled.add(data.cancel);
      return;
    }
    last = last
      .then(() => handle(data))
      .catch((error: unknown) => post({ id: data.id, error: toPlain(error) }));
  };
}

if (self.name === THREAD) serveAsThread();
else serve();
