// Warm inference: engines side by side in one page, correctness first, then interleaved timing.

import { check, fetchCase } from "./case.js";
import { ENGINES } from "./engines.js";

// Thread pools spin for a while after a run before they sleep; a pause keeps one engine's idle threads out of the
// other's figure.
const PAUSE_MS = 50;

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

async function time(engine) {
  await pause();
  const start = performance.now();
  await engine.run();
  return performance.now() - start;
}

/**
 * `{engines: {name: {description, error, ms: [...]}}}`, the i-th entries of all `ms` measured right after one another.
 * Rounds go on for `seconds`, but number at least `least` and at most `most`.
 */
window.compare = async ({ name, engines, device, threads, warmup, least, most, seconds }) => {
  if (!crossOriginIsolated) throw new Error("the page is not cross-origin isolated");
  const testcase = await fetchCase(name);
  const loaded = {};
  const results = {};
  for (const engine of engines) {
    loaded[engine] = await ENGINES[engine](name, testcase, { device, threads });
    const error = check(engine, testcase, await loaded[engine].run());
    results[engine] = { description: loaded[engine].description, error, ms: [] };
  }
  for (let i = 0; i < warmup; i++) for (const engine of engines) await time(loaded[engine]);
  const end = performance.now() + 1000 * seconds;
  for (let round = 0; round < most && (round < least || performance.now() < end); round++) {
    // A B, then B A: neither is always the one that runs on the other's heels.
    const order = round % 2 ? [...engines].reverse() : engines;
    for (const engine of order) results[engine].ms.push(await time(loaded[engine]));
  }
  for (const engine of engines) {
    check(engine, testcase, await loaded[engine].run()); // still right at the end
    await loaded[engine].dispose();
  }
  return { engines: results };
};
