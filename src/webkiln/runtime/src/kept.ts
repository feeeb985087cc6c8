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
  readonly bytes: Uint8Array;
  /** How many of the first bytes are in memory, and how many of these in the file. */
  have: number;
  saved: number;
  /** The file is whole and has not changed since it was verified. */
  sealed: boolean;
  /** The version that the bytes are of, where the server names one. */
  etag: string | undefined;
}

/** Nothing yet of a shard that is to come into `bytes`. */
export function emptyPart(shard: Shard, bytes: Uint8Array): Part {
  return { shard, bytes, have: 0, saved: 0, sealed: false, etag: undefined };
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
  private opened: Promise<FileSystemDirectoryHandle | undefined> | undefined;
  private listed: Promise<ReadonlySet<string>> | undefined;
  private readonly whole = new Set<Shard>();
  private state: WeightStorage["state"] = "pending";
  /** Writes happen one after another. */
  private last: Promise<unknown> = Promise.resolve();
  private forgotten: Promise<void> | undefined;

  /** `fresh`: nothing is there to restore, as is known. `tell` hears once how it ended. */
  constructor(
    private readonly base: URL,
    private readonly weights: Plan["weights"],
    private readonly fresh: boolean,
    private readonly tell: (storage: WeightStorage) => void,
  ) {}

  /** Opened when it is first of use, which on a first visit is after loading. */
  private get folder(): Promise<FileSystemDirectoryHandle | undefined> {
    return (this.opened ??= openFolder(this.base, true));
  }

  /** What earlier visits left in it: to look for each file takes longer. */
  private get found(): Promise<ReadonlySet<string>> {
    return (this.listed ??= this.folder.then(names).catch(() => new Set()));
  }

  /** Reads what is here of a shard. */
  async restore(part: Part): Promise<void> {
    const { file } = part.shard;
    // To look for what is not there takes time that a first visit would wait.
    if (this.fresh || !(await this.found).has(file)) return;
    const seal = new Uint8Array(CHECKSUM_BYTES);
    const count = await this.read(file, part.bytes, seal);
    part.have = part.saved = Math.min(count, part.bytes.length);
    if (count === part.bytes.length + seal.length) {
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
    return this.queue(async (folder) => {
      const { file } = part.shard;
      if (!part.saved && etag) await write(folder, file + ETAG, 0, new TextEncoder().encode(etag));
      await write(folder, file, part.saved, part.bytes.subarray(0, have));
      part.saved = have;
    });
  }

  /** Keeps a shard that was verified. */
  saveWhole(part: Part): Promise<void> {
    return this.queue(async (folder) => {
      await write(folder, part.shard.file, part.saved, part.bytes, checksum(part.bytes));
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

  /** The beginning of the file, one place after another; how many bytes there were. */
  private async read(file: string, ...places: Uint8Array[]): Promise<number> {
    let handle: Accessible;
    try {
      handle = (await (await this.folder)!.getFileHandle(file)) as Accessible;
    } catch {
      return 0; // there is none, or no folder
    }
    try {
      const access = await handle.createSyncAccessHandle({ mode: "read-only" });
      try {
        return places.reduce((at, place) => at + access.read(place, { at }), 0);
      } finally {
        access.close();
      }
    } catch {
      // Another tab has it locked.
      const copy = await handle.getFile().then((found) => found.arrayBuffer()).catch(() => undefined);
      const bytes = new Uint8Array(copy ?? new ArrayBuffer(0));
      return places.reduce((at, place) => {
        const found = bytes.subarray(at, at + place.length);
        place.set(found);
        return at + found.length;
      }, 0);
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

async function names(folder: FileSystemDirectoryHandle | undefined): Promise<Set<string>> {
  const found = new Set<string>();
  for await (const name of folder?.keys() ?? []) found.add(name);
  return found;
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

/** The file becomes `parts`, one after another; its first `known` bytes are right already. */
async function write(
  folder: FileSystemDirectoryHandle,
  name: string,
  known: number,
  ...parts: Uint8Array[]
): Promise<void> {
  const access = await openForWriting(folder, name);
  try {
    // What was there may have been deleted meanwhile.
    let at = Math.min(known, access.getSize());
    let end = 0;
    for (const part of parts) {
      const start = end;
      end += part.length;
      while (at < end) {
        const written = access.write(part.subarray(at - start), { at });
        if (!written) throw noRoom();
        at += written;
      }
    }
    // Chromium may report a write that there was no room for.
    if (access.getSize() < end) throw noRoom();
    if (access.getSize() > end) access.truncate(end);
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
