/** The page of a text encoder: which of some sentences means most nearly what one is looking for. */
import type { Pipeline } from "../index.js";
import { cosineSimilarity } from "../tasks/feature-extraction.js";
import { announce, byId, drawBars, formatTime, make, samples } from "./page.js";
import { start } from "./shell.js";

const PAUSE_MS = 200;
const query = byId<HTMLInputElement>("query");
const list = byId("sentences");

/** Vectors of texts already read; a change of one sentence costs one run. */
const vectors = new Map<string, Float32Array>();

interface Compared {
  readonly query: string;
  readonly sentences: readonly string[];
  readonly runs: number;
}

async function embed(
  pipeline: Pipeline<string, Float32Array>, texts: readonly string[],
): Promise<number> {
  let runs = 0;
  for (const text of texts) {
    if (vectors.has(text)) continue;
    vectors.set(text, await pipeline(text));
    runs++;
  }
  return runs;
}

type Input = Pick<Compared, "query" | "sentences">;

const shell = start<Input, Compared>({
  async run(pipeline, input) {
    const texts = [input.query, ...input.sentences].filter(Boolean);
    const encoder = pipeline as unknown as Pipeline<string, Float32Array>;
    return { ...input, runs: await embed(encoder, texts) };
  },
  show(compared, _, ms) {
    showRanking(compared);
    showMatrix(compared.sentences);
    const { runs } = compared;
    if (runs) byId("result-note").textContent = `${runs} ${runs > 1 ? "texts" : "text"} in ${formatTime(ms)}.`;
  },
  ready: () => vectors.clear(),
});

/** Two digits, and no minus before a zero. */
function short(score: number): string {
  return (Math.round(score * 100) / 100 + 0).toFixed(2);
}

function similarity(a: string, b: string): number {
  return cosineSimilarity(vectors.get(a)!, vectors.get(b)!);
}

function showRanking({ query: wanted, sentences }: Compared): void {
  const ranked = (wanted ? [...new Set(sentences)] : [])
    .map((text) => ({ text, score: similarity(wanted, text) }))
    .sort((a, b) => b.score - a.score);
  drawBars(byId("bars"), ranked.map(({ text, score }) => ({
    name: text, share: score, value: short(score),
  })));
  if (ranked[0]) announce(`Closest: ${ranked[0].text}, ${short(ranked[0].score)}`);
}

function showMatrix(sentences: readonly string[]): void {
  const numbers = sentences.map((_, i) => make("th", { scope: "col" }, String(i + 1)));
  const rows = sentences.map((text, i) => {
    const cells = sentences.map((other) => {
      const score = similarity(text, other);
      const heat = Math.max(0, score) ** 1.5;
      // Where the text is easier to read in the colour that goes with the accent.
      const cell = make("td", { class: heat > 0.75 ? "hot" : "" }, short(score));
      cell.style.setProperty("--heat", String(heat));
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row" }, `${i + 1}. ${text}`), ...cells);
  });
  byId("matrix").replaceChildren(
    make("thead", {}, make("tr", {}, make("td", {}), ...numbers)), make("tbody", {}, ...rows),
  );
  byId("matrix").querySelector("td")!.style.background = "none";
}

let pause: number | undefined;
function compare(): void {
  clearTimeout(pause);
  const inputs = [...list.querySelectorAll("input")];
  const sentences = inputs.map(({ value }) => value.trim()).filter(Boolean);
  shell.ask({ query: query.value.trim(), sentences });
}
function later(): void {
  clearTimeout(pause);
  pause = window.setTimeout(compare, PAUSE_MS);
}

function addSentence(text: string): HTMLInputElement {
  const input = make("input", { type: "text", autocomplete: "off", "aria-label": "Sentence", input: later });
  input.value = text;
  const remove = (): void => {
    const neighbour = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    (neighbour?.querySelector("input") ?? byId("add")).focus();
    compare();
  };
  const button = make("button", { type: "button", class: "quiet icon", "aria-label": "Remove", click: remove }, "✕");
  const row = make("li", {}, input, button);
  list.append(row);
  return input;
}

function fill(): void {
  const [first = "", ...others] = samples<string>();
  query.value = first;
  list.replaceChildren();
  others.forEach(addSentence);
  compare();
}

query.addEventListener("input", later);
byId("add").addEventListener("click", () => addSentence("").focus());
byId("reset").addEventListener("click", fill);
fill();
