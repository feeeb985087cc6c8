/** What the page asks of the browser around it: the theme, installing, working offline. */
import type { Model } from "../index.js";

/** Switches light and dark and remembers it; until then the system's choice holds. */
export function themeButton(button: HTMLElement): void {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = (): boolean =>
    root.dataset["theme"] ? root.dataset["theme"] === "dark" : system.matches;
  const show = (): void => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset["theme"] = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("webkiln-theme", root.dataset["theme"]);
    } catch {
      // Storage may be forbidden; the choice then lasts as long as the page.
    }
    show();
  });
  system.addEventListener("change", show);
  show();
}

/** An event of Chromium that TypeScript's library does not know. */
interface InstallEvent extends Event {
  prompt(): Promise<void>;
}

export function offerInstall(button: HTMLElement): void {
  let event: InstallEvent | undefined;
  addEventListener("beforeinstallprompt", (offered) => {
    offered.preventDefault();
    event = offered as InstallEvent;
    button.hidden = false;
  });
  button.addEventListener("click", () => void event?.prompt());
  addEventListener("appinstalled", () => (button.hidden = true));
}

// How often to look whether the weights are written, and how long. In ms.
const LOOK_EVERY = 200;
const LOOK_FOR = 60_000;

/**
 * Registers the service worker, which keeps the folder for use without a network, and says whether
 * the whole app is on the device. Late, so that it takes no bandwidth from the first result; the
 * browser's own cache spares a second download.
 */
export async function workOffline(note: HTMLElement, model: Model): Promise<void> {
  const registered = registerWorker();
  for (let ms = 0; model.storage.state === "pending" && ms < LOOK_FOR; ms += LOOK_EVERY) {
    await new Promise((done) => setTimeout(done, LOOK_EVERY));
  }
  const { state, reason } = model.storage;
  if (reason) {
    const why = state === "full" ? "no room on this device" : "this browser keeps nothing";
    note.textContent = `model weights, not kept: ${why}`;
    note.title = reason;
  } else if (state === "kept" && (await registered)) {
    note.textContent = "model weights, kept for use offline";
  }
}

/**
 * False in some private windows. Where there is no room for its files it never is ready; the page
 * works all the same.
 */
async function registerWorker(): Promise<boolean> {
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
    return true;
  } catch {
    return false;
  }
}
