/** Where a model runs and whether it computes right there: what every page says of it. */
import type { Model, OutputCheck } from "../index.js";
import { byId, formatTime } from "./page.js";
import { explain } from "./problems.js";

/** The device in a few words, and what else is known of it for the curious. */
export function deviceText(model: Model): { name: string; note: string } {
  const { type, description } = model.device;
  // "WebAssembly × 2 threads, SIMD relaxed", "Some GPU, f16": what comes after is for the curious.
  const [name, ...details] = description.split(type === "wasm" ? ", " : /, (?=f16$)/);
  const note = [...details, compared(model)]
    .filter(Boolean).map((part) => `${part}`.replace(/\.$/, "")).join(". ");
  return { name: name!, note };
}

/** What is known of the other device. */
function compared({ comparing, timings, fallbacks }: Model): string | undefined {
  if (comparing) return "Trying WebGPU…";
  const { webgpu, wasm } = timings;
  return webgpu !== undefined && wasm !== undefined
    ? `WebGPU ${formatTime(webgpu)}, WebAssembly ${formatTime(wasm)}` : fallbacks[0];
}

/** Replays the samples recorded at build time, and says beside the button how it went. */
export async function selfTest(current: () => Model | undefined): Promise<void> {
  const model = current();
  if (!model) return;
  const output = byId("selftest-result");
  const button = byId<HTMLButtonElement>("selftest");
  button.disabled = true;
  delete output.dataset["ok"];
  output.textContent = "Testing…";
  try {
    const checks = await model.selfTest();
    output.dataset["ok"] = String(checks.every(({ ok }) => ok));
    output.textContent = verdict(checks);
  } catch (error) {
    output.dataset["ok"] = "false";
    output.textContent = explain(error).message;
  }
  button.disabled = current() === undefined;
}

function verdict(checks: readonly OutputCheck[]): string {
  const wrong = checks.filter(({ ok }) => !ok);
  const worst = Math.max(0, ...checks.map(({ maxAbsError }) => maxAbsError)).toExponential(1);
  if (!wrong.length) {
    return `Passed: the same results as when the model was built, to within ${worst}.`;
  }
  const names = [...new Set(wrong.map(({ output }) => output))].join(", ");
  return `Failed: ${names} differs by up to ${worst}. Try another device, and please report this.`;
}
