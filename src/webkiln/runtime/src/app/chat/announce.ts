/** What a screen reader is told: whole paragraphs, politely, never single tokens. */
import { byId, make } from "../page.js";

// More than anyone waits for; the region must not grow with the conversation.
const KEPT = 40;

export function announce(text: string): void {
  const region = byId("announce");
  const said = text.replace(/\s+/g, " ").trim();
  if (!said) return;
  region.append(make("p", {}, said));
  while (region.childElementCount > KEPT) region.firstElementChild!.remove();
}
