import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { readPlan } = await load("plan");

const hash = "0".repeat(64);

/** The smallest plan that uses every part of the format. */
const make = () => ({
  format: "webkiln.plan",
  version: 1,
  generator: "webkiln 0.1.0",
  name: "tiny",
  dims: [{ name: "n", min: 1, max: 64 }],
  programs: [
    {
      name: "main",
      inputs: [{ name: "x", dtype: "int64", shape: [1, "n"], buffer: 0 }],
      outputs: [{ name: "y", dtype: "float32", shape: [1, ["*", "n", 2]], buffer: 1 }],
      steps: {
        wasm: [{ label: "Mul_0", kind: "loops", reads: [0], writes: [1], flops: "n", bytes: 8 }],
        webgpu: [
          {
            label: "Mul_0",
            kernel: 0,
            buffers: [0, 1],
            params: ["n"],
            workgroups: [["ceildiv", "n", 64], 1, 1],
            flops: "n",
            bytes: 8,
          },
        ],
      },
    },
  ],
  kernels: [{ name: "k0", access: ["read", "write"], params: 1, kind: "elementwise" }],
  buffers: [
    {
      name: "x",
      dtype: "int32",
      bytes: 256,
      role: "input",
      wasm: 131072,
      webgpu: { slot: 0, offset: 0 },
    },
    {
      name: "y",
      dtype: "float32",
      bytes: 512,
      role: "output",
      wasm: 131328,
      webgpu: { slot: 1, offset: 256 },
    },
  ],
  weights: {
    bytes: 8,
    pieceBytes: 4,
    shards: [
      { file: `${hash}.bin`, sha256: hash, offset: 0, bytes: 8, pieces: [hash, hash] },
    ],
  },
  wasm: {
    variants: [{ file: "simd.wasm", sha256: hash, bytes: 1, features: ["simd"] }],
    memory: { bytes: 196608, dims: 64, weights: 196600, stacks: { offset: 65536, bytes: 65536 } },
    maxThreads: 8,
  },
  webgpu: {
    variants: [
      {
        file: "kernels.f16.wgsl",
        sha256: hash,
        bytes: 1,
        features: ["shader-f16"],
        limits: { maxComputeWorkgroupStorageSize: 64 },
      },
      { file: "kernels.wgsl", sha256: hash, bytes: 1, features: [], limits: {} },
    ],
    slots: [{ bytes: 256 }, { bytes: 768, weights: 0 }],
    limits: { maxBufferSize: 1 },
  },
  golden: [
    {
      dims: { n: 7 },
      file: "golden.bin",
      rtol: 1e-3,
      atol: 1e-4,
      inputs: { x: { offset: 0, bytes: 56, shape: [1, 7], dtype: "int64" } },
      outputs: { y: { offset: 64, bytes: 56, shape: [1, 14], dtype: "float32" } },
    },
  ],
  task: { name: "generic", anything: [1] },
});

test("a whole plan", () => {
  const plan = readPlan(make());
  assert.equal(plan.webgpu.slots[0].weights, null);
  assert.deepEqual(plan.task, { name: "generic", anything: [1] });
  assert.deepEqual(plan.programs[0].outputs[0].shape, [1, ["*", "n", 2]]);
});

/** The first shard has the eight rows of a byte each that x names. */
const withTable = (plan, changes = {}) => {
  const namedBy = [{ program: 0, input: 0 }];
  plan.weights.tables = [{ offset: 0, rows: 8, group: 1, groupBytes: 1, namedBy, ...changes }];
  plan.weights.shards[0].table = 0;
  return plan;
};

test("weights are no table's unless they say so", () => {
  const { shards, tables } = readPlan(make()).weights;
  assert.deepEqual([shards[0].table, tables], [null, []]);
  assert.equal(readPlan(withTable(make())).weights.shards[0].table, 0);
});

test("either target may be absent, not both", () => {
  assert.equal(readPlan({ ...make(), webgpu: null }).webgpu, null);
  assert.equal(readPlan({ ...make(), wasm: null }).wasm, null);
  assert.throws(() => readPlan({ ...make(), wasm: null, webgpu: null }), /neither/);
});

