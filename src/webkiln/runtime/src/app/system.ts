/** What the page asks of the browser around it: the theme, installing, working offline. */

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

/**
 * Registers the service worker, which keeps the folder for use without a network. Late, so that it
 * takes no bandwidth from the first result; the browser's own cache spares a second download.
 */
export async function workOffline(note: HTMLElement): Promise<void> {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
    note.textContent = "model weights, kept for use offline";
  } catch {
    // A private window, or no room. The page works all the same.
  }
}
