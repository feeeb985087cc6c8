import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { load } from "./load.mjs";

const { digestInScript, sha256 } = await load("sha256");

// Lengths around the ends of blocks, where padding changes.
for (const length of [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000, 65536, 1_000_003]) {
  test(`${length} bytes`, async () => {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 2654435761) >>> 24);
    const wanted = createHash("sha256").update(bytes).digest("hex");
    assert.equal(Buffer.from(digestInScript(bytes)).toString("hex"), wanted);
    assert.equal(await sha256(bytes), wanted);
    // A view that starts in the middle of a buffer.
    const shifted = new Uint8Array(length + 5);
    shifted.set(bytes, 5);
    assert.equal(Buffer.from(digestInScript(shifted.subarray(5))).toString("hex"), wanted);
  });
}