/** Each change to the plan, and what the error must name. */
const wrong = [
  [
    (p) => {
      p.format = "zip";
    },
    /format should be one of webkiln.plan, but is "zip"/,
  ],
  [
    (p) => {
      p.version = 2;
    },
    /version should be one of 1, but is 2/,
  ],
  [
    (p) => {
      delete p.programs;
    },
    /programs should be an array, but is missing/,
  ],
  [
    (p) => {
      p.programs = [];
    },
    /programs should have at least 1/,
  ],
  [
    (p) => {
      p.dims[0].min = 65;
    },
    /dims\[0\] has min 65 above max 64/,
  ],
  [
    (p) => {
      p.programs[0].inputs[0].dtype = "string";
    },
    /programs\[0\]\.inputs\[0\]\.dtype should be one of/,
  ],
  [
    (p) => {
      p.programs[0].inputs[0].buffer = 2;
    },
    /programs\[0\]\.inputs\[0\]\.buffer should be an index in buffers/,
  ],
  [
    (p) => {
      p.programs[0].inputs[0].shape[1] = "m";
    },
    /programs\[0\]\.inputs\[0\]\.shape\[1\] names the dimension "m"/,
  ],
  [
    (p) => {
      p.programs[0].steps.webgpu[0].params = [["^", "n", 2]];
    },
    /steps\.webgpu\[0\]\.params\[0\] is not an expression/,
  ],
  [
    (p) => {
      p.programs[0].steps.webgpu[0].params = [["+", "n", "k"]];
    },
    /params\[0\]\[2\] names the dimension "k"/,
  ],
  [
    (p) => {
      p.programs[0].steps.webgpu[0].params = [];
    },
    /steps\.webgpu\[0\]\.params has 0 entries, where k0 takes 1/,
  ],
  [
    (p) => {
      p.programs[0].steps.webgpu[0].buffers = [0];
    },
    /steps\.webgpu\[0\]\.buffers has 1 entries, where k0 takes 2/,
  ],
  [
    (p) => {
      p.programs[0].steps.webgpu[0].workgroups = [1];
    },
    /steps\.webgpu\[0\]\.workgroups has 1 entries/,
  ],
  [
    (p) => {
      p.programs[0].steps.webgpu[0].kernel = 1;
    },
    /steps\.webgpu\[0\]\.kernel should be an index in kernels/,
  ],
  [
    (p) => {
      p.kernels[0].access[0] = "readwrite";
    },
    /kernels\[0\]\.access\[0\] should be one of/,
  ],
  [
    (p) => {
      p.buffers[0].bytes = -4;
    },
    /buffers\[0\]\.bytes should be a whole number/,
  ],
  [
    (p) => {
      p.buffers[0].wasm = 196600;
    },
    /buffers\[0\]\.wasm ends beyond/,
  ],
  [
    (p) => {
      p.buffers[0].wasm = 3;
    },
    /buffers\[0\]\.wasm should be a whole number from 0, a multiple of 4/,
  ],
  [
    (p) => {
      delete p.buffers[0].wasm;
    },
    /inputs\[0\] names buffer 0, which has no place on wasm/,
  ],
  [
    (p) => {
      p.buffers[1].webgpu.offset = 128;
    },
    /buffers\[1\]\.webgpu\.offset should be .* multiple of 256/,
  ],
  [
    (p) => {
      p.buffers[1].webgpu.offset = 512;
    },
    /buffers\[1\]\.webgpu ends beyond slot 1/,
  ],
  [
    (p) => {
      p.buffers[1].webgpu.slot = 2;
    },
    /buffers\[1\]\.webgpu\.slot is 2, which does not exist/,
  ],
  [
    (p) => {
      p.weights.shards[0].file = "../secret.bin";
    },
    /weights\.shards\[0\]\.file should be a plain file name/,
  ],
  [
    (p) => {
      p.weights.shards[0].sha256 = "abc";
    },
    /weights\.shards\[0\]\.sha256 should be a SHA-256/,
  ],
  [
    (p) => {
      p.weights.shards[0].offset = 4;
    },
    /weights\.shards\[0\]\.offset should be 0, but is 4/,
  ],
  [
    (p) => {
      p.weights.shards[0].pieces.pop();
    },
    /weights\.shards\[0\]\.pieces should be 2, but are 1/,
  ],
  [
    (p) => {
      p.weights.pieceBytes = 0;
    },
    /weights\.pieceBytes should be a whole number from 4/,
  ],
  [(p) => withTable(p, { rows: 7 }), /weights\.shards\[0\]\.table has less than the shard/],
  [(p) => withTable(p, { offset: 4 }), /weights\.shards\[0\]\.table has less than the shard/],
  [
    (p) => {
      p.weights.shards[0].table = 0;
    },
    /weights\.shards\[0\]\.table should be an index in weights\.tables, which has 0/,
  ],
  [
    (p) => withTable(p, { namedBy: [{ program: 1, input: 0 }] }),
    /weights\.tables\[0\]\.namedBy\[0\]\.program should be an index in programs/,
  ],
  [
    (p) => withTable(p, { namedBy: [{ program: 0, input: 1 }] }),
    /weights\.tables\[0\]\.namedBy\[0\]\.input should be an index in its inputs/,
  ],
  [
    (p) => {
      withTable(p).buffers[0].dtype = "float32";
    },
    /weights\.tables\[0\]\.namedBy\[0\] is not of int32/,
  ],
  [
    (p) => {
      p.weights.bytes = 9;
    },
    /weights\.bytes is 9, but the shards have 8/,
  ],
  [
    (p) => {
      p.wasm.memory.bytes = 100;
    },
    /wasm\.memory\.bytes should be .* multiple of 65536/,
  ],
  [
    (p) => {
      p.wasm.memory.weights = 196604;
    },
    /wasm\.memory\.weights leaves too little room/,
  ],
  [
    (p) => {
      p.wasm.variants = [];
    },
    /wasm\.variants should have at least 1/,
  ],
  [
    (p) => {
      p.wasm.maxThreads = 0;
    },
    /wasm\.maxThreads should be a whole number from 1/,
  ],
  [
    (p) => {
      p.golden[0].inputs.x.dtype = 1;
    },
    /golden\[0\]\.inputs\.x\.dtype should be one of/,
  ],
  [
    (p) => {
      p.task = { name: "../evil" };
    },
    /task\.name should be a task's name/,
  ],
];

for (const [change, message] of wrong) {
  test(`refuses: ${message}`, () => {
    const plan = make();
    change(plan);
    assert.throws(
      () => readPlan(plan),
      (error) => error.code === "plan-invalid" && message.test(error.message),
    );
  });
}

for (const value of [null, 3, "plan", []]) {
  test(`refuses ${JSON.stringify(value)}`, () => {
    assert.throws(
      () => readPlan(value),
      (error) => error.code === "plan-invalid",
    );
  });
}
