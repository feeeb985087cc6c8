/**
 * In the head of a page, inline: the worker, the plan and the first weights are on their way while
 * the page's modules still load; load() takes over what was started here. Without it, or where it
 * fails, load() does it all.
 */
import { bringEarly } from "./bring.js";

if (location.protocol !== "file:") {
  try {
    const url = new URL("model/plan.json", document.baseURI).href;
    const worker = new Worker("webkiln.worker.js", { type: "module", name: "webkiln" });
    worker.onerror = (event) => {
      event.preventDefault(); // load() starts one of its own, and reports what is wrong
      globalThis.webkilnEarly = undefined;
    };
    const plan = fetch(url, { cache: "no-cache" });
    plan.catch(() => undefined);
    const files = document.currentScript!.dataset["shards"]!.split(" ").filter(Boolean);
    globalThis.webkilnEarly = { url, worker, plan, stop: bringEarly(worker, url, files) };
  } catch {
    globalThis.webkilnEarly = undefined;
  }
}
