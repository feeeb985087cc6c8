/** Small things that every page needs: elements, numbers as people read them, bars. */

/** The element of the page with this id. The HTML of webkiln/tasks/templates has them all. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`The page has no element #${id}.`);
  return element as T;
}

type Properties = Readonly<Record<string, string | boolean | EventListener>>;

/** Makes an element: strings become attributes, functions listeners, `true` an empty attribute. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K, properties: Properties = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** What the build wrote into the page: samples to try. */
export function samples<T>(): T[] {
  return JSON.parse(byId("samples-data").textContent || "[]") as T[];
}

/** A number and its unit, which stay on one line. */
function amount(value: number, digits: number, unit: string): string {
  return `${value.toFixed(digits)}\u00a0${unit}`;
}

export function formatBytes(bytes: number): string {
  if (bytes >= 1e9) return amount(bytes / 1e9, 1, "GB");
  return bytes < 1e6
    ? amount(Math.ceil(bytes / 1e3), 0, "kB") : amount(bytes / 1e6, bytes < 1e8 ? 1 : 0, "MB");
}

export function formatTime(ms: number): string {
  if (ms >= 1000) return amount(ms / 1000, ms < 10_000 ? 2 : 1, "s");
  return amount(ms, ms < 10 ? 1 : 0, "ms");
}

export function percent(share: number): string {
  const value = share * 100;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}%`;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export interface Bar {
  readonly name: string;
  /** 0 to 1. */
  readonly share: number;
  readonly value: string;
  /** The default is the accent for the first bar and grey for the others. */
  readonly colour?: string | undefined;
}

/** Shows bars in a list. Rows stay, so that their lengths move. */
export function drawBars(list: HTMLElement, bars: readonly Bar[]): void {
  while (list.children.length > bars.length) list.lastElementChild!.remove();
  bars.forEach((bar, i) => {
    const row = (list.children[i] ?? list.appendChild(newRow())) as HTMLElement;
    const [name, value, track] = row.children as unknown as [HTMLElement, HTMLElement, HTMLElement];
    name.textContent = bar.name;
    value.textContent = bar.value;
    const share = Math.min(1, Math.max(0, bar.share));
    (track.firstElementChild as HTMLElement).style.transform = `scaleX(${share})`;
    if (bar.colour) row.style.setProperty("--own", bar.colour);
    else row.style.removeProperty("--own");
  });
}

function newRow(): HTMLElement {
  const fill = make("i");
  fill.style.transform = "scaleX(0)";
  return make("li", {},
    make("span", { class: "name" }), make("span", { class: "value" }),
    make("div", { class: "track", "aria-hidden": "true" }, fill),
  );
}

let announcing: number | undefined;
let announced = 0;

/** Tells a screen reader, once results stop changing or every three seconds while they don't stop. */
export function announce(text: string): void {
  clearTimeout(announcing);
  const wait = performance.now() - announced > 3000 ? 0 : 500;
  announcing = window.setTimeout(() => {
    announced = performance.now();
    byId("announce").textContent = text;
  }, wait);
}
