/**
 * SHA-256. WebCrypto's digest is native code at 1-2 GB/s, but takes a message only whole, as a copy,
 * and exists only in secure contexts. Over plain http the JavaScript below does the same, at about a
 * tenth of the speed.
 */

/** The SHA-256 of `bytes`, in lower-case hexadecimal. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = globalThis.crypto?.subtle
    ? new Uint8Array(await crypto.subtle.digest("SHA-256", unshared(bytes)))
    : digestInScript(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

let scratch = new Uint8Array(0);

/** WebCrypto refuses shared memory. What it is given it copies before it returns. */
function unshared(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  if (bytes.buffer instanceof ArrayBuffer) return bytes as Uint8Array<ArrayBuffer>;
  if (scratch.length < bytes.length) scratch = new Uint8Array(bytes.length);
  const copy = scratch.subarray(0, bytes.length);
  copy.set(bytes);
  return copy;
}

/** The first 32 bits of the fractional part of `x`. */
const fraction = (x: number): number => ((x - Math.floor(x)) * 2 ** 32) | 0;

// FIPS 180-4, sections 4.2.2 and 5.3.3: roots of the first primes give the constants.
const primes = (() => {
  const found: number[] = [];
  for (let n = 2; found.length < 64; n++) if (found.every((prime) => n % prime)) found.push(n);
  return found;
})();
const initial = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
const constants = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));

/** FIPS 180-4 in JavaScript, for pages without WebCrypto. */
export function digestInScript(bytes: Uint8Array): Uint8Array {
  const hash = initial.slice();
  const whole = bytes.length - (bytes.length % 64);
  const schedule = new Int32Array(64);
  compress(hash, schedule, bytes.subarray(0, whole));
  // The padding: a one bit, zeros, and the message's length in bits.
  const rest = bytes.length - whole;
  const tail = new Uint8Array(rest < 56 ? 64 : 128);
  tail.set(bytes.subarray(whole));
  tail[rest] = 0x80;
  new DataView(tail.buffer).setBigUint64(tail.length - 8, BigInt(bytes.length) * 8n);
  compress(hash, schedule, tail);
  const digest = new DataView(new ArrayBuffer(32));
  hash.forEach((word, i) => digest.setInt32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

/** FIPS 180-4, section 6.2.2, over whole blocks of 64 bytes. */
function compress(hash: Int32Array, w: Int32Array, blocks: Uint8Array): void {
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.byteLength);
  for (let at = 0; at < blocks.length; at += 64) {
    for (let t = 0; t < 16; t++) w[t] = view.getInt32(at + 4 * t);
    for (let t = 16; t < 64; t++) {
      const x = w[t - 15]!,
        y = w[t - 2]!;
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[t] = (w[t - 16]! + s0 + w[t - 7]! + s1) | 0;
    }
    let a = hash[0]!,
      b = hash[1]!,
      c = hash[2]!,
      d = hash[3]!;
    let e = hash[4]!,
      f = hash[5]!,
      g = hash[6]!,
      h = hash[7]!;
    for (let t = 0; t < 64; t++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + constants[t]! + w[t]!) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => {
      hash[i] = (hash[i]! + word) | 0;
    });
  }
}
