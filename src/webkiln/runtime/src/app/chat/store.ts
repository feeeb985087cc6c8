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
  private readonly others = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : undefined;

  private constructor(
    private readonly database: IDBPDatabase<Schema> | undefined,
    private readonly memory = new Map<string, Conversation>(),
  ) {
    this.others?.addEventListener("message", () => this.onChange());
  }

  static async open(): Promise<Store> {
    try {
      const database = await openDB<Schema>(NAME, 1, {
        upgrade: (opened) => void opened.createObjectStore("conversations", { keyPath: "id" }),
      });
      return new Store(database);
    } catch {
      return new Store(undefined); // a private window of some browsers, or blocked by the person
    }
  }

  /** Whether conversations outlast the page. */
  get lasting(): boolean {
    return this.database !== undefined;
  }

  /** All of them, the last used first. */
  async list(): Promise<Conversation[]> {
    const all = this.database
      ? await this.database.getAll("conversations") : [...this.memory.values()];
    return all.sort((a, b) => b.updated - a.updated);
  }

  /** Rejects with a DOMException "QuotaExceededError" when the device is full. */
  async put(conversation: Conversation): Promise<void> {
    if (this.database) await this.database.put("conversations", conversation);
    else this.memory.set(conversation.id, conversation);
    this.others?.postMessage("changed");
  }

  async delete(id: string): Promise<void> {
    this.memory.delete(id);
    await this.database?.delete("conversations", id);
    this.others?.postMessage("changed");
  }

  async clear(): Promise<void> {
    this.memory.clear();
    await this.database?.clear("conversations");
    this.others?.postMessage("changed");
  }
}
