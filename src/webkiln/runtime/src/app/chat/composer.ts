/** The text field: it grows with its text, Enter sends, and one may write while an answer comes. */
import { byId } from "../page.js";

export interface ComposerActions {
  send(text: string): void;
  stop(): void;
  /** The arrow up in an empty field. */
  editLast(): void;
}

// A reload keeps what is half written, for as long as the tab lives.
const DRAFT = `webkiln draft ${new URL("./", document.baseURI).pathname}`;

export class Composer {
  private readonly field = byId<HTMLTextAreaElement>("prompt");
  private readonly sendButton = byId<HTMLButtonElement>("send");
  private readonly stopButton = byId<HTMLButtonElement>("stop");
  private answering = false;

  constructor(private readonly actions: ComposerActions) {
    this.field.addEventListener("input", () => this.changed());
    this.field.addEventListener("keydown", (event) => this.pressed(event));
    byId<HTMLFormElement>("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.stopButton.addEventListener("click", () => actions.stop());
    addEventListener("resize", () => this.grow());
    this.field.value ||= recall(); // someone may have begun before the script was there
    this.changed();
    this.focusOnDesktop();
  }

  /** While an answer is written, the button stops it. */
  set busy(answering: boolean) {
    const focused = document.activeElement;
    this.answering = answering;
    this.stopButton.hidden = !answering;
    this.sendButton.hidden = answering;
    // The button under the focus goes; the focus stays with its successor.
    if (focused === this.sendButton) this.stopButton.focus();
    if (focused === this.stopButton) this.field.focus();
  }

  /** Not on a phone, where it would open the keyboard over what one wants to see. */
  focusOnDesktop(): void {
    if (matchMedia("(hover: hover) and (pointer: fine)").matches) this.field.focus();
  }

  private send(): void {
    const text = this.field.value.trim();
    if (!text || this.answering) return;
    this.field.value = "";
    this.changed();
    this.actions.send(text);
  }

  private pressed(event: KeyboardEvent): void {
    if (event.isComposing) return; // Enter chooses a candidate of an input method
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      this.send();
    } else if (event.key === "ArrowUp" && !this.field.value) {
      event.preventDefault();
      this.actions.editLast();
    }
  }

  private changed(): void {
    this.sendButton.disabled = !this.field.value.trim();
    this.grow();
    try {
      sessionStorage.setItem(DRAFT, this.field.value);
    } catch {
      // Storage may be forbidden; the draft then lasts as long as the page.
    }
  }

  private grow(): void {
    grow(this.field);
  }
}

/** As high as its text; a style sheet says where that ends. */
export function grow(field: HTMLTextAreaElement): void {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

function recall(): string {
  try {
    return sessionStorage.getItem(DRAFT) ?? "";
  } catch {
    return "";
  }
}
