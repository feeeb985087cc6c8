import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { checksum, CHECKSUM_BYTES } = await load("checksum");

const hex = (bytes) => Buffer.from(checksum(bytes)).toString("hex");
const sample = (length) => Uint8Array.from({ length }, (_, i) => (i * 2654435761) >>> 24);

test("it stays what files on devices have", () => {
  assert.equal(checksum(sample(100)).length, CHECKSUM_BYTES);
  assert.equal(hex(sample(100)), "0fdba538b0c53113ba1e69b9daecacc41101b1180fccdfc801e6709c073b5ea2");
});

test("every single bit counts", () => {
  const bytes = sample(71); // two rows, a word, and three bytes
  const right = hex(bytes);
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    bytes[bit >> 3] ^= 1 << (bit & 7);
    assert.notEqual(hex(bytes), right);
    bytes[bit >> 3] ^= 1 << (bit & 7);
  }
});

test("pairs of top bits do not cancel", () => {
  const bytes = sample(4096);
  const right = hex(bytes);
  for (let second = 32; second < bytes.length; second += 32) {
    const wrong = bytes.slice();
    for (const at of [3, second + 3]) wrong[at] ^= 0x80; // the same lane, rows apart
    assert.notEqual(hex(wrong), right);
  }
});

test("lost pages, swapped words and other lengths show", () => {
  const bytes = sample(16384);
  const lost = bytes.slice().fill(0, 4096, 8192);
  const swapped = bytes.slice();
  swapped.set(bytes.subarray(0, 32), 32);
  swapped.set(bytes.subarray(32, 64), 0);
  const all = [bytes, lost, swapped, bytes.slice(0, -1), new Uint8Array(16384), new Uint8Array(16416)];
  assert.equal(new Set(all.map(hex)).size, all.length);
});
