import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { Rest, shardsOf } = await load("rest");

const GROUP_BYTES = 8;

/** A table of `rows` in shards of `bytes`, named by the second input of the first program. */
const make = (rows, group, bytes) => {
  const total = Math.ceil(rows / group) * GROUP_BYTES;
  const shards = [];
  for (let at = 0; at < total; at += bytes) {
    shards.push({ table: 0, offset: 256 + at, bytes: Math.min(bytes, total - at) });
  }
  const namedBy = [{ program: 0, input: 1 }];
  const tables = [{ offset: 256, rows, group, groupBytes: GROUP_BYTES, namedBy }];
  return { plan: { weights: { shards, tables } }, shards };
};

/** A run as it arrives in a message: inputs lie anywhere. */
const asked = (...rows) => {
  const all = new Uint8Array(5 + 4 * rows.length);
  all.set(new Uint8Array(Int32Array.from(rows).buffer), 5);
  return { program: 0, inputs: [new Uint8Array(1), all.subarray(5)] };
};

test("a run needs the shards of its rows", () => {
  const { plan, shards } = make(10, 1, 16); // two rows a shard
  const needed = (...rows) => shardsOf(plan, asked(...rows), shards).map((s) => shards.indexOf(s));
  assert.deepEqual(needed(0), [0]);
  assert.deepEqual(needed(3, 2, 9, 3), [1, 4]);
  assert.deepEqual(needed(-1, -10), [0, 4]);
  assert.deepEqual(needed(), []);
  assert.deepEqual(needed(10, -11, 2 ** 31 - 1), []); // the program says what becomes of those
  assert.deepEqual(shardsOf(plan, { program: 1, inputs: [] }, shards), []);
});

test("rows in groups, and groups on both sides of a border", () => {
  const { plan, shards } = make(10, 4, 12); // three groups of 8 bytes in two shards
  const needed = (...rows) => shardsOf(plan, asked(...rows), shards).map((s) => shards.indexOf(s));
  assert.deepEqual(needed(3), [0]);
  assert.deepEqual(needed(4), [0, 1]);
  assert.deepEqual(needed(9), [1]);
});

/** A `bring` that records what it is asked for and waits to be told how it ends. */
const bringing = () => {
  const calls = [];
  const bring = (shards, atOnce, signal, onShard) =>
    new Promise((resolve, reject) => {
      const done = () => (shards.forEach(onShard), resolve());
      calls.push({ shards, signal, done, reject });
    });
  return { calls, bring };
};

test("what is on its way is not asked for again, and what is here never", async () => {
  const { plan, shards } = make(10, 1, 16);
  const { calls, bring } = bringing();
  const rest = new Rest(shards, bring);
  const first = rest.forRun(plan, asked(0, 2));
  const second = rest.forRun(plan, asked(2, 4));
  assert.deepEqual(
    calls.map((call) => call.shards),
    [[shards[0], shards[1]], [shards[2]]],
  );
  calls[0].done();
  await first;
  calls[1].done();
  await second;
  await rest.forRun(plan, asked(0, 2, 4));
  assert.equal(calls.length, 2);
});

test("what failed is asked for again by the next run that needs it", async () => {
  const { plan, shards } = make(10, 1, 16);
  const { calls, bring } = bringing();
  const rest = new Rest(shards, bring);
  const failing = rest.forRun(plan, asked(0));
  calls[0].reject(new Error("gone"));
  await assert.rejects(failing, /gone/);
  const again = rest.forRun(plan, asked(0));
  calls[1].done();
  await again;
});

test("all of it follows, but not while a run waits", async () => {
  const { plan, shards } = make(10, 1, 16);
  const { calls, bring } = bringing();
  const rest = new Rest(shards, bring);
  const run = rest.forRun(plan, asked(4));
  await new Promise((done) => setTimeout(done, 400));
  assert.deepEqual(
    calls.map((call) => call.shards),
    [[shards[2]]],
  );
  calls[0].done();
  await run;
  while (calls.length < shards.length) {
    await new Promise((done) => setTimeout(done, 5));
    calls.forEach(({ done }) => done());
  }
  await rest.complete;
  const came = calls.flatMap((call) => call.shards);
  assert.deepEqual(came.sort((a, b) => a.offset - b.offset), shards);
  await rest.forRun(plan, asked(0, 9));
  assert.equal(calls.length, shards.length);
});

test("a model without tables is complete", async () => {
  const { calls, bring } = bringing();
  await new Rest([], bring).complete;
  assert.equal(calls.length, 0);
});

test("stopped, it ends what is on its way", () => {
  const { plan, shards } = make(10, 1, 16);
  const { calls, bring } = bringing();
  const rest = new Rest(shards, bring);
  rest.forRun(plan, asked(0)).catch(() => undefined);
  rest.stop();
  assert.equal(calls[0].signal.aborted, true);
});
