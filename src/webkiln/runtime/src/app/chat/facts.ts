/** The line below the text field: how far loading is, where the model runs, and how fast. */
import type { Model, Progress } from "../../index.js";
import { byId, formatBytes, formatTime, make } from "../page.js";
import { deviceText } from "../status.js";
import { formatSpeed } from "./answer.js";
import type { Cost } from "./conversation.js";

type State = "loading" | "busy" | "ready" | "failed";

const PHASES: Record<Progress["phase"], string> = {
  weights: "Downloading the model", compile: "Preparing the model", ready: "Ready",
};
// From these shares of the context on, its meter is shown on phones too, and warns.
const HALF = 0.5;
const NEARLY_FULL = 0.85;

/** Says what is going on, and on which device where that is known. */
export function setState(state: State, text: string, device = ""): void {
  byId("state").dataset["state"] = state;
  // On narrow screens the dot alone says that it is ready.
  const parts = device ? [make("span", { class: "what" }, `${text} · `), device] : [text];
  byId("state-text").replaceChildren(...parts);
  byId("state-bytes").hidden = byId("progress").hidden = state !== "loading";
}

export function showProgress({ phase, loaded, total }: Progress): void {
  setState("loading", PHASES[phase]);
  const amount = `${formatBytes(loaded)} of ${formatBytes(total)}`;
  byId("state-bytes").textContent = phase === "weights" ? amount : "";
  byId<HTMLProgressElement>("progress").value = total > 0 ? loaded / total : 0;
}

export function showDevice(model: Model): void {
  const { name, note } = deviceText(model);
  byId("fact-device").textContent = name;
  byId("fact-device-note").textContent = note;
  byId("fact-download").textContent = formatBytes(model.weightBytes);
  byId("fact-download-note").textContent = model.name;
  byId("state").title = `${model.name} on ${model.device.description}`;
}

/** What the model runs on, in a few words: the state of a page where all is well. */
export function deviceName(model: Model): string {
  return deviceText(model).name;
}

export function showSpeeds({ read, write, first }: Partial<Omit<Cost, "prompt" | "tokens">>): void {
  byId("speeds").hidden = false;
  const set = (id: string, speed: number | undefined): void => {
    if (speed !== undefined) byId(`speed-${id}`).textContent = byId(`fact-${id}`).textContent = formatSpeed(speed);
  };
  set("read", read);
  set("write", write);
  if (first !== undefined) byId("fact-first").textContent = formatTime(first);
}

/** How much of what the model can keep in mind is taken. */
export function showContext(used: number, size: number | undefined): void {
  const button = byId("context");
  button.hidden = size === undefined || used === 0;
  if (size === undefined) return;
  byId("fact-context").textContent = `${size.toLocaleString("en")} tokens`;
  const share = Math.min(1, used / size);
  byId("context-bar").style.transform = `scaleX(${share})`;
  const full = (byId("context-text").textContent = `${Math.round(100 * share)}%\u00a0full`);
  button.classList.toggle("half", share >= HALF);
  button.classList.toggle("nearly", share >= NEARLY_FULL);
  const text = `${used.toLocaleString("en")} of ${size.toLocaleString("en")} tokens of memory used`;
  button.title = text;
  button.setAttribute("aria-label", `${full}: ${text}`);
}
