/** What this page keeps on the device: how much it is, whether it lasts, and how it goes. */
import { storage } from "../../index.js";
import { byId, formatBytes, make } from "../page.js";
import { announce } from "./announce.js";
import { toMarkdown, type Conversation } from "./conversation.js";
import { confirm } from "./notice.js";
import type { Store } from "./store.js";

const HERE = new URL("./", document.baseURI);
// What the runtime keeps; the service worker keeps the rest, in caches of these names.
const WEIGHTS = storage(new URL("model/", HERE));
const FILES = `webkiln ${HERE.href} `;
const ASKED = `webkiln persist ${HERE.pathname}`;

/**
 * Asks the browser to keep what is stored when the disk gets full. Some ask the person, so it is
 * done once, when there is something worth keeping.
 */
export async function askToKeep(): Promise<void> {
  try {
    if (localStorage.getItem(ASKED) || (await WEIGHTS.persisted())) return;
    localStorage.setItem(ASKED, "asked");
    await WEIGHTS.persist();
  } catch {
    // Not in this browser, or storage is forbidden.
  }
}

async function estimate(): Promise<StorageEstimate> {
  return (await navigator.storage?.estimate?.().catch(() => undefined)) ?? {};
}

/** What a full device means for a conversation. */
export function quotaText(error: unknown): string {
  if (error instanceof DOMException && error.name === "QuotaExceededError") {
    return "This device has no room left for the conversation: it stays until you close the page. "
      + "Delete old conversations, or free some space.";
  }
  const reason = error instanceof Error ? error.message : String(error);
  return `The conversation can't be kept on this device: ${reason}. It stays until you close the page.`;
}

export interface Stored {
  readonly store: Store;
  /** Deletes all conversations. */
  readonly clear: () => Promise<void>;
}

/** The part of the settings that is about storage. */
export class StorageView {
  private readonly note = byId("stored-note");

  constructor(private readonly stored: Stored) {
    byId("keep").addEventListener("click", () => void this.keep());
    byId("save-all").addEventListener("click", () => void this.saveAll());
    byId("delete-model").addEventListener("click", () => void this.deleteModel());
    byId("delete-all").addEventListener("click", () => void this.deleteAll());
  }

  /** Looks anew; called whenever the settings open. */
  async show(): Promise<void> {
    const [weights, { quota, usage }, conversations, lasting] = await Promise.all([
      WEIGHTS.bytes(), estimate(), this.stored.store.list(), WEIGHTS.persisted(),
    ]);
    byId("stored-model").textContent = weights ? formatBytes(weights) : "not kept";
    byId<HTMLButtonElement>("delete-model").disabled = !weights;
    byId("stored-conversations").textContent = this.sizeOf(conversations);
    for (const id of ["save-all", "delete-all"]) {
      byId<HTMLButtonElement>(id).disabled = conversations.length === 0;
    }
    byId("stored-free").textContent =
      quota !== undefined && usage !== undefined ? formatBytes(Math.max(0, quota - usage)) : "unknown";
    byId("stored-kept").textContent =
      lasting ? "until you delete it" : "until the device runs out of space";
    byId("keep").hidden = lasting || !navigator.storage;
  }

  private sizeOf(conversations: readonly Conversation[]): string {
    const count = conversations.length;
    if (!count) return "none";
    const bytes = new TextEncoder().encode(JSON.stringify(conversations)).length;
    const place = this.stored.store.lasting ? "" : ", in memory only";
    return `${count} (${formatBytes(bytes)}${place})`;
  }

  private async keep(): Promise<void> {
    const kept = await WEIGHTS.persist();
    this.note.textContent = kept
      ? "The browser keeps it until you delete it."
      : "The browser declined. Many do so until a page is bookmarked, installed or used often.";
    await this.show();
  }

  private async deleteModel(): Promise<void> {
    const bytes = await WEIGHTS.bytes();
    const again = bytes ? `The next visit downloads ${formatBytes(bytes)} again, and needs a network.` : "";
    if (!(await confirm("Delete the downloaded model?", `${again} Your conversations stay.`, "Delete"))) return;
    await forgetModel();
    this.note.textContent = "Deleted. The model goes on working until you close this page.";
    await this.show();
  }

  private async saveAll(): Promise<void> {
    const text = toMarkdown(await this.stored.store.list());
    const href = URL.createObjectURL(new Blob([text], { type: "text/markdown" }));
    make("a", { href, download: "conversations.md" }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10_000);
  }

  private async deleteAll(): Promise<void> {
    const text = "They are on this device only, so they can't be brought back.";
    if (!(await confirm("Delete all conversations?", text, "Delete all"))) return;
    await this.stored.clear();
    this.note.textContent = "All conversations are deleted.";
    announce("All conversations are deleted");
    await this.show();
  }
}

/** Everything of the model: weights, and the files that the service worker keeps. */
async function forgetModel(): Promise<void> {
  const registration = await navigator.serviceWorker?.getRegistration().catch(() => undefined);
  if (registration?.scope === HERE.href) await registration.unregister();
  const own = (await caches.keys()).filter((name) => name.startsWith(FILES));
  await Promise.all([WEIGHTS.clear(), ...own.map((name) => caches.delete(name))]);
}
