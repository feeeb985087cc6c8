import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { Tensor, fromHalf, toHalf } = await load("tensor");
const { fromStorage, toStorage } = await load("feeds");

test("every half survives the way to a float and back", () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = fromHalf(bits);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(fromHalf(toHalf(value))));
    else assert.equal(toHalf(value), bits, `bits ${bits}`);
  }
});

test("rounding to half is to nearest, ties to even", () => {
  for (let bits = 0; bits < 0x7bff; bits++) {
    const [low, high] = [fromHalf(bits), fromHalf(bits + 1)];
    const middle = (low + high) / 2;
    assert.equal(toHalf(middle), bits % 2 ? bits + 1 : bits);
    assert.equal(toHalf(low + (high - low) * 0.49), bits);
    assert.equal(toHalf(low + (high - low) * 0.51), bits + 1);
  }
  assert.equal(toHalf(65519), 0x7bff);
  assert.equal(toHalf(65520), 0x7c00);
  assert.equal(toHalf(1e-30), 0);
});

test("what a tensor is made from", () => {
  assert.deepEqual([...new Tensor("int64", [1, 2n, true]).data], [1n, 2n, 1n]);
  assert.deepEqual([...new Tensor("int64", Int32Array.of(-1, 5)).data], [-1n, 5n]);
  assert.deepEqual([...new Tensor("bool", [true, false, 1]).data], [1, 0, 1]);
  assert.deepEqual([...new Tensor("float16", [1, -2]).data], [0x3c00, 0xc000]);
  assert.deepEqual([...new Tensor("float16", Float32Array.of(1)).data], [0x3c00]);
  const data = Float32Array.of(1, 2);
  assert.equal(new Tensor("float32", data, [2, 1]).data, data, "no copy is made");
  assert.deepEqual(new Tensor("float32", 5 > 4 ? [3] : [], []).shape, []);
});

test("what it refuses", () => {
  const code = (wanted) => (error) => error.name === "WebkilnError" && error.code === wanted;
  assert.throws(() => new Tensor("float33", [1]), code("input-dtype"));
  assert.throws(() => new Tensor("int64", [0.5]), code("input-dtype"));
  assert.throws(() => new Tensor("float32", ["1"]), code("input-dtype"));
  assert.throws(() => new Tensor("float32", null), code("input-dtype"));
  assert.throws(() => new Tensor("float32", new ArrayBuffer(4)), code("input-dtype"));
  assert.throws(() => new Tensor("float32", [1, 2], [3]), code("input-shape"));
  assert.throws(() => new Tensor("float32", [1, 2], [-2]), code("input-shape"));
  assert.throws(() => new Tensor("uint8", [256]), code("input-dtype"));
});

test("dtypes and their storage", () => {
  const cases = [
    ["int64", "int32", [1n, -2n, 2147483647n]],
    ["bool", "int32", [1, 0, 1]],
    ["uint8", "int32", [255, 0]],
    ["int8", "int32", [-128, 127]],
    ["uint64", "uint32", [4294967295n]],
    ["float64", "float32", [0.5, -3]],
    ["float32", "float32", [1.25]],
    ["float16", "float16", [0x3c00]],
    ["float32", "float16", [1.5]],
    ["float16", "float32", [0x3c00]],
    ["bool", "uint8", [0, 1]],
  ];
  for (const [dtype, storage, values] of cases) {
    const tensor =
      dtype === "float16" ? new Tensor(dtype, Uint16Array.from(values)) : new Tensor(dtype, values);
    const stored = toStorage(tensor, storage, "x");
    const back = fromStorage(stored.slice().buffer, dtype, storage, tensor.shape);
    assert.deepEqual(back.data, tensor.data, `${dtype} in ${storage}`);
  }
  assert.throws(
    () => toStorage(new Tensor("int64", [2 ** 31]), "int32", "ids"),
    /"ids" holds 2147483648/,
  );
  for (const [dtype, storage, value] of [
    ["int64", "int32", -(2n ** 31n) - 1n],
    ["int64", "int32", 2n ** 32n - 1n],
    ["uint64", "uint32", 2n ** 32n],
    ["int16", "int8", 128],
  ]) {
    const tensor = new Tensor(dtype, [0, value]);
    assert.throws(() => toStorage(tensor, storage, "ids"), new RegExp(`holds ${value} at 1`));
  }
});
