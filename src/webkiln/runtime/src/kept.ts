/**
 * Shards on the device. A file that is shorter than its shard is the beginning of a broken download,
 * which goes on there. A whole one ends with a checksum, taken when SHA-256 had found it right, and
 * compared at every visit. Workers only: the page has no synchronous access to files, which is the
 * fast one.
 */
import { checksum, CHECKSUM_BYTES } from "./checksum.js";
import { openFolder } from "./folder.js";
import type { WeightStorage } from "./model.js";
import type { Plan, Shard } from "./plan.js";

/** A shard, as far as it is here. */
export interface Part {
  readonly shard: Shard;
  /** With room for a checksum behind it in its buffer. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many of the first bytes are in memory, and how many of these in the file. */
  have: number;
  saved: number;
  /** A beginning was, or is to be, written from this memory. */
  begun: boolean;
  /** The file is whole and has not changed since it was verified. */
  sealed: boolean;
  /** The version that the bytes are of, where the server names one. */
  etag: string | undefined;
}

/** Nothing yet of a shard, in `memory` where that is large enough. */
export function emptyPart(shard: Shard, memory?: ArrayBuffer): Part {
  const size = shard.bytes + CHECKSUM_BYTES;
  const buffer = memory && memory.byteLength >= size ? memory : new ArrayBuffer(size);
  const bytes = new Uint8Array(buffer, 0, shard.bytes);
  return { shard, bytes, have: 0, saved: 0, begun: false, sealed: false, etag: undefined };
}

/** The shard as its file has it, checksum included. */
function sealedBytes({ bytes }: Part): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.buffer, 0, bytes.length + CHECKSUM_BYTES);
}

/** What TypeScript's library has for workers only. */
interface Access {
  read(into: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  getSize(): number;
  truncate(bytes: number): void;
  close(): void;
}

interface Accessible extends FileSystemFileHandle {
  /** The mode lets several tabs read at once; browsers that don't know it lock the file. */
  createSyncAccessHandle(options?: { mode: "read-only" }): Promise<Access>;
}

const BUSY_ATTEMPTS = 5;
const BUSY_MS = 100;

/** Beside the file of a broken download. */
const ETAG = ".etag";

export class KeptShards {
  private readonly folder: Promise<FileSystemDirectoryHandle | undefined>;
  private readonly whole = new Set<Shard>();
  private state: WeightStorage["state"] = "pending";
  /** Writes happen one after another. */
  private last: Promise<unknown> = Promise.resolve();
  private forgotten: Promise<void> | undefined;

  /** `tell` hears once how it ended. */
  constructor(
    base: URL,
    private readonly weights: Plan["weights"],
    private readonly tell: (storage: WeightStorage) => void,
  ) {
    this.folder = openFolder(base, true);
  }

  /** Whether there is a folder to keep them in. */
  async available(): Promise<boolean> {
    return (await this.folder) !== undefined;
  }

  /** Reads what is here of a shard. */
  async restore(part: Part): Promise<void> {
    const { file } = part.shard;
    const whole = sealedBytes(part);
    const count = await this.read(file, whole);
    part.have = part.saved = Math.min(count, part.bytes.length);
    if (count === whole.length) {
      const seal = whole.subarray(part.bytes.length);
      part.sealed = checksum(part.bytes).every((byte, i) => byte === seal[i]);
    }
    if (part.have === 0 || part.have === part.bytes.length) return;
    const etag = new Uint8Array(256);
    const length = await this.read(file + ETAG, etag);
    if (length) part.etag = new TextDecoder().decode(etag.subarray(0, length));
  }

  /** Keeps a beginning, so that a later visit can go on from there. */
  saveBeginning(part: Part): Promise<void> {
    const { have, etag } = part;
    part.begun = true;
    return this.queue(async (folder) => {
      const { file } = part.shard;
      if (!part.saved && etag) await write(folder, file + ETAG, new TextEncoder().encode(etag), 0);
      await write(folder, file, part.bytes.subarray(0, have), part.saved);
      part.saved = have;
    });
  }

  /** Keeps a shard that was verified. */
  saveWhole(part: Part): Promise<void> {
    return this.queue(async (folder) => {
      const whole = sealedBytes(part);
      whole.set(checksum(part.bytes), part.bytes.length);
      await write(folder, part.shard.file, whole, part.saved);
      await folder.removeEntry(part.shard.file + ETAG).catch(() => undefined);
      this.has(part.shard);
    }, part.shard);
  }

  /** A shard that was read is whole and right. */
  has(shard: Shard): void {
    this.whole.add(shard);
    if (this.whole.size === this.weights.shards.length) this.end("kept");
  }

  /** Deletes what turned out to be wrong. */
  forget(part: Part): Promise<void> {
    return this.queue(async (folder) => {
      part.saved = 0;
      part.sealed = false;
      await folder.removeEntry(part.shard.file + ETAG).catch(() => undefined);
      await folder.removeEntry(part.shard.file).catch(() => undefined);
    });
  }

