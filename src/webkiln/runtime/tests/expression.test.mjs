import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { evaluate, print } = await load("expression");

test("operators floor as in Python", () => {
  const cases = [
    ["+", 7, -3, 4],
    ["-", 7, 10, -3],
    ["*", 7, -2, -14],
    ["//", 7, 2, 3],
    ["//", -7, 2, -4],
    ["//", 7, -2, -4],
    ["%", 7, 3, 1],
    ["%", -7, 3, 2],
    ["%", 7, -3, -2],
    ["min", 7, 3, 3],
    ["max", 7, 3, 7],
    ["ceildiv", 7, 2, 4],
    ["ceildiv", 8, 2, 4],
    ["ceildiv", -7, 2, -3],
  ];
  for (const [operator, a, b, wanted] of cases) {
    assert.equal(evaluate([operator, a, b], {}), wanted, `${a} ${operator} ${b}`);
  }
});

test("dimensions and nesting", () => {
  const tiles = ["ceildiv", ["*", "sequence", ["+", "past", 1]], 64];
  assert.equal(evaluate(tiles, { sequence: 10, past: 12 }), 3);
  assert.equal(print(tiles), "ceildiv((sequence * (past + 1)), 64)");
});
