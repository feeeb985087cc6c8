/** The page of any model: what goes in and out, a run on the recorded sample, its timings. */
import type { Model, Port, Tensor } from "../index.js";
import { byId, formatTime, make, median } from "./page.js";
import { shapeText, snippet } from "./snippet.js";
import { start } from "./shell.js";

const RUNS = 20;
// Bars of the picture of an output's values.
const BINS = 96;

const runButton = byId<HTMLButtonElement>("run");
const measureButton = byId<HTMLButtonElement>("measure");

type Outputs = Record<string, Tensor>;
interface Result {
  readonly outputs: Outputs;
  readonly times: readonly number[];
}

/** The input is the number of runs. */
const shell = start<number, Result>({
  async run({ model }, runs) {
    const sample = await model.sample();
    const times: number[] = [];
    let outputs: Outputs = {};
    for (let i = 0; i < runs; i++) {
      const begin = performance.now();
      outputs = await model.run(sample);
      times.push(performance.now() - begin);
    }
    return { outputs, times };
  },
  show({ outputs, times }) {
    const spread = `median of ${times.length}, ${formatTime(Math.min(...times))} to ${formatTime(Math.max(...times))}`;
    byId("timing").replaceChildren(
      formatTime(median(times)) + " ", make("small", {}, times.length > 1 ? spread : "one run"),
    );
    byId("outputs").replaceChildren(
      ...Object.entries(outputs).map(([name, tensor]) => describe(name, tensor)),
    );
  },
  ready({ model }) {
    showPorts(model);
    runButton.disabled = measureButton.disabled = false;
    byId("code").textContent = snippet(model);
  },
});

function showPorts(model: Model): void {
  const row = ({ name, dtype, shape }: Port): HTMLElement =>
    make("tr", {},
      make("td", { class: "mono" }, name), make("td", { class: "mono" }, dtype),
      make("td", { class: "mono" }, shapeText(shape)));
  const group = (title: string, ports: readonly Port[]): HTMLElement =>
    make("tbody", {},
      make("tr", {}, make("th", { scope: "rowgroup", colspan: "3" }, title)), ...ports.map(row));
  const table = byId("ports");
  for (const body of table.querySelectorAll("tbody")) body.remove();
  table.append(group("Inputs", model.inputs), group("Outputs", model.outputs));
  byId("dims").textContent = model.dims
    .map(({ name, min, max }) => `${name}: ${min} to ${max}`).join(" · ");
}

function describe(name: string, tensor: Tensor): HTMLElement {
  const values = tensor.toFloat32();
  let low = Infinity;
  let high = -Infinity;
  let sum = 0;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
    sum += value;
  }
  const short = (value: number): string => String(Number(value.toPrecision(4)));
  const first = [...values.slice(0, 6)].map(short).join(", ") + (values.length > 6 ? ", …" : "");
  const range = values.length
    ? `from ${short(low)} to ${short(high)}, mean ${short(sum / values.length)}` : "empty";
  const label = `${name} ${tensor.dtype} [${tensor.shape.join(", ")}]`;
  const title = make("h3", {}, make("span", { class: "mono" }, label));
  const box = make("div", { class: "output" }, title, make("p", {}, range), make("p", { class: "mono" }, first));
  if (values.length > 3 && high > low) box.append(picture(values, low, high));
  return box;
}

/** The values in their order as bars from zero, each the one farthest from it of its stretch. */
function picture(values: Float32Array, low: number, high: number): Element {
  const bins = Math.min(BINS, values.length);
  const [bottom, top] = [Math.min(0, low), Math.max(0, high)];
  const height = (value: number): number => (32 * (top - value)) / (top - bottom);
  let path = "";
  for (let i = 0; i < bins; i++) {
    const begin = Math.floor((i * values.length) / bins);
    const end = Math.max(begin + 1, Math.floor(((i + 1) * values.length) / bins));
    const value = values.subarray(begin, end).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
    path += `M${i} ${height(0)}V${height(value)}h.7V${height(0)}z`;
  }
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${bins} 32`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const bars = document.createElementNS("http://www.w3.org/2000/svg", "path");
  bars.setAttribute("d", path);
  svg.append(bars);
  return svg;
}

runButton.addEventListener("click", () => shell.ask(1));
measureButton.addEventListener("click", () => shell.ask(RUNS));
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("code").textContent ?? "");
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
});
shell.ask(1);
