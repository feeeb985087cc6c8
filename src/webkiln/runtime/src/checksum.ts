/**
 * A checksum at the speed of memory, some twenty times that of SHA-256: it tells whether bytes on
 * the device are still those that SHA-256 found right when they came. Against damage, not against
 * forgery; who can write there can replace the whole page. See
 * docs/decisions/007-weights-on-the-device.md.
 */

/** Bytes of a checksum. */
export const CHECKSUM_BYTES = 32;

const LANES = 8;
const ROTATION = 13;
/** Odd, so that a step can be undone and one changed word always shows; xxHash's PRIME32_1. */
const FACTOR = 0x9e3779b1 | 0;

/** One step of one lane; the rotation lets high bits reach low ones, which a product does not. */
function mix(state: number, word: number): number {
  const x = state ^ word;
  return Math.imul((x << ROTATION) | (x >>> (32 - ROTATION)), FACTOR);
}

/** Of `bytes`, which begin at a multiple of 4 in their buffer. */
export function checksum(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  const rows = words.length - (words.length % LANES);
  // Eight sums that do not wait for each other; in variables, which stay in registers.
  let [a, b, c, d, e, f, g, h] = [1, 2, 3, 4, 5, 6, 7, bytes.length];
  for (let i = 0; i < rows; i += LANES) {
    a = mix(a, words[i]!);
    b = mix(b, words[i + 1]!);
    c = mix(c, words[i + 2]!);
    d = mix(d, words[i + 3]!);
    e = mix(e, words[i + 4]!);
    f = mix(f, words[i + 5]!);
    g = mix(g, words[i + 6]!);
    h = mix(h, words[i + 7]!);
  }
  for (let i = rows; i < words.length; i++) a = mix(a, words[i]!);
  for (let i = 4 * words.length; i < bytes.length; i++) b = mix(b, bytes[i]!);
  return new Uint8Array(Int32Array.of(a, b, c, d, e, f, g, h).buffer);
}
