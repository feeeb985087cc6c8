/** What a bundle keeps on the device, for pages. */
import { mark } from "./bring.js";
import { folderName, openFolder } from "./folder.js";
import { resolveAddress } from "./load.js";

/** What a bundle keeps on this device. None of it throws where browsers keep nothing. */
export interface BundleStorage {
  /** Bytes that weights take here, those of broken downloads included. */
  bytes(): Promise<number>;
  /** Whether the browser promised not to clear what this site keeps when space runs out. */
  persisted(): Promise<boolean>;
  /** Asks for that promise, which some browsers make the person decide; whether it was given. */
  persist(): Promise<boolean>;
  /** Deletes the weights. A model in memory goes on. */
  clear(): Promise<void>;
}

/** Another tab may hold a file for some milliseconds. */
const BUSY_ATTEMPTS = 5;
const BUSY_MS = 100;

/**
 * What the bundle at `url` (as for `load`) keeps on this device.
 *
 *     const kept = storage("./model/");
 *     if (await kept.persist()) console.log(`${await kept.bytes()} bytes are here to stay`);
 *
 * @throws WebkilnError "option-invalid".
 */
export function storage(url: string | URL): BundleStorage {
  const address = resolveAddress(url);
  const base = new URL(".", address);
  return {
    bytes: () => count(base).catch(() => 0),
    persisted: async () => (await navigator.storage?.persisted?.().catch(() => false)) ?? false,
    persist: async () => (await navigator.storage?.persist?.().catch(() => false)) ?? false,
    clear: () => clear(base, address),
  };
}

async function count(base: URL): Promise<number> {
  let bytes = 0;
  for await (const handle of (await openFolder(base, false))?.values() ?? []) {
    if (handle.kind === "file") bytes += (await (handle as FileSystemFileHandle).getFile()).size;
  }
  return bytes;
}

async function clear(base: URL, plan: URL): Promise<void> {
  try {
    localStorage.removeItem(mark(plan.href));
  } catch {
    // Forbidden, so nothing was written.
  }
  for (let attempt = 0; attempt < BUSY_ATTEMPTS && (await openFolder(base, false)); attempt++) {
    try {
      const root = await navigator.storage.getDirectory();
      await root.removeEntry(folderName(base), { recursive: true });
    } catch {
      await new Promise((done) => setTimeout(done, BUSY_MS));
    }
  }
}
