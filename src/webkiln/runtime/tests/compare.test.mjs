/** How "auto" decides, apart from any clock. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { faster, measure, median, patience } = await load("compare");

/** Runs that take as long as told, the last time over and over; counts them. */
function runs(...times) {
  const once = async () => times[Math.min(once.count++, times.length - 1)];
  once.count = 0;
  return once;
}

test("the median of five runs counts, whatever one of them did", async () => {
  const once = runs(10, 11, 90, 12, 9, 1000);
  assert.equal(await measure(once), 11);
  assert.equal(once.count, 5);
});

test("long runs are few", async () => {
  const once = runs(300);
  assert.equal(await measure(once), 300);
  assert.equal(once.count, 2);
});

test("a run that takes over twice the rival's time is the last", async () => {
  const hopeless = runs(21);
  assert.equal(await measure(hopeless, 10), 21);
  assert.equal(hopeless.count, 1);
  const slower = runs(19);
  assert.equal(await measure(slower, 10), 19);
  assert.equal(slower.count, 5);
});

test("one late outlier does not lose the comparison", async () => {
  assert.equal(await measure(runs(5, 5, 30), 10), 5);
});

test("the faster device is kept; a tie and an unknown GPU stay where they are", () => {
  assert.equal(faster({ wasm: 33, webgpu: 12 }), "webgpu");
  assert.equal(faster({ wasm: 12, webgpu: 33 }), "wasm");
  assert.equal(faster({ wasm: 12, webgpu: 12 }), "wasm");
  assert.equal(faster({ wasm: 12 }), "wasm");
});

test("a GPU's first run has time for the driver's compilation", () => {
  assert.ok(patience(1) >= 500);
  assert.equal(patience(1000) - patience(0), 2000);
});

test("median", () => assert.equal(median([3, 1, 2]), 2));
