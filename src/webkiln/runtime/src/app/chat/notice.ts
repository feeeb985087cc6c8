/** Short messages above the text field, and questions that must be answered first. */
import { byId, make } from "../page.js";

const SHOWN_MS = 8000;
let timer: number | undefined;

/** Says something, with a button for each action; goes by itself unless it is `lasting`. */
export function notice(
  text: string, actions: Readonly<Record<string, () => void>> = {}, lasting = false,
): void {
  clearTimeout(timer);
  byId("notice-text").textContent = text;
  const choices = Object.entries({ ...actions, Close: () => undefined });
  byId("notice-actions").replaceChildren(
    ...choices.map(([label, act]) => {
      const click = (): void => {
        hideNotice();
        act();
      };
      return make("button", { type: "button", class: label === "Close" ? "quiet" : "", click }, label);
    }),
  );
  // Where the list of conversations lies over the page, it would hide a message below.
  const drawer = document.querySelector("#history:popover-open");
  if (drawer) drawer.append(byId("notice"));
  else byId("composer").before(byId("notice"));
  byId("notice").hidden = false;
  if (!lasting) timer = window.setTimeout(hideNotice, SHOWN_MS);
}

export function hideNotice(): void {
  clearTimeout(timer);
  byId("notice").hidden = true;
}

/** Asks before something that can't be undone. */
export function confirm(title: string, text: string, yes: string): Promise<boolean> {
  const dialog = byId<HTMLDialogElement>("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = yes;
  byId("confirm-yes").onclick = () => dialog.close("yes");
  byId("confirm-no").onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}
