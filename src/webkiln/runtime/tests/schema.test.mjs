/** Schemas as grammars: what they let through, what they refuse by name, and which tokens fit. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeModel, END, pipelineOf, spell } from "./language.mjs";
import { load } from "./load.mjs";

const { Automaton, compileSchema, Constraint, Guide, Lexicon, WebkilnError } =
  await load("../tests/schema-entry");

/** Whether a schema's grammar allows a text. */
function allows(schema, text) {
  let state = new Automaton(compileSchema(schema)).start;
  for (const byte of new TextEncoder().encode(text)) state &&= state.after(byte);
  return Boolean(state?.accepts);
}

const point = {
  type: "object",
  properties: { x: { type: "integer" }, label: { type: "string" }, y: { type: "null" } },
  required: ["x"],
};
const tree = {
  $ref: "#/$defs/node",
  $defs: {
    node: {
      type: "object",
      properties: {
        value: { type: "integer" },
        children: { type: "array", items: { $ref: "#/$defs/node" } },
      },
      required: ["value"],
    },
  },
};
const shapes = {
  oneOf: [
    {
      type: "object",
      properties: { kind: { const: "circle" }, r: { type: "number" } },
      required: ["kind", "r"],
    },
    {
      type: "object",
      properties: { kind: { const: "square" }, a: { type: "number" } },
      required: ["kind", "a"],
    },
  ],
};

