/** The page of a text classifier: the answer follows while one types. */
import type { Classification } from "../tasks/text-classification.js";
import { colourOf } from "./colours.js";
import { announce, byId, drawBars, formatTime, make, percent, samples } from "./page.js";
import { start } from "./shell.js";

// Long enough not to run on every key of a fast typist, too short to be felt as waiting.
const PAUSE_MS = 120;

const text = byId<HTMLTextAreaElement>("text");
const verdict = byId("verdict");

const shell = start<string, Classification[]>({
  run: (pipeline, input) => pipeline(input),
  show(classes, input, ms) {
    if (input !== text.value.trim()) return; // a newer text is on its way
    drawBars(byId("bars"), classes.slice(0, 8).map(({ label, score }) => ({
      name: label, share: score, value: percent(score), colour: colourOf(label),
    })));
    const [best] = classes as [Classification];
    verdict.style.setProperty("--own", colourOf(best.label));
    verdict.textContent = best.label;
    verdict.hidden = false;
    byId("result-note").textContent = `In ${formatTime(ms)}.`;
    announce(`${best.label}, ${percent(best.score)}`);
  },
});

let pause: number | undefined;
function read(): void {
  clearTimeout(pause);
  for (const button of byId("samples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.textContent === text.value));
  }
  const input = text.value.trim();
  if (input) {
    shell.ask(input);
    return;
  }
  verdict.hidden = true;
  drawBars(byId("bars"), []);
  byId("result-note").textContent = "The classes appear here.";
}
text.addEventListener("input", () => {
  clearTimeout(pause);
  pause = window.setTimeout(read, PAUSE_MS);
});

const texts = samples<string>();
for (const sample of texts) {
  const choose = (): void => {
    text.value = sample;
    read();
  };
  byId("samples").append(make("button", { type: "button", click: choose }, sample));
}
byId("samples").hidden = texts.length === 0;
if (texts[0]) {
  text.value = texts[0];
  read();
}
