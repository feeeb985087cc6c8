/** Tokens → text as it grows: whole characters only, and nothing that may become a stop text. */

/** UTF-8, as a string of bytes, to text. A character comes out once its last byte is there. */
export class TextStream {
  // A byte order mark is a character like any other here.
  private readonly decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  push(bytes: string): string {
    return this.decoder.decode(toBytes(bytes), { stream: true });
  }

  /** What is left when nothing more comes: U+FFFD for half a character. */
  flush(): string {
    return this.decoder.decode();
  }
}

/** A string of bytes (code units 0 to 255) as an array. */
export function toBytes(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** Text → a string of its UTF-8 bytes. */
export function fromText(text: string): string {
  let bytes = "";
  for (const byte of new TextEncoder().encode(text)) bytes += String.fromCharCode(byte);
  return bytes;
}

/** Cuts a text at the first stop text, and holds back an end that may be the beginning of one. */
export class StopFilter {
  private held = "";
  stopped = false;

  constructor(private readonly stops: readonly string[]) {}

  /** What may be shown. Once `stopped`, nothing more. */
  push(text: string): string {
    if (this.stopped) return "";
    const all = this.held + text;
    const found = this.stops.map((stop) => all.indexOf(stop)).filter((at) => at >= 0);
    if (found.length) {
      this.stopped = true;
      this.held = "";
      return all.slice(0, Math.min(...found));
    }
    const keep = this.unsure(all);
    this.held = all.slice(all.length - keep);
    return all.slice(0, all.length - keep);
  }

  /** What was held back, when nothing more comes. */
  flush(): string {
    const rest = this.held;
    this.held = "";
    return rest;
  }

  /** The length of the longest end that is the beginning of a stop text. */
  private unsure(text: string): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const end = text.slice(-length);
      if (this.stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
