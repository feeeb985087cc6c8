/** Copying, with a sign that it happened. */
import { announce } from "./announce.js";
import { icon, iconButton } from "./icons.js";

const SHOWN_MS = 1600;

/** With `text`, the word stands beside the picture. */
export function copyButton(label: string, content: () => string, text = ""): HTMLButtonElement {
  const button = iconButton("copy", label, () => void copy());
  const word = document.createElement("span");
  word.textContent = text;
  if (text) {
    button.classList.remove("icon");
    button.append(word);
  }
  let timer: number | undefined;
  const show = (name: "copy" | "done", said: string): void => {
    button.replaceChildren(icon(name), ...(text ? [word] : []));
    word.textContent = said;
  };
  const copy = async (): Promise<void> => {
    const copied = await write(content());
    announce(copied ? "Copied" : "The browser did not allow copying");
    show(copied ? "done" : "copy", copied ? "Copied" : "Not allowed");
    clearTimeout(timer);
    timer = window.setTimeout(() => show("copy", text), SHOWN_MS);
  };
  return button;
}

/** The clipboard's API is missing where the page is neither https nor localhost. */
async function write(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    const focused = document.activeElement as HTMLElement | null;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}
