/** The list of conversations: open, rename, delete. */
import { byId, make } from "../page.js";
import type { Conversation } from "./conversation.js";
import { iconButton } from "./icons.js";

export interface HistoryActions {
  open(conversation: Conversation): void;
  rename(conversation: Conversation, title: string): void;
  delete(conversation: Conversation): void;
}

export class HistoryView {
  private readonly past = byId("past");

  constructor(private readonly actions: HistoryActions) {}

  show(conversations: readonly Conversation[], current: string): void {
    if (this.past.querySelector("input")) return; // a title is being written
    const restore = this.rememberFocus();
    const groups = new Map<string, HTMLElement>();
    for (const conversation of conversations) {
      const day = dayOf(conversation.updated);
      if (!groups.has(day)) groups.set(day, make("ol", { "aria-label": day }));
      groups.get(day)!.append(this.item(conversation, conversation.id === current));
    }
    this.past.replaceChildren(
      ...[...groups].flatMap(([day, list]) => [make("h3", { "aria-hidden": "true" }, day), list]),
    );
    restore();
  }

  /** The list is made anew; whoever was in it stays there: on the same button, or in the same place. */
  private rememberFocus(): () => void {
    const items = [...this.past.querySelectorAll("li")];
    const index = items.findIndex((item) => item.contains(document.activeElement));
    if (index < 0) return () => undefined;
    const id = items[index]!.dataset["id"];
    const button = [...items[index]!.querySelectorAll("button")].findIndex((one) => one === document.activeElement);
    return () => {
      const next = [...this.past.querySelectorAll("li")];
      const same = next.find((item) => item.dataset["id"] === id);
      const place = same ?? next[Math.min(index, next.length - 1)];
      (place?.querySelectorAll("button")[same ? button : 0] ?? byId("new")).focus();
    };
  }

  private item(conversation: Conversation, current: boolean): HTMLElement {
    const open = (): void => {
      closeDrawer();
      this.actions.open(conversation);
    };
    const title = make("button", { type: "button", class: "quiet title", click: open }, conversation.title);
    title.title = conversation.title;
    if (current) title.setAttribute("aria-current", "true");
    const rename = iconButton("edit", `Rename “${conversation.title}”`, () => this.edit(item, conversation));
    const remove = iconButton("remove", `Delete “${conversation.title}”`, () => this.actions.delete(conversation));
    const item = make("li", { "data-id": conversation.id }, title, make("span", { class: "actions" }, rename, remove));
    return item;
  }

  private edit(item: HTMLElement, conversation: Conversation): void {
    const input = make("input", { type: "text", "aria-label": "Title", maxlength: "120" });
    input.value = conversation.title;
    const before = [...item.childNodes];
    item.replaceChildren(input);
    input.select();
    let done = false;
    const finish = (keep: boolean): void => {
      if (done) return; // leaving the page's tree takes the focus away, which ends here again
      done = true;
      const title = input.value.trim();
      item.replaceChildren(...before);
      if (keep && title && title !== conversation.title) this.actions.rename(conversation, title);
      else item.querySelector<HTMLElement>(".actions button")?.focus();
    };
    input.addEventListener("blur", () => finish(true));
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.preventDefault();
      event.stopPropagation();
      finish(event.key === "Enter");
    });
  }
}

/** On narrow screens the list lies over the conversation. */
export function closeDrawer(): void {
  const drawer = byId("history");
  if (drawer.matches(":popover-open")) drawer.hidePopover();
}

function dayOf(time: number): string {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  if (time >= midnight.getTime()) return "Today";
  return time >= midnight.setDate(midnight.getDate() - 1) ? "Yesterday" : "Earlier";
}
