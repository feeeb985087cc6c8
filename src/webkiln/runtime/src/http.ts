/** Fetching, with errors that name the file. */
import { WebkilnError } from "./errors.js";

/** The last part of a URL's path, for messages. */
export function nameOf(url: URL): string {
  return url.pathname.slice(url.pathname.lastIndexOf("/") + 1);
}

/** Rejects with "aborted" when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted();
}

export function aborted(): WebkilnError {
  return new WebkilnError("aborted", "The caller aborted.");
}

export function unreachable(url: URL, cause: unknown): WebkilnError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new WebkilnError(
    "network",
    `${nameOf(url)} could not be downloaded: ${reason}.`,
    "Check the connection and try again.",
    { cause },
  );
}

/** GETs a file of the bundle. @throws WebkilnError "not-found", "network", "aborted". */
export async function get(
  url: URL,
  signal?: AbortSignal,
  cache: RequestCache = "default",
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { signal: signal ?? null, cache });
  } catch (error) {
    throwIfAborted(signal);
    throw unreachable(url, error);
  }
  if (response.status >= 500) throw unreachable(url, `the server answered ${response.status}`);
  if (!response.ok) {
    throw new WebkilnError(
      "not-found",
      `${nameOf(url)} is missing: ${url.href} answered ${response.status}.`,
      "Check the address, and that every file of the bundle was uploaded.",
    );
  }
  return response;
}

/**
 * A file whose name stays the same over rebuilds: its hash in the query keeps caches from mixing
 * builds.
 */
export function versioned(
  file: { readonly file: string; readonly sha256: string },
  base: URL,
): URL {
  return new URL(`${file.file}?${file.sha256.slice(0, 16)}`, base);
}
