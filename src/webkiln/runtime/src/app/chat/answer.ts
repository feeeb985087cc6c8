/** The answer of a turn: its text as it comes, how it ended, and what can be done with it. */
import { formatTime, make } from "../page.js";
import { announce } from "./announce.js";
import { splitThoughts, withoutThoughts, type Answer, type Cost, type Turn } from "./conversation.js";
import { copyButton } from "./copy.js";
import { iconButton } from "./icons.js";
import type { MarkdownView } from "./markdown.js";
import { heading, type TurnActions } from "./turn.js";

/** A part of its own, so that the page can be used before it is there. */
let markdown: Promise<typeof import("./markdown.js")> | undefined;

// Drawing may take this share of the time, so that long texts don't slow the model down.
const DRAWING_SHARE = 0.2;

export class AnswerView {
  readonly element = make("article", { class: "answer" });
  /** What is going on before the first word. */
  private readonly waiting = make("p", { class: "waiting" }, make("span"), make("i", { "aria-hidden": "true" }));
  private readonly thoughts = make("details", { class: "thoughts" }, make("summary", {}, "Thoughts"), make("p"));
  private readonly text = make("div", { class: "markdown", dir: "auto" });
  private readonly end = make("div", { class: "ending" });
  private readonly foot = make("div", { class: "actions" });
  private view: MarkdownView | undefined;
  private planned = false;
  private announced = 0;

  constructor(
    private readonly turn: Turn,
    private readonly actions: TurnActions,
    private readonly edit: () => void,
  ) {
    this.element.append(
      heading("Answer"), this.waiting, this.thoughts, this.text, this.end, this.foot,
    );
    this.reset();
  }

  set last(last: boolean) {
    this.element.classList.toggle("last", last);
    this.finish();
  }

  private get answer(): Answer | undefined {
    return this.turn.answers[this.turn.chosen];
  }

  /** Another answer is to be shown, or the same from the start. */
  reset(): void {
    this.text.replaceChildren();
    this.view = undefined;
    this.announced = 0;
    this.wait("");
    void this.draw();
    this.finish();
  }

  /** Says what is being waited for; "" for nothing. */
  wait(reason: string): void {
    this.waiting.hidden = !reason;
    this.waiting.firstElementChild!.textContent = reason;
  }

  /** The answer has grown. Draws soon, and not more often than is of use. */
  grown(): void {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(async () => {
      const begin = performance.now();
      await this.draw();
      this.speak(false);
      const rest = ((performance.now() - begin) * (1 - DRAWING_SHARE)) / DRAWING_SHARE;
      setTimeout(() => {
        this.planned = false;
        // What came meanwhile waits for the next piece, or for the end.
      }, rest);
    });
  }

  /** The answer has come to its end. */
  async ended(): Promise<void> {
    this.wait("");
    await this.draw();
    this.finish();
    this.speak(true);
  }

  private async draw(): Promise<void> {
    markdown ??= import("./markdown.js");
    const { MarkdownView } = await markdown;
    const { thoughts, answer } = splitThoughts(this.answer?.text ?? "");
    if (thoughts || answer) this.wait("");
    this.thoughts.hidden = !thoughts;
    this.thoughts.lastElementChild!.textContent = thoughts;
    this.thoughts.classList.toggle("going-on", Boolean(thoughts) && !answer && !this.answer?.ending);
    this.view ??= new MarkdownView(this.text);
    this.blocks = this.view.update(answer);
  }

  private blocks: readonly HTMLElement[] = [];

  /** Tells a screen reader the paragraphs that are complete. */
  private speak(all: boolean): void {
    const complete = all ? this.blocks.length : this.blocks.length - 1;
    for (; this.announced < complete; this.announced++) {
      announce(this.blocks[this.announced]!.textContent ?? "");
    }
  }

  private finish(): void {
    const { answer } = this;
    const over = answer !== undefined && answer.ending !== undefined;
    this.element.classList.toggle("over", over);
    this.end.replaceChildren(...(answer ? this.ending(answer) : []));
    this.foot.replaceChildren();
    if (!over) return;
    if (withoutThoughts(answer.text)) {
      this.foot.append(copyButton("Copy this answer", () => withoutThoughts(answer.text)));
    }
    if (this.element.classList.contains("last")) {
      this.foot.append(iconButton("again", "Answer again", () => this.actions.again(this.turn)));
    }
    if (this.turn.answers.length > 1) this.foot.append(this.versions());
    if (answer.cost) this.foot.append(make("p", { class: "cost" }, costText(answer.cost)));
  }

  /** Says so when the end is not the model's own, and what can be done. */
  private ending({ ending, text, problem }: Answer): Node[] {
    const again = (label: string): HTMLElement =>
      make("button", { type: "button", click: () => this.actions.again(this.turn) }, label);
    const afresh = make(
      "button", { type: "button", class: "primary", click: () => this.actions.startAfresh() }, "Start afresh",
    );
    const edit = make("button", { type: "button", click: this.edit }, "Edit the message");
    const last = this.element.classList.contains("last");
    const row = (...buttons: HTMLElement[]): Node[] => (last ? [make("div", { class: "row" }, ...buttons)] : []);
    switch (ending) {
      case "stopped":
        return [make("p", {}, text ? "Stopped here." : "Stopped before the first word.")];
      case "length":
        return [make("p", {}, "Cut off: this is the longest answer that the settings allow.")];
      case "context": {
        const why = text ? "The conversation is full: the model can't keep more than this in mind." : problem?.message;
        return [make("p", {}, why ?? "The conversation is full."), ...row(afresh, edit)];
      }
      case "failed": {
        const { title, message, hint } = problem ?? { title: "This answer broke off", message: "", hint: "" };
        return [make("p", {}, make("b", {}, `${title}. `), `${message} ${hint}`), ...row(again("Try again"))];
      }
      default:
        return [];
    }
  }

  private versions(): HTMLElement {
    const { answers, chosen } = this.turn;
    const go = (index: number): void => this.actions.choose(this.turn, index);
    const back = iconButton("back", "The answer before", () => go(chosen - 1));
    const forth = iconButton("forth", "The next answer", () => go(chosen + 1));
    back.disabled = chosen === 0;
    forth.disabled = chosen === answers.length - 1;
    const place = make("span", {}, `${chosen + 1} of ${answers.length}`);
    return make("span", { class: "versions" }, back, place, forth);
  }
}

function costText({ tokens, write, first }: Cost): string {
  const speed = write ? ` · ${formatSpeed(write)} tokens/s` : "";
  return `${tokens.toLocaleString("en")} tokens${speed} · first word after ${formatTime(first)}`;
}

export function formatSpeed(speed: number): string {
  return speed < 10 ? speed.toFixed(1) : Math.round(speed).toLocaleString("en");
}
