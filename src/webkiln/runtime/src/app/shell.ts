/** What all pages share: loading, the facts of how it runs, errors, the switch of devices, self-test. */
import { pipeline as open, WebkilnError } from "../index.js";
import type { DeviceOption, Model, Pipeline, Progress } from "../index.js";
import { byId, formatBytes, formatTime, median } from "./page.js";
import { clearError, explain, showError } from "./problems.js";
import { deviceText, selfTest } from "./status.js";
import { offerInstall, themeButton, workOffline } from "./system.js";

export interface Page<Input, Output> {
  /** Computes a result; usually the pipeline itself. */
  run(pipeline: Pipeline<Input, Output>, input: Input): Promise<Output>;
  /** Shows it. `ms` is how long it took, preparation included. */
  show(output: Output, input: Input, ms: number): void;
  /** The model is there, for the first time or on another device. */
  ready?(pipeline: Pipeline<Input, Output>): void;
  /** A result could not be had; the reason is on the page already. */
  failed?(): void;
}

export interface Shell<Input> {
  /** Asks for a result. Of several inputs that come while one is computed, the last is taken. */
  ask(input: Input): void;
}

// Runs that the figure "each run" is the median of, and what they may take together.
const RUNS = 7;
const MEASURE_MS = 1200;
// A computation that takes longer is said to be under way.
const SLOW_MS = 400;

export function start<Input, Output>(page: Page<Input, Output>): Shell<Input> {
  const shell = new Runner(page);
  themeButton(byId("theme"));
  offerInstall(byId("install"));
  shell.watchControls();
  void shell.open("auto");
  return shell;
}

class Runner<Input, Output> implements Shell<Input> {
  private pipeline: Pipeline<Input, Output> | undefined;
  private opening: AbortController | undefined;
  private next: { input: Input } | undefined;
  private last: { input: Input } | undefined;
  private busy = false;
  private measured = false;
  private firstShown = false;

  constructor(private readonly page: Page<Input, Output>) {}

  ask(input: Input): void {
    this.next = this.last = { input };
    void this.work();
  }

  async open(device: DeviceOption): Promise<void> {
    this.opening?.abort();
    const opening = (this.opening = new AbortController());
    const { signal } = opening;
    clearError();
    setState("loading", "Loading the model…");
    const old = this.pipeline;
    this.pipeline = undefined;
    byId<HTMLButtonElement>("selftest").disabled = true;
    try {
      await old?.dispose();
      const onDevice = (model: Model): void => this.moved(model);
      const options = { device, signal, onProgress: showProgress, onDevice };
      this.pipeline = await open<Input, Output>("./", options);
      this.measured = false;
      setState("ready", `Ready · ${this.pipeline.model.name}`);
      showDevice(this.pipeline.model);
      byId("fact-run").textContent = "–";
      this.page.ready?.(this.pipeline);
      this.next ??= this.last;
      void this.work();
    } catch (error) {
      if (signal.aborted) return; // another device was chosen meanwhile
      setState("failed", "The model is not loaded");
      this.report(error, () => void this.open(device));
    }
  }

  /** Another device is being tried, or was taken. Its timings disturb ours, which are taken anew. */
  private moved(model: Model): void {
    if (this.pipeline?.model !== model) return;
    showDevice(model);
    if (model.comparing) return;
    this.measured = false;
    if (!this.busy) this.measureSoon(this.pipeline);
  }

  /** Computes what was asked for last, until nothing is left to do; then measures. */
  private async work(): Promise<void> {
    const { pipeline } = this;
    if (!pipeline || this.busy) return;
    this.busy = true;
    document.body.classList.add("busy");
    const ready = `Ready · ${pipeline.model.name}`;
    const slow = setTimeout(() => setState("busy", `Computing · ${pipeline.model.name}`), SLOW_MS);
    while (this.next && this.pipeline === pipeline) await this.answer(pipeline);
    clearTimeout(slow);
    document.body.classList.remove("busy");
    if (this.pipeline === pipeline) setState("ready", ready);
    this.busy = false;
    if (this.pipeline !== pipeline) return this.work();
    if (!this.measured) this.measureSoon(pipeline);
  }

