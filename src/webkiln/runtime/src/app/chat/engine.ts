/** The model behind the page: loading it, on this device or that one. */
import { pipeline } from "../../index.js";
import type { DeviceOption, Model, Progress } from "../../index.js";
import type { Llm } from "./llm.js";

export interface EngineEvents {
  progress(progress: Progress): void;
  /** The model is there, or has moved to another device. */
  device(model: Model): void;
  ready(llm: Llm): void;
  failed(error: unknown, retry: () => void): void;
}

export class Engine {
  llm: Llm | undefined;
  private opening: AbortController | undefined;
  private waiting: ((llm: Llm) => void)[] = [];

  constructor(private readonly events: EngineEvents) {}

  async open(where: DeviceOption): Promise<void> {
    this.opening?.abort();
    const { signal } = (this.opening = new AbortController());
    const old = this.llm;
    this.llm = undefined;
    const { progress: onProgress, device, ready, failed } = this.events;
    let opened: Llm | undefined;
    // Called for as long as the model lives; it may have made room for another one meanwhile.
    const onDevice = (model: Model): void => void (opened && this.llm === opened && device(model));
    try {
      await old?.dispose();
      const options = { device: where, signal, onProgress, onDevice };
      this.llm = opened = (await pipeline("./", options)) as unknown as Llm;
      device(opened.model);
      ready(opened);
      for (const go of this.waiting.splice(0)) go(opened);
    } catch (error) {
      if (!signal.aborted) failed(error, () => void this.open(where));
    }
  }

  /** Waits until the model is there, however often that has to be tried. Rejects when aborted. */
  ready(signal: AbortSignal): Promise<Llm> {
    if (this.llm) return Promise.resolve(this.llm);
    return new Promise((go, stop) => {
      this.waiting.push(go);
      signal.addEventListener("abort", () => {
        this.waiting = this.waiting.filter((other) => other !== go);
        stop(signal.reason);
      });
    });
  }
}
