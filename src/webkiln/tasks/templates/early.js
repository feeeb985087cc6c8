// The worker, the plan and the first weights are on their way while the page's modules still load;
// load() takes over what was started here. Without it, or where it fails, load() does it all.
if (location.protocol !== "file:") {
  try {
    const url = new URL("model/plan.json", document.baseURI).href;
    const worker = new Worker("webkiln.worker.js", { type: "module", name: "webkiln" });
    worker.onerror = (event) => {
      event.preventDefault(); // load() starts one of its own, and reports what is wrong
      globalThis.webkilnEarly = undefined;
    };
    const stop = new AbortController();
    const { signal } = stop;
    const plan = fetch(url, { cache: "no-cache" });
    plan.catch(() => undefined);
    const shards = {{shards}};
    // A second visit finds them on the device, all or in part; to look there first takes too long.
    const mark = `webkiln early ${url}`;
    let visited = false;
    try {
      visited = localStorage.getItem(mark) === shards[0];
    } catch (error) {
      // Storage may be forbidden; every visit is a first one, then.
    }
    const early = visited ? [] : shards;
    worker.postMessage({ early });
    const remember = () => {
      visited = true;
      try {
        localStorage.setItem(mark, shards[0]);
      } catch (error) {
        // As above.
      }
    };
    // As in shards.ts: what the device keeps need not go into the browser's own cache too.
    const cache = navigator.storage?.getDirectory ? "no-store" : "default";
    const bring = async (file) => {
      try {
        const response = await fetch(new URL(file, url), { signal, cache });
        if (!response.ok) throw response.status;
        worker.postMessage({ file, etag: response.headers.get("etag") });
        const reader = response.body.getReader();
        for (let part = await reader.read(); !part.done; part = await reader.read()) {
          if (!visited) remember();
          worker.postMessage({ file, bytes: part.value }, [part.value.buffer]);
        }
        worker.postMessage({ file, end: true });
      } catch (error) {
        worker.postMessage({ file, end: false }); // it verifies, and asks again for what is missing
      }
    };
    early.forEach(bring);
    globalThis.webkilnEarly = { url, worker, plan, stop };
  } catch (error) {
    globalThis.webkilnEarly = undefined;
  }
}