  private measureSoon(pipeline: Pipeline<Input, Output>): void {
    setTimeout(() => void this.measure(pipeline), 400);
  }

  private async answer(pipeline: Pipeline<Input, Output>): Promise<void> {
    const { input } = this.next!;
    this.next = undefined;
    const begin = performance.now();
    try {
      const output = await this.page.run(pipeline, input);
      clearError();
      this.page.show(output, input, performance.now() - begin);
      this.showFirst("after opening the page");
    } catch (error) {
      if (this.pipeline !== pipeline) return; // the model was disposed under the run
      this.page.failed?.();
      this.report(error, () => this.ask(input));
    }
  }

  /** Times the bare model on its recorded sample while nothing else is to be done. */
  private async measure(pipeline: Pipeline<Input, Output>): Promise<void> {
    if (this.busy || this.measured || this.pipeline !== pipeline) return;
    if (this.firstShown && pipeline.model.comparing) return;
    this.measured = true;
    const times: number[] = [];
    try {
      const sample = await pipeline.model.sample();
      for (let spent = 0; times.length < RUNS && spent < MEASURE_MS && !this.next; ) {
        const begin = performance.now();
        await pipeline.model.run(sample);
        times.push(performance.now() - begin);
        spent += times.at(-1)!;
        this.showFirst("on a recorded sample");
      }
    } catch (error) {
      if (this.pipeline === pipeline) this.report(error, () => location.reload());
      return;
    }
    byId("fact-run").textContent = formatTime(median(times));
    byId("fact-run-note").textContent = `of the model, median of ${times.length}`;
    void workOffline(byId("fact-download-note"), pipeline.model);
  }

  private showFirst(note: string): void {
    if (this.firstShown) return;
    this.firstShown = true;
    // performance.now() counts from the moment the page was asked for.
    byId("fact-first").textContent = formatTime(performance.now());
    byId("fact-first-note").textContent = note;
  }

  private report(error: unknown, retry: () => void): void {
    const problem = explain(error);
    const other = error instanceof WebkilnError && /^(no-)?web(gpu)?/.test(error.code);
    if (!other) return showError(problem, problem.fatal ? retry : undefined);
    showError(problem, () => {
      byId("error").closest("main")!.querySelector<HTMLInputElement>("[value=auto]")!.checked = true;
      void this.open("auto");
    }, "Choose a device for me");
  }

  watchControls(): void {
    for (const input of document.querySelectorAll<HTMLInputElement>("input[name=device]")) {
      input.addEventListener("change", () => void this.open(input.value as DeviceOption));
    }
    byId("selftest").addEventListener("click", () => {
      void selfTest(() => this.pipeline?.model);
    });
  }
}

function setState(state: "loading" | "busy" | "ready" | "failed", text: string): void {
  byId("state").dataset["state"] = state;
  byId("state-text").textContent = text;
  byId("progress").hidden = state !== "loading";
}

const PHASES: Record<Progress["phase"], string> = {
  weights: "Downloading the model", compile: "Preparing the model", ready: "Ready",
};

function showProgress({ phase, loaded, total }: Progress): void {
  const amount = `${formatBytes(loaded)} of ${formatBytes(total)}`;
  setState("loading", PHASES[phase] + (phase === "weights" ? ` · ${amount}` : "…"));
  byId<HTMLProgressElement>("progress").value = total > 0 ? loaded / total : 0;
  byId("fact-download").textContent = loaded < total ? amount : formatBytes(total);
}

function showDevice(model: Model): void {
  byId<HTMLButtonElement>("selftest").disabled = false;
  const { name, note } = deviceText(model);
  byId("fact-device").textContent = name;
  byId("fact-download").textContent = formatBytes(model.weightBytes);
  byId("fact-device-note").textContent = note;
}
