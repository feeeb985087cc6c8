/** How answers are to be: the system prompt and the choice of tokens, kept on this device. */
import { byId, make } from "../page.js";
import type { Sampling } from "./llm.js";

export interface Settings {
  system: string;
  sampling: Sampling;
}

/** What most people want to choose between; Balanced is what the model's makers recommend. */
const STYLES = {
  Precise: { temperature: 0.2, top_p: 0.9 },
  Balanced: {},
  Inventive: { temperature: 1.1, min_p: 0.05 },
} as const satisfies Record<string, Sampling>;

/** What the API does where neither the bundle nor the person says anything. */
const API: Sampling = { temperature: 1, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1 };

type Key = keyof Sampling;

interface Field {
  readonly key: Key;
  readonly name: string;
  readonly hint: string;
  readonly min: number;
  readonly max: number;
  readonly step: number;
  /** What an empty field means; fields without it are sliders. */
  readonly empty?: string;
}

const FIELDS: readonly Field[] = [
  { key: "temperature", name: "Temperature", min: 0, max: 2, step: 0.05,
    hint: "At 0 always the likeliest token; higher is more adventurous." },
  { key: "top_p", name: "Top p", min: 0.05, max: 1, step: 0.05,
    hint: "Only the likeliest tokens that together have this probability." },
  { key: "top_k", name: "Top k", min: 0, max: 200, step: 1,
    hint: "Only this many of the likeliest tokens; 0 is no limit." },
  { key: "min_p", name: "Min p", min: 0, max: 0.5, step: 0.01,
    hint: "Only tokens at least this likely, compared with the likeliest." },
  { key: "repetition_penalty", name: "Repetition penalty", min: 1, max: 1.5, step: 0.01,
    hint: "Above 1, tokens that have been used become less likely." },
  { key: "max_tokens", name: "Longest answer, in tokens", min: 1, max: 1_000_000, step: 1,
    empty: "as long as fits", hint: "A token is about three quarters of an English word." },
  { key: "seed", name: "Seed", min: 0, max: 4_294_967_295, step: 1,
    empty: "another one each time", hint: "The same seed and settings give the same answer again." },
];

const PLACE = `webkiln chat settings ${new URL("./", document.baseURI).pathname}`;

export function defaults(): Settings {
  return { system: "", sampling: {} };
}

/** What was chosen on an earlier visit. Nothing but numbers within their bounds is believed. */
export function recallSettings(): Settings {
  const settings = defaults();
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE) ?? "{}") as Partial<Settings>;
    if (typeof kept.system === "string") settings.system = kept.system;
    if (kept.sampling) settings.sampling = valid(kept.sampling);
  } catch {
    // Forbidden or damaged: the defaults, then.
  }
  return settings;
}

function valid(sampling: Sampling): Sampling {
  const right = FIELDS.filter(({ key, min, max }) => {
    const value = sampling[key];
    return typeof value === "number" && value >= min && value <= max;
  });
  return Object.fromEntries(right.map(({ key }) => [key, sampling[key]]));
}

function keep(settings: Settings): void {
  try {
    localStorage.setItem(PLACE, JSON.stringify(settings));
  } catch {
    // Forbidden: the choice lasts as long as the page.
  }
}

export interface SettingsForm {
  /** Shows what the model's makers recommend wherever nothing was chosen. */
  recommend(sampling: Sampling): void;
}

/** Puts the settings' part of the dialog to work; `settings` is changed in place. */
export function settingsForm(settings: Settings): SettingsForm {
  const system = byId<HTMLTextAreaElement>("system");
  const fields = FIELDS.map((field) => new FieldView(field, () => {
    settings.sampling = Object.fromEntries(
      fields.flatMap((view) => (view.value === undefined ? [] : [[view.field.key, view.value]])),
    );
    showStyle();
    keep(settings);
  }));
  const styles = Object.entries(STYLES).map(([name, style]) => {
    const input = make("input", { type: "radio", name: "style", value: name });
    input.addEventListener("change", () => {
      const { seed, max_tokens } = settings.sampling;
      settings.sampling = {
        ...style, ...(seed !== undefined && { seed }), ...(max_tokens !== undefined && { max_tokens }),
      };
      showAll();
      keep(settings);
    });
    byId("styles").append(make("label", {}, input, make("span", {}, name)));
    return { input, style };
  });
  const showStyle = (): void => {
    for (const { input, style } of styles) input.checked = matches(settings.sampling, style);
  };
  const showAll = (): void => {
    fields.forEach((view) => view.set(settings.sampling[view.field.key]));
    showStyle();
  };
  system.value = settings.system;
  system.addEventListener("input", () => {
    settings.system = system.value;
    keep(settings);
  });
  byId("sampling-reset").addEventListener("click", () => {
    settings.sampling = defaults().sampling;
    showAll();
    keep(settings);
  });
  byId("sampling-fields").append(...fields.map(({ element }) => element));
  showAll();
  return {
    recommend(sampling) {
      fields.forEach((view) => (view.usual = sampling[view.field.key] ?? API[view.field.key]));
      showAll();
    },
  };
}

/** The seed and the length have nothing to do with style. */
function matches(sampling: Sampling, style: Sampling): boolean {
  return FIELDS.filter(({ empty }) => empty === undefined)
    .every(({ key }) => sampling[key] === style[key]);
}

/** One setting: its name, a slider or a number, and what it does. */
class FieldView {
  readonly element: HTMLElement;
  /** What holds while nothing is chosen. */
  usual: number | undefined;
  /** What was chosen. */
  value: number | undefined;
  private readonly input: HTMLInputElement;
  private readonly output = make("output");

  constructor(readonly field: Field, changed: () => void) {
    const { key, name, hint, min, max, step, empty } = field;
    this.usual = API[key];
    const id = `sampling-${key}`;
    const number = empty !== undefined;
    this.input = make("input", {
      id, type: number ? "number" : "range", min: String(min), max: String(max), step: String(step),
      placeholder: empty ?? "", "aria-describedby": `${id}-hint`, ...(number && { inputmode: "numeric" }),
    });
    this.input.addEventListener("input", () => {
      this.value = this.read();
      this.show();
      changed();
    });
    this.element = make("div", { class: number ? "field" : "field slider" },
      make("label", { for: id }, name), this.output, this.input,
      make("p", { class: "hint", id: `${id}-hint` }, hint));
    this.output.htmlFor.add(id);
  }

  set(value: number | undefined): void {
    this.value = value;
    this.input.value = String(value ?? this.usual ?? "");
    this.show();
  }

  /** Undefined for an empty field. */
  private read(): number | undefined {
    const { min, max, step } = this.field;
    const value = this.input.valueAsNumber;
    if (!Number.isFinite(value)) return undefined;
    return Number(Math.min(max, Math.max(min, value)).toFixed(step < 1 ? 2 : 0));
  }

  private show(): void {
    this.output.textContent = this.field.empty === undefined ? String(Number(this.input.value)) : "";
  }
}
