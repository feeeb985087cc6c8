"""Constrained answers: what the browser lets a model say, against `jsonschema` and `json`."""

from __future__ import annotations

import datetime
import json
import random
import uuid
from typing import Any

import jsonschema
import pytest

from tests.unit.typescript import run

# Draws answers of a "model" that says anything at all: whichever tokens the mask allows. After a
# while it prefers those that bring it to an end.
WALK = """
import { Constraint, Guide, Lexicon } from "src/tasks/generation/constraint/constraint.ts";
import { compileSchema } from "src/tasks/generation/constraint/schema.ts";
export function answer({ schemas, tokens, walks, patience, ends }) {
  const lexicon = new Lexicon(tokens.map((bytes, id) => [id, bytes]));
  const EOS = tokens.length;
  let state = 12345;
  const random = (n) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return Math.floor((state / 0x80000000) * n);
  };
  return schemas.map((schema) => {
    const guide = new Guide(compileSchema(schema), lexicon, [EOS], EOS + 1);
    return Array.from({ length: walks }, () => {
      const constraint = new Constraint(guide);
      let bytes = "";
      for (let step = 0; step < 40 * patience; step++) {
        const mask = constraint.mask();
        const fits = (id) => (mask[id >>> 5] >>> (id & 31)) & 1;
        let allowed = [...Array(EOS + 1).keys()].filter(fits);
        const last = step > patience ? ends.find((id) => fits(id)) : undefined;
        const id = last ?? allowed[random(allowed.length)];
        if (id === EOS) return bytes;
        constraint.accept(id);
        bytes += tokens[id];
        if (constraint.finished) return bytes;
      }
      return null;
    });
  });
}
"""

PIECES = [
    '{"', '":', '": ', '",', '", ', '"}', '"]', '": "', '": [', '": {', "}}", "]}", "],", "}, {",
    "true", "false", "null", " null", "12", "100", "-1", "0.5", "e+", "\n  ", "\n", '\\"',
    "\\u00e9", "\\ud83d", "\\ude00", "name", "kind", "a", "ab", "hello", "é", "😀", "日本",
    "2024-", "-01", "T00:",
]  # fmt: skip


def tokens() -> list[str]:
    """Every byte, pieces as tokenizers have them, and halves of characters; as Latin-1 texts."""
    halves = [piece.encode()[:2] for piece in ("日本", "😀")]
    found = [bytes([b]) for b in range(256)] + [piece.encode() for piece in PIECES] + halves
    return [piece.decode("latin-1") for piece in dict.fromkeys(found)]


def schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema of the subset, at random."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "format", "range", "length"]
    if depth < 3:
        kinds += ["object", "object", "array", "anyOf", "tuple"]
    kind = rng.choice(kinds)
    inner = lambda: schema(rng, depth + 1)  # noqa: E731
    if kind == "object":
        names = rng.sample(["a", "ab", "name", "é", 'q"', "kind", "b\\n"], rng.randint(0, 4))
        made: dict[str, Any] = {"type": "object", "properties": {name: inner() for name in names}}
        made["required"] = [name for name in names if rng.random() < 0.5]
        if rng.random() < 0.6:
            made["additionalProperties"] = rng.choice([False, True, inner()])
        return made
    if kind == "array":
        low = rng.randint(0, 2)
        made = {"type": "array", "items": inner()}
        return made | rng.choice([{}, {"minItems": low, "maxItems": low + rng.randint(0, 2)}])
    if kind == "tuple":
        rest = rng.choice([{"items": False}, {"items": inner(), "maxItems": 4}])
        return {"type": "array", "prefixItems": [inner(), inner()], "minItems": 1} | rest
    if kind == "anyOf":
        return {"anyOf": [inner() for _ in range(rng.randint(1, 3))]}
    if kind == "enum":
        return {"enum": rng.sample(["a", "ab", 1, 2.5, None, True, {"x": [1]}, [], "é😀"], 3)}
    if kind == "format":
        return {"type": "string", "format": rng.choice(["date", "uuid"])}
    if kind == "range":
        low = rng.randint(-300, 300)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 2000)}
    if kind == "length":
        low = rng.randint(0, 3)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 3)}
    return {"type": kind}


def checker() -> jsonschema.FormatChecker:
    checker = jsonschema.FormatChecker(formats=())
    checker.checks("date", ValueError)(lambda text: bool(datetime.date.fromisoformat(text)))
    checker.checks("uuid", ValueError)(lambda text: bool(uuid.UUID(text)))
    return checker


def test_whatever_is_drawn_is_valid(tmp_path):
    rng = random.Random(1)
    schemas = [schema(rng) for _ in range(150)]
    vocabulary = tokens()
    ends = [len(vocabulary), *(vocabulary.index(end) for end in '"]}10:,')]
    job = {"schemas": schemas, "tokens": vocabulary, "walks": 8, "patience": 25, "ends": ends}
    finished = 0
    for one, texts in zip(schemas, run(tmp_path, WALK, job), strict=True):
        validator = jsonschema.Draft202012Validator(one, format_checker=checker())
        for text in filter(None, texts):
            finished += 1
            # Bytes that are not UTF-8 raise here.
            value = json.loads(text.encode("latin-1").decode())
            validator.validate(value)
    assert finished > 1000, finished


READ = """
import { Automaton } from "src/tasks/generation/constraint/grammar.ts";
import { compileSchema } from "src/tasks/generation/constraint/schema.ts";
export function answer(pairs) {
  return pairs.map(([schema, text]) => {
    let state = new Automaton(compileSchema(schema)).start;
    for (const byte of new TextEncoder().encode(text)) state &&= state.after(byte);
    return Boolean(state && state.accepts);
  });
}
"""


def value(rng: random.Random, depth: int = 0) -> Any:
    kinds = ["text", "int", "float", "bool", "none"] + ["list", "dict"] * (depth < 3)
    kind = rng.choice(kinds)
    if kind == "text":
        return "".join(rng.choice('ab"\\\n\té😀\x7f /') for _ in range(rng.randint(0, 6)))
    if kind == "list":
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind == "dict":
        return {f"k{i}é": value(rng, depth + 1) for i in range(rng.randint(0, 3))}
    return {
        "int": rng.randint(-(10**9), 10**9), "float": rng.uniform(-1e6, 1e6),
        "bool": rng.random() < 0.5, "none": None,
    }[kind]  # fmt: skip


def shape_of(value: Any) -> dict[str, Any]:
    """A schema that the value fits."""
    if isinstance(value, dict):
        properties = {name: shape_of(inner) for name, inner in value.items()}
        return {"type": "object", "properties": properties, "required": list(value)}
    if isinstance(value, list):
        return {"type": "array", "items": {"anyOf": [shape_of(v) for v in value] or [{}]}}
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return {"type": names[type(value)]}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_python_json_of_a_fitting_value_is_allowed(tmp_path, ascii_only, indent):
    rng = random.Random(2)
    pairs = []
    for _ in range(200):
        one = value(rng)
        text = json.dumps(one, ensure_ascii=ascii_only, indent=indent)
        pairs += [[shape_of(one), text], [{}, text]]
    found = run(tmp_path, READ, pairs)
    wrong = [pair for pair, allowed in zip(pairs, found, strict=True) if not allowed]
    # Names of properties are spelt as JavaScript does it: not with escapes for what is not ASCII.
    assert not [pair for pair in wrong if not (ascii_only and "\\u00e9" in pair[1])], wrong[:2]
