/**
 * Where weights stay on the device: in the origin's private file system, a folder a bundle, a file a
 * shard. See docs/decisions/007-weights-on-the-device.md.
 */

/**
 * The folder of the bundle at `base`. Undefined where there is none, or where browsers keep nothing:
 * over plain http and in some private windows.
 */
export async function openFolder(
  base: URL,
  create: boolean,
): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(folderName(base), { create });
  } catch {
    return undefined;
  }
}

/** Names may have no slash, and 255 bytes on most systems. */
export function folderName(base: URL): string {
  return `webkiln ${encodeURIComponent(base.href).slice(-200)}`;
}