/** [schema, texts that fit, texts that don't] */
const CASES = [
  [
    { type: "string" },
    ['""', '"a é 😀"', '"\\n\\u00e9\\ud83d\\ude00\\/"'],
    ["a", '"', '"\n"', '"\\x"', '"\\ud83d"', '"\\ude00"'],
  ],
  [{ type: "number" }, ["0", "-1.5", "2e-3", "10"], ["01", "1.", ".5", "+1", "1e", "- 1", "NaN"]],
  [{ type: "integer" }, ["0", "-12"], ["1.0", "1e3", "00"]],
  [{ type: "boolean" }, ["true", "false"], ["True", "tru"]],
  [{ type: "null" }, ["null"], ["nul", "None"]],
  [{ type: ["string", "null"] }, ['"a"', "null"], ["1"]],
  [{}, ["1", '{"a": [null, {}]}', "[]", '"x"'], ["", "{", "[1,]", "{1: 2}"]],
  [
    { type: "object" },
    ["{}", '{"a":1}', '{\n  "a": 1,\n  "b": {}\n}'],
    ["[]", '{"a"}', '{"a": 1,}', "1"],
  ],
  [{ type: "object", required: ["a"] }, ['{"a": 1}', '{"a": {}, "b": 2}'], ["{}", '{"b": 1}']],
  [
    point,
    ['{"x": 1}', '{"x":1,"label":"","y":null}', '{"x": 1, "y": null}', '{\n\t"x": 1\n}'],
    [
      "{}",
      '{"x": "1"}',
      '{"label": "a"}',
      '{"x": 1, "z": 2}',
      '{"x": 1, "x": 1}',
      '{"x": 1,}',
      '{"y": null, "x": 1}',
    ],
  ],
  [{ ...point, additionalProperties: false }, ['{"x": 1}'], ['{"x": 1, "z": 2}']],
  [
    { ...point, additionalProperties: { type: "boolean" } },
    [
      '{"x": 1, "z": true}',
      '{"x": 1, "lab": true, "labels": false, "": true}',
      '{"x": 1, "é": true}',
    ],
    [
      '{"x": 1, "z": 2}',
      '{"x": 1, "y": true}',
      '{"x": 1, "label": true}',
      '{"x": 1, "\\u0079": true}',
    ],
  ],
  [
    {
      properties: { é: { type: "null" }, 'a"b\n': { type: "null" } },
      required: ["é"],
      additionalProperties: true,
    },
    ['{"é": null}', '{"é": null, "a\\"b\\n": null}', '{"é": null, "e": 1}', '{"é": null, "éa": 1}'],
    ['{"é": null, "é": 1}', '{"é": 1}'],
  ],
  [{ type: "object", properties: {}, additionalProperties: false }, ["{}", "{ }"], ['{"a": 1}']],
  [
    { type: "array", items: { type: "integer" } },
    ["[]", "[1]", "[1, -2,3]", "[\n  1\n]"],
    ['["a"]', "[1 2]", "[,1]"],
  ],
  [
    { type: "array", minItems: 2, maxItems: 3 },
    ["[1, 2]", '[1, "a", null]'],
    ["[1]", "[1, 2, 3, 4]", "[]"],
  ],
  [{ type: "array", maxItems: 0 }, ["[]"], ["[1]"]],
  [
    { prefixItems: [{ type: "integer" }, { type: "string" }], items: false },
    ["[]", "[1]", '[1, "a"]'],
    ['["a"]', '[1, "a", 2]', "[,]"],
  ],
  [
    { prefixItems: [{ type: "integer" }], items: { type: "null" }, minItems: 2, maxItems: 3 },
    ["[1, null]", "[1, null, null]"],
    ["[1]", "[null, null]", "[1, null, null, null]"],
  ],
  [{ enum: ["a", 1, null, { x: [1] }] }, ['"a"', "1", "null", '{"x":[1]}'], ['"b"', "2", '"']],
  [{ enum: ["red", "re", 'q"'], type: "string" }, ['"red"', '"re"', '"q\\""'], ['"r"', "1"]],
  [{ const: "é😀" }, ['"é😀"'], ['"é"']],
  [{ type: "string", minLength: 2, maxLength: 3 }, ['"ab"', '"é😀\\n"'], ['"a"', '"abcd"', '""']],
  [
    { type: "string", format: "date" },
    ['"2024-01-31"', '"1999-12-01"'],
    ['"2024-13-01"', '"2024-02-30"', '"x"'],
  ],
  [
    { type: "string", format: "date-time" },
    ['"2024-01-31T23:59:59Z"', '"2024-01-31T00:00:00.5+02:00"'],
    ['"2024-01-31"', '"2024-01-31T24:00:00Z"'],
  ],
  [{ type: "string", format: "uuid" }, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']],
  [
    { type: "integer", minimum: 3, maximum: 12 },
    ["3", "9", "10", "12"],
    ["2", "13", "-3", "03", "1", "100"],
  ],
  [
    { type: "integer", exclusiveMinimum: -12, exclusiveMaximum: 5 },
    ["-11", "-1", "0", "4"],
    ["-12", "5", "-0", "12"],
  ],
  [{ type: "integer", minimum: 100 }, ["100", "999", "123456"], ["99", "0", "-100"]],
  [{ type: "integer", minimum: 0.5, maximum: 1.5 }, ["1"], ["0", "2"]],
  [
    { anyOf: [{ type: "integer" }, { type: "array", items: { type: "string" } }] },
    ["1", '["a"]'],
    ['"a"', "[1]"],
  ],
  [{ oneOf: [{ type: "integer" }, { type: "string" }], title: "T" }, ["1", '"a"'], ["null"]],
  [
    shapes,
    ['{"kind": "circle", "r": 1}', '{"kind": "square", "a": 2.5}'],
    ['{"kind": "circle", "a": 1}', '{"kind": "oval", "r": 1}'],
  ],
  [{ allOf: [{ type: "null" }], description: "d" }, ["null"], ["1"]],
  [
    tree,
    ['{"value": 1}', '{"value": 1, "children": [{"value": 2, "children": []}]}'],
    ['{"value": 1, "children": [{}]}'],
  ],
  [
    {
      type: "object",
      properties: { next: { anyOf: [{ $ref: "#" }, { type: "null" }] } },
      required: ["next"],
    },
    ['{"next": {"next": null}}'],
    ['{"next": 1}'],
  ],
  [true, ["1", "{}"], [""]],
];

test("what a schema allows, its grammar allows, and nothing else", () => {
  for (const [schema, good, bad] of CASES) {
    for (const text of good) assert.ok(allows(schema, text), `${JSON.stringify(schema)}: ${text}`);
    for (const text of bad) assert.ok(!allows(schema, text), `${JSON.stringify(schema)}: ${text}`);
  }
});

test("white space is laid out, and comes to an end", () => {
  assert.ok(!allows({ type: "object" }, "{  }"));
  assert.ok(!allows({ type: "object" }, " {}"));
  assert.ok(!allows({ type: "object" }, "{} "));
  assert.ok(!allows({ type: "object" }, "{\n\n}"));
  assert.ok(!allows({ type: "number" }, "1".repeat(20)));
});

test("what can't be enforced is refused by name", () => {
  const cases = [
    [{ type: "string", pattern: "^a" }, /"pattern" at # can't be enforced/],
    [{ type: "string", format: "email" }, /"format" at #.*date-time/],
    [{ type: "integer", multipleOf: 5 }, /"multipleOf"/],
    [{ type: "number", minimum: 0 }, /"minimum"/],
    [{ type: "array", uniqueItems: true }, /"uniqueItems"/],
    [{ type: "array", contains: {} }, /"contains"/],
    [{ type: "object", patternProperties: {} }, /"patternProperties"/],
    [{ type: "object", minProperties: 1 }, /"minProperties"/],
    [{ not: { type: "string" } }, /"not"/],
    [{ if: {}, then: {} }, /"if"/],
    [{ allOf: [{ type: "object" }, { type: "object" }] }, /"allOf"/],
    [{ oneOf: [{ type: "integer" }, { type: "number" }] }, /"oneOf".*anyOf/],
    [
      { type: "object", properties: { a: { items: { pattern: "x" }, type: "array" } } },
      /"pattern" at #\/properties\/a\/items/,
    ],
    [{ type: "object", anyOf: [{}] }, /"type" at # .*beside "anyOf"/],
    [{ enum: ["a"], minLength: 3 }, /"minLength"/],
    [{ enum: ["a"], type: "integer" }, /"enum".*no value/],
    [{ enum: "a" }, /"enum"/],
    [{ $ref: "https://example.com/schema" }, /"\$ref".*example.com/],
    [{ $ref: "#/$defs/none" }, /"\$ref".*none/],
    [{ $ref: "#" }, /"\$ref".*itself/],
    [
      { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } } },
      /"\$ref".*itself/,
    ],
    [{ type: "text" }, /"type".*"text"/],
    [{ type: [] }, /"type"/],
    [{ type: "integer", minimum: 5, maximum: 4 }, /"minimum".*no value/],
    [{ type: "array", minItems: 3, maxItems: 2 }, /"minItems"/],
    [{ type: "array", minItems: -1 }, /"minItems"/],
    [{ prefixItems: [{}], items: false, minItems: 2 }, /"minItems".*no value/],
    [{ type: "object", required: ["a"], additionalProperties: false }, /"required".*"a"/],
    [{ type: "object", properties: { a: false } }, /"false" at #\/properties\/a/],
    [{ type: "object", properties: { a: 5 } }, /should be a schema/],
    [false, /no value/],
  ];
  for (const [schema, text] of cases) {
    assert.throws(
      () => compileSchema(schema),
      (error) => {
        assert.ok(error instanceof WebkilnError, `${JSON.stringify(schema)}: ${error.stack}`);
        assert.equal(error.code, "schema-unsupported");
        assert.match(error.message, text);
        return true;
      },
      JSON.stringify(schema),
    );
  }
});

test("a mask allows the tokens whose bytes fit, and the end where the text may end", () => {
  const words = ["{", '{"', "}", '"x"', '": ', "1", "12", "123", "}}", "a", "\xe2\x82", "1}"];
  const lexicon = new Lexicon(words.map((word, i) => [i + 40, word]));
  const schema = { type: "array", items: { enum: [12, 1] }, maxItems: 1 };
  const guide = new Guide(
    compileSchema(schema),
    new Lexicon([
      [70, "["],
      [71, "]"],
      [72, "1"],
      [73, "12"],
      [74, "[1"],
      [75, "123"],
      [3, "2]"],
    ]),
    [9],
    80,
  );
  const constraint = new Constraint(guide);
  const allowed = () => {
    const mask = constraint.mask();
    return [...Array(80).keys()].filter((id) => (mask[id >>> 5] >>> (id & 31)) & 1);
  };
  assert.deepEqual(allowed(), [70, 74]);
  constraint.accept(74);
  assert.deepEqual(allowed(), [3, 71]);
  constraint.accept(3);
  assert.ok(constraint.finished);
  assert.deepEqual(allowed(), [9]);
  assert.throws(() => constraint.accept(70), /ruled out/);
  const object = new Constraint(new Guide(compileSchema({ type: "object" }), lexicon, [9], 80));
  assert.equal(object.mask()[1] & (0b11 << 8), 0b11 << 8); // "{" and '{"', ids 40 and 41
  const poor = new Guide(compileSchema({ type: "array" }), lexicon, [9], 80);
  assert.throws(() => new Constraint(poor).mask(), /vocabulary has no token/);
});

const format = (schema) => ({ type: "json_schema", json_schema: { name: "x", schema } });
const ask = (llm, response_format, options = {}) =>
  llm.chat.completions.create({
    messages: [{ role: "user", content: "hi" }],
    response_format,
    temperature: 0,
    ...options,
  });

/** A model that would rather chat, but knows a little JSON. */
const chatty = (ids) => {
  const wish = 'Sure! {"name": "Ann", "age": 7}';
  const logits = Object.fromEntries([...spell("abcdefghijk")].map((id, i) => [id, 5 - i]));
  const next = spell(wish)[Math.max(0, ids.length - 5)];
  return { ...logits, [next]: 9, [END]: 1, 34: 4, 125: 4.5, 58: 3, 44: 3, 48: 3 };
};

test("answers are what the schema says, whatever the model would rather say", async () => {
  const schema = {
    type: "object",
    properties: { name: { type: "string", maxLength: 5 }, age: { type: "integer", maximum: 99 } },
    required: ["name", "age"],
    additionalProperties: false,
  };
  const llm = await pipelineOf(new FakeModel(chatty), { generation: { context: 400 } });
  const { choices, usage } = await ask(llm, format(schema));
  const value = JSON.parse(choices[0].message.content);
  assert.deepEqual(Object.keys(value), ["name", "age"]);
  assert.ok(value.name.length <= 5 && Number.isInteger(value.age));
  assert.equal(choices[0].finish_reason, "stop");
  // The closing brace ends the answer; no token is spent on finding out.
  assert.equal(usage.completion_tokens, spell(choices[0].message.content).length);
  for (const temperature of [0.5, 2]) {
    const hot = await ask(llm, { type: "json_object" }, { temperature, seed: 3, max_tokens: 300 });
    if (hot.choices[0].finish_reason === "stop") JSON.parse(hot.choices[0].message.content);
  }
  await assert.rejects(ask(llm, format({ type: "string", pattern: "x" })), /"pattern"/);
});

test("where the device samples, it gets the mask and gives the token", async () => {
  const sampler = (logits, feeds, Tensor) => ({
    token: () => {
      const mask = feeds.token_mask.data;
      let best = -1;
      logits.forEach((logit, id) => {
        if ((mask[id >>> 5] >>> (id & 31)) & 1 && !(logits[best] >= logit)) best = id;
      });
      return new Tensor("int64", [best], [1]);
    },
  });
  const model = new FakeModel(chatty, { sampler });
  const llm = await pipelineOf(model, { generation: { context: 400 } });
  const { choices } = await ask(llm, format({ enum: ["yes", "no"] }));
  assert.ok(["yes", "no"].includes(JSON.parse(choices[0].message.content)));
  assert.ok(model.log.every(({ outputs }) => !outputs.includes("logits")));
  assert.deepEqual(model.log.at(-1).outputs, ["token"]);
  const [sampling, seed] = ["sampling", "seed"].map((name) => [
    ...model.log.at(-1).feeds[name].data,
  ]);
  assert.deepEqual(sampling, [0, 1, 0, 1, 0, 0, 0, 0]);
  assert.equal(seed[1], choices[0].message.content.length - 1);
});
