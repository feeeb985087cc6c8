import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

// One module for both, so that they share the class Tensor.
const { bind } = await load("feeds");

const program = {
  inputs: [{ name: "x", dtype: "float32", shape: [["*", "n", 2], 3], buffer: 0 }],
  outputs: [{ name: "y", dtype: "float32", shape: ["n"], buffer: 1 }],
  steps: { wasm: [], webgpu: [{ params: ["past"], workgroups: [1, 1, 1] }] },
};
const plan = {
  dims: [
    { name: "n", min: 1, max: 8 },
    { name: "past", min: 0, max: 4 },
    { name: "other", min: 2, max: 4 },
  ],
};

test("a dimension that no shape gives has to be passed, where the program needs it", () => {
  const feeds = {};
  const bare = { ...program, inputs: [] };
  assert.throws(() => bind(plan, bare, feeds), /No input's shape gives the dimension "n"/);
  assert.throws(() => bind(plan, bare, feeds, { n: 1 }), /gives the dimension "past"/);
  assert.deepEqual(bind(plan, bare, feeds, { n: 1, past: 0 }), { n: 1, past: 0, other: 2 });
  assert.throws(() => bind(plan, bare, feeds, { n: 9, past: 0 }), /"n" is 9; .* 1 to 8/);
  assert.throws(() => bind(plan, bare, feeds, { m: 9 }), /no dimension "m".*"n", "past", "other"/);
});
