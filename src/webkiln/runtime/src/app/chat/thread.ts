/** The conversation on the page: its turns, and what stands there before the first. */
import { byId } from "../page.js";
import type { Conversation, Turn } from "./conversation.js";
import { TurnView, type TurnActions } from "./turn.js";

export class Thread {
  private readonly list = byId("turns");
  private views: TurnView[] = [];

  constructor(private readonly actions: TurnActions) {}

  /** Shows another conversation, or one whose turns have changed. */
  show({ turns }: Conversation): void {
    const known = new Map(this.views.map((view) => [view.turn, view]));
    this.views = turns.map((turn) => known.get(turn) ?? new TurnView(turn, this.actions));
    this.list.replaceChildren(...this.views.map(({ element }) => element));
    this.views.forEach((view, i) => (view.last = i === turns.length - 1));
    document.body.classList.toggle("talking", turns.length > 0);
  }

  view(turn: Turn): TurnView | undefined {
    return this.views.find((view) => view.turn === turn);
  }

  get last(): TurnView | undefined {
    return this.views.at(-1);
  }
}