  /** Deletes the shards of earlier builds; once, and before anything needs the room. */
  forgetOthers(): Promise<void> {
    return (this.forgotten ??= this.folder.then(async (folder) => {
      const current = new Set(this.weights.shards.flatMap(({ file }) => [file, file + ETAG]));
      for await (const name of folder?.keys() ?? []) {
        if (!current.has(name)) await folder!.removeEntry(name).catch(() => undefined);
      }
    }));
  }

  /** A beginning of the file, as long as there is. */
  private async read(file: string, into: Uint8Array): Promise<number> {
    let handle: Accessible;
    try {
      handle = (await (await this.folder)!.getFileHandle(file)) as Accessible;
    } catch {
      return 0; // there is none, or no folder
    }
    try {
      const access = await handle.createSyncAccessHandle({ mode: "read-only" });
      try {
        return access.read(into, { at: 0 });
      } finally {
        access.close();
      }
    } catch {
      // Another tab has it locked.
      const copy = await handle.getFile().then((found) => found.arrayBuffer()).catch(() => undefined);
      const bytes = new Uint8Array(copy ?? new ArrayBuffer(0)).subarray(0, into.length);
      into.set(bytes);
      return bytes.length;
    }
  }

  private queue(
    work: (folder: FileSystemDirectoryHandle) => Promise<void>,
    shard?: Shard,
  ): Promise<void> {
    const attempt = async (): Promise<void> => {
      const folder = await this.folder;
      if (!folder) return this.end("unavailable");
      if (this.state === "full") return;
      try {
        await this.forgetOthers();
        await work(folder);
      } catch (error) {
        if ((error as Error).name === "QuotaExceededError") await this.fill(folder);
        else if (shard) this.end("unavailable"); // a beginning that can't be kept is no great loss
      }
    };
    const done = this.last.then(attempt);
    this.last = done.catch(() => undefined);
    return done;
  }

  /** There is no room left: gives back what incomplete files take, for others such as a history. */
  private async fill(folder: FileSystemDirectoryHandle): Promise<void> {
    this.end("full");
    const whole = new Set([...this.whole].map(({ file }) => file));
    for await (const name of folder.keys()) {
      if (!whole.has(name)) await folder.removeEntry(name).catch(() => undefined);
    }
  }

  private end(state: WeightStorage["state"]): void {
    if (this.state !== "pending") return;
    this.state = state;
    const bytes = [...this.whole].reduce((sum, shard) => sum + shard.bytes, 0);
    this.tell({ state, bytes, reason: explain(state, bytes, this.weights.bytes) });
  }
}

/** Another tab that reads or writes the file has it for a moment. */
async function openForWriting(folder: FileSystemDirectoryHandle, name: string): Promise<Access> {
  const handle = (await folder.getFileHandle(name, { create: true })) as Accessible;
  for (let attempt = 1; ; attempt++) {
    try {
      return await handle.createSyncAccessHandle();
    } catch (error) {
      const busy = (error as Error).name === "NoModificationAllowedError";
      if (!busy || attempt === BUSY_ATTEMPTS) throw error;
      await new Promise((done) => setTimeout(done, BUSY_MS));
    }
  }
}

function noRoom(): DOMException {
  return new DOMException("There is no room.", "QuotaExceededError");
}

async function write(
  folder: FileSystemDirectoryHandle,
  name: string,
  bytes: Uint8Array,
  from: number,
): Promise<void> {
  const access = await openForWriting(folder, name);
  try {
    // What was there may have been deleted meanwhile.
    for (let at = Math.min(from, access.getSize()); at < bytes.length; ) {
      const written = access.write(bytes.subarray(at), { at });
      if (!written) throw noRoom();
      at += written;
    }
    // Chromium may report a write that there was no room for.
    if (access.getSize() < bytes.length) throw noRoom();
    if (access.getSize() > bytes.length) access.truncate(bytes.length);
  } finally {
    access.close();
  }
}

function explain(state: WeightStorage["state"], bytes: number, total: number): string {
  const megabytes = (count: number): string => `${(count / 1e6).toFixed(1)} MB`;
  const next = "The model works, but the next visit downloads";
  if (state === "full") {
    return (
      `There is no room to keep the model on this device: of its ${megabytes(total)} the browser ` +
      `took ${megabytes(bytes)}. ${next} ${bytes ? "the rest" : "it"} again. ` +
      "Free some space, or leave the private window."
    );
  }
  if (state !== "unavailable") return "";
  return globalThis.isSecureContext
    ? `This browser keeps nothing for this page, as in some private windows. ${next} it again.`
    : `Browsers keep nothing for a page over plain http. ${next} it again. Serve it over https.`;
}
