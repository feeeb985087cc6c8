import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { Staging } = await load("staging");

/** What a message to the worker and back makes of it. */
const sent = ({ memory, ...run }) => structuredClone({ ...run, memory }, { transfer: [memory] });

test("inputs arrive as they were, without what lies around a view", () => {
  const all = Uint8Array.from({ length: 1000 }, (_, i) => i);
  const run = { program: 1, inputs: [all.subarray(3, 7), { carried: "token" }, all.subarray(9, 10)] };
  const { program, inputs, memory } = sent(new Staging().pack(run));
  assert.equal(program, 1);
  assert.deepEqual([...inputs[0]], [3, 4, 5, 6]);
  assert.deepEqual(inputs[1], { carried: "token" });
  assert.deepEqual([...inputs[2]], [9]);
  assert.equal(memory.byteLength, 5);
  assert.equal(all.length, 1000); // the caller's is not handed over
});

test("memory of several runs is kept, of few", () => {
  const staging = new Staging();
  const pack = () => staging.pack({ inputs: [new Uint8Array(10)] }).memory;
  const memories = Array.from({ length: 20 }, pack);
  for (const memory of memories) staging.keep(memory);
  assert.equal(new Set([...memories, ...Array.from({ length: 20 }, pack)]).size, 20 + 12);
});

test("memory that came back is used again where it is large enough, by one run at a time", () => {
  const staging = new Staging();
  const pack = (bytes) => staging.pack({ inputs: [new Uint8Array(bytes)] }).memory;
  const first = pack(100);
  assert.notEqual(pack(100), first); // which is still under way
  staging.keep(first);
  assert.equal(pack(60), first);
  assert.notEqual(pack(60), first);
  staging.keep(first);
  assert.equal(pack(101).byteLength, 101);
});
