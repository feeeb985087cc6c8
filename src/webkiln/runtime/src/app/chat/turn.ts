/** One turn on the page: the question, with its editor, and the answer below. */
import { make } from "../page.js";
import { AnswerView } from "./answer.js";
import { grow } from "./composer.js";
import type { Turn } from "./conversation.js";
import { copyButton } from "./copy.js";
import { iconButton } from "./icons.js";

export interface TurnActions {
  /** Asks anew with another text; what came after the turn goes. */
  edit(turn: Turn, text: string): void;
  /** Asks for another answer to the same question. */
  again(turn: Turn): void;
  choose(turn: Turn, index: number): void;
  startAfresh(): void;
}

export class TurnView {
  readonly element: HTMLLIElement;
  readonly answer: AnswerView;
  private readonly question: HTMLElement;

  constructor(readonly turn: Turn, private readonly actions: TurnActions) {
    this.question = make("article", { class: "question" });
    this.answer = new AnswerView(turn, actions, () => this.edit());
    this.element = make("li", { class: "turn" }, this.question, this.answer.element);
    this.read();
  }

  /** Only the last turn can be answered anew: what follows would not fit any more. */
  set last(last: boolean) {
    this.element.classList.toggle("last", last);
    this.answer.last = last;
  }

  /** Opens the editor in place of the question. */
  edit(): void {
    const field = make("textarea", { "aria-label": "Edit your message", rows: "1", dir: "auto" });
    field.value = this.turn.question;
    const send = make("button", { type: "submit", class: "primary" }, "Send");
    const cancel = make("button", { type: "button", class: "quiet", click: () => close() }, "Cancel");
    const hint = make("p", { class: "hint" }, "What comes after this message is replaced.");
    hint.hidden = this.element.classList.contains("last");
    const form = make("form", { class: "editor" }, field, hint, make("div", { class: "row" }, cancel, send));
    const close = (): void => {
      this.read();
      this.question.querySelector<HTMLElement>(".edit")?.focus();
    };
    const submit = (event: Event): void => {
      event.preventDefault();
      const text = field.value.trim();
      if (text) this.actions.edit(this.turn, text);
    };
    form.addEventListener("submit", submit);
    field.addEventListener("input", () => grow(field));
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey) submit(event);
      else if (event.key === "Escape") close();
      else return;
      event.preventDefault();
      event.stopPropagation(); // Escape here does not stop an answer
    });
    this.question.replaceChildren(heading("You"), form);
    grow(field);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  private read(): void {
    const edit = iconButton("edit", "Edit this message", () => this.edit());
    edit.classList.add("edit");
    const copy = copyButton("Copy this message", () => this.turn.question);
    this.question.replaceChildren(
      heading("You"), make("p", { class: "said", dir: "auto" }, this.turn.question),
      make("div", { class: "actions" }, copy, edit),
    );
  }
}

/** For those who hear the page, and go from one message to the next. */
export function heading(who: string): HTMLElement {
  return make("h2", { class: "visually-hidden" }, who);
}
