/** The page of a language model: a conversation. */
import type { DeviceOption, Model } from "../index.js";
import { Chat } from "./chat/chat.js";
import { notice } from "./chat/notice.js";
import { askToKeep, StorageView } from "./chat/storage.js";
import { Store } from "./chat/store.js";
import { fitKeyboard } from "./chat/viewport.js";
import { byId, make, samples } from "./page.js";
import { selfTest } from "./status.js";
import { offerInstall, themeButton, workOffline } from "./system.js";

// The runtime has written what it downloaded to the device by then. In ms.
const WRITTEN_AFTER = 8000;

let offline = false;

/** Keeps the page for use without a network, once nothing more urgent is to be done. */
function prepareOffline(model: Model): void {
  if (offline) return;
  offline = true;
  setTimeout(async () => {
    await workOffline(byId("fact-download-note"), model);
    if (model.storage.reason) notice(model.storage.reason, {}, true);
  }, WRITTEN_AFTER);
}

const store = new Store();
const chat = new Chat(store, { loaded: prepareOffline, answered: () => void askToKeep() });

function watchControls(): void {
  themeButton(byId("theme"));
  offerInstall(byId("install"));
  fitKeyboard();
  for (const id of ["new", "new-top"]) {
    byId(id).addEventListener("click", () => void chat.startAfresh());
  }
  for (const input of document.querySelectorAll<HTMLInputElement>("input[name=device]")) {
    input.addEventListener("change", () => void chat.load(input.value as DeviceOption));
  }
  byId("selftest").addEventListener("click", () => void selfTest(() => chat.model));
  byId("context").addEventListener("click", () => {
    const said = `${byId("context").title}. When it is full, the conversation can't go on.`;
    notice(said, { "Start afresh": () => void chat.startAfresh() });
  });
  document.addEventListener("keydown", (event) => {
    const over = document.querySelector("dialog[open], :popover-open");
    if (event.key !== "Escape" || over || event.isComposing || !chat.answering) return;
    event.preventDefault();
    void chat.stop();
  });
}

function watchSettings(): void {
  const dialog = byId<HTMLDialogElement>("settings");
  const storage = new StorageView({ store, clear: () => chat.clear() });
  byId("settings-open").addEventListener("click", () => {
    dialog.showModal();
    void storage.show();
  });
  byId("settings-close").addEventListener("click", () => dialog.close());
  // A click beside the sheet closes it.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

function offerSamples(): void {
  const questions = samples<string>();
  byId("samples").append(...questions.map((question) =>
    make("button", { type: "button", click: () => void chat.ask(question) }, question)));
  byId("samples").hidden = questions.length === 0;
}

watchControls();
watchSettings();
offerSamples();
void chat.resume().then(() => {
  if (store.lasting) return;
  byId("history-note").textContent = "This browser keeps nothing for this page: "
    + "conversations go when you close it.";
});
void chat.load("auto");
