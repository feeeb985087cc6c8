/** Conversations on this device, in IndexedDB; in memory where that is forbidden. */
import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import type { Conversation } from "./conversation.js";

interface Schema extends DBSchema {
  conversations: { key: string; value: Conversation };
}

// Several apps may live on one origin, each with conversations of its own.
const NAME = `webkiln chat ${new URL("./", document.baseURI).pathname}`;

export class Store {
  /** Called when another tab has changed something. */
  onChange: () => void = () => undefined;
  /** Whether conversations outlast the page; known once the store has been read. */
  lasting = true;
  private readonly others = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : undefined;
  private readonly memory = new Map<string, Conversation>();
  private readonly opening = this.open();

  constructor() {
    this.others?.addEventListener("message", () => this.onChange());
  }

  private async open(): Promise<IDBPDatabase<Schema> | undefined> {
    try {
      return await openDB<Schema>(NAME, 1, {
        upgrade: (opened) => void opened.createObjectStore("conversations", { keyPath: "id" }),
      });
    } catch {
      this.lasting = false; // a private window of some browsers, or blocked by the person
      return undefined;
    }
  }

  /** All of them, the last used first. */
  async list(): Promise<Conversation[]> {
    const database = await this.opening;
    const all = database ? await database.getAll("conversations") : [...this.memory.values()];
    return all.sort((a, b) => b.updated - a.updated);
  }

  /** Rejects with a DOMException "QuotaExceededError" when the device is full. */
  async put(conversation: Conversation): Promise<void> {
    const database = await this.opening;
    if (database) await database.put("conversations", conversation);
    else this.memory.set(conversation.id, conversation);
    this.others?.postMessage("changed");
  }

  async delete(id: string): Promise<void> {
    this.memory.delete(id);
    await (await this.opening)?.delete("conversations", id);
    this.others?.postMessage("changed");
  }

  async clear(): Promise<void> {
    this.memory.clear();
    await (await this.opening)?.clear("conversations");
    this.others?.postMessage("changed");
  }
}
