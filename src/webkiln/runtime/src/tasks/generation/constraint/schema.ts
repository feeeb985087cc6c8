/**
 * JSON Schema → a grammar of the values that it allows. A keyword that can't be enforced is refused
 * by name: an answer either is what the schema says, or the caller hears that it can't be promised.
 */
import { WebkilnError } from "../../../index.js";
import type { JsonSchema } from "../types.js";
import { formats } from "./formats.js";
import { choice, lazy, literal, optional, repeat, sequence, type Rule } from "./grammar.js";
import * as json from "./json.js";
import { otherKeys } from "./keys.js";
import { integerBetween } from "./range.js";

type Schema = Exclude<JsonSchema, boolean>;

const TYPES = ["string", "number", "integer", "boolean", "null", "array", "object"] as const;
type Type = (typeof TYPES)[number];

/** Say nothing about the value. */
const ANNOTATIONS = [
  "title",
  "description",
  "default",
  "examples",
  "example",
  "deprecated",
  "readOnly",
  "writeOnly",
  "$schema",
  "$id",
  "$comment",
  "$defs",
  "definitions",
  "discriminator",
];

/** What each type's values may be held to. */
const KEYWORDS: Readonly<Record<Type, readonly string[]>> = {
  string: ["minLength", "maxLength", "format"],
  number: [],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  boolean: [],
  null: [],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  object: ["properties", "required", "additionalProperties"],
};

const SUPPORTED = [
  "type",
  "enum",
  "const",
  "anyOf",
  "oneOf",
  "allOf (of one)",
  "$ref",
  ...TYPES.flatMap((type) => KEYWORDS[type]),
];

function unsupported(keyword: string, path: string, why: string): never {
  throw new WebkilnError(
    "schema-unsupported",
    `The schema's "${keyword}" at ${path} can't be enforced: ${why}.`,
    `Supported are ${SUPPORTED.join(", ")}.`,
  );
}

/** The grammar of a schema. @throws WebkilnError "schema-unsupported", which names the keyword. */
export function compileSchema(root: JsonSchema): Rule {
  return new Compiler(root).compile(root, "#");
}

class Compiler {
  /** By reference: what it leads to, compiled once. */
  private readonly references = new Map<string, Rule>();

  constructor(private readonly root: JsonSchema) {}

  compile(schema: JsonSchema, path: string): Rule {
    if (schema === true) return json.value;
    if (schema === false) unsupported("false", path, "no value is allowed");
    if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
      unsupported(String(path.split("/").at(-1)), path, "it should be a schema");
    }
    for (const keyword of ["$ref", "enum", "const", "anyOf", "oneOf", "allOf"] as const) {
      if (schema[keyword] === undefined) continue;
      const values = keyword === "enum" || keyword === "const";
      this.only(schema, values ? [keyword, "type"] : [keyword], path, `beside "${keyword}"`);
      if (values) return this.values(schema, keyword, path);
      if (keyword === "$ref") return this.reference(schema.$ref, path);
      return this.combine(schema, keyword, path);
    }
    return this.typed(schema, path);
  }

  /** Refuses keywords that are neither annotations nor `known`. */
  private only(schema: Schema, known: readonly string[], path: string, why: string): void {
    for (const keyword of Object.keys(schema)) {
      if (known.includes(keyword) || ANNOTATIONS.includes(keyword)) continue;
      unsupported(keyword, path, why);
    }
  }

  private reference(target: unknown, path: string): Rule {
    if (typeof target !== "string" || !target.startsWith("#")) {
      unsupported("$ref", path, `${JSON.stringify(target)} is not in this schema`);
    }
    let rule = this.references.get(target);
    if (!rule) {
      const schema = this.resolve(target, path);
      let made: Rule | undefined;
      this.references.set(target, (rule = lazy(() => made!)));
      made = this.compile(schema, target);
      if (endless(made)) unsupported("$ref", path, `${target} is nothing but itself`);
    }
    return rule;
  }

  /** Follows a JSON pointer (RFC 6901). */
  private resolve(target: string, path: string): JsonSchema {
    let found: unknown = this.root;
    for (const part of decodeURIComponent(target).split("/").slice(1)) {
      const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
      const held = typeof found === "object" && found !== null && Object.hasOwn(found, key);
      found = held ? (found as Record<string, unknown>)[key] : undefined;
    }
    if (found === undefined) unsupported("$ref", path, `${target} is not in this schema`);
    return found as JsonSchema;
  }

  private values(schema: Schema, keyword: "enum" | "const", path: string): Rule {
    const all = keyword === "const" ? [schema["const"]] : schema["enum"];
    if (!Array.isArray(all)) unsupported(keyword, path, "it should be a list");
    const types = readTypes(schema["type"], path);
    const fitting = all.filter((value) => !types || types.some((type) => hasType(value, type)));
    if (!fitting.length) unsupported(keyword, path, "no value is allowed");
    return choice(...fitting.map((value) => literal(JSON.stringify(value))));
  }

  private combine(schema: Schema, keyword: "anyOf" | "oneOf" | "allOf", path: string): Rule {
    const list = schema[keyword];
    if (!Array.isArray(list) || !list.length) unsupported(keyword, path, "it should be a list");
    if (keyword === "allOf" && list.length > 1)
      unsupported(keyword, path, "it has several schemas");
    if (keyword === "oneOf" && !this.disjoint(list as JsonSchema[], path)) {
      unsupported(keyword, path, "a value may fit several of its schemas; use anyOf");
    }
    const options = (list as JsonSchema[]).map((entry, i) =>
      this.compile(entry, `${path}/${keyword}/${i}`),
    );
    return choice(...options);
  }

  /** Whether no value can fit two of them: of different types, or told apart by a constant. */
  private disjoint(schemas: readonly JsonSchema[], path: string): boolean {
    const resolved = schemas.map((schema) =>
      typeof schema === "object" && typeof schema["$ref"] === "string"
        ? this.resolve(schema["$ref"], path)
        : schema,
    );
    return resolved.every((a, i) => resolved.slice(i + 1).every((b) => differ(a, b, path)));
  }

  private typed(schema: Schema, path: string): Rule {
    const implied = TYPES.filter((type) =>
      KEYWORDS[type].some((name) => schema[name] !== undefined),
    );
    const types = readTypes(schema["type"], path) ?? implied;
    const known = ["type", ...types.flatMap((type) => KEYWORDS[type])];
    this.only(schema, known, path, types.length ? `for ${types.join(" or ")}` : "without a type");
    if (!types.length) return json.value;
    return choice(...types.map((type) => this.ofType(type, schema, path)));
  }

  private ofType(type: Type, schema: Schema, path: string): Rule {
    switch (type) {
      case "string":
        return this.string(schema, path);
      case "integer":
        return this.integer(schema, path);
      case "array":
        return this.array(schema, path);
      case "object":
        return this.object(schema, path);
      default:
        return { number: json.number, boolean: json.boolean, null: json.nothing }[type];
    }
  }

  private string(schema: Schema, path: string): Rule {
    const { format } = schema;
    const [min, max] = bounds(schema, "minLength", "maxLength", path);
    if (format === undefined) return json.stringOf(min, max);
    const rule = typeof format === "string" ? formats[format] : undefined;
    if (!rule) unsupported("format", path, `known are ${Object.keys(formats).join(", ")}`);
    if (min > 0 || max < Infinity) unsupported("format", path, "beside a length");
    return sequence(literal('"'), rule, literal('"'));
  }

  private integer(schema: Schema, path: string): Rule {
    const read = (keyword: string, step: number): number | undefined => {
      const value = schema[keyword];
      if (value === undefined) return undefined;
      if (typeof value !== "number") unsupported(keyword, path, "it should be a number");
      return Number.isInteger(value) ? value + step : value;
    };
    const low = [read("minimum", 0), read("exclusiveMinimum", 1)].filter((v) => v !== undefined);
    const high = [read("maximum", 0), read("exclusiveMaximum", -1)].filter((v) => v !== undefined);
    if (!low.length && !high.length) return json.integer;
    const rule = integerBetween(Math.max(-Infinity, ...low), Math.min(Infinity, ...high));
    return rule ?? unsupported(low.length ? "minimum" : "maximum", path, "no value is allowed");
  }

  private array(schema: Schema, path: string): Rule {
    const [min, max] = bounds(schema, "minItems", "maxItems", path);
    const prefix = (schema["prefixItems"] ?? []) as JsonSchema[];
    if (!Array.isArray(prefix)) unsupported("prefixItems", path, "it should be a list");
    const items = schema["items"] as JsonSchema | undefined;
    const closed = items === false;
    if (closed && min > prefix.length) unsupported("minItems", path, "no value is allowed");
    const first = prefix.map((entry, i) => this.compile(entry, `${path}/prefixItems/${i}`));
    const rest = closed ? undefined : this.compile(items ?? true, `${path}/items`);
    if (!first.length)
      return json.bracketed("[", rest ? json.list(rest, min, max) : sequence(), "]");
    return json.bracketed("[", tuple(first, rest, min, max), "]");
  }

  private object(schema: Schema, path: string): Rule {
    const properties = (schema["properties"] ?? {}) as Record<string, JsonSchema>;
    const required = (schema["required"] ?? []) as string[];
    if (typeof properties !== "object") unsupported("properties", path, "it should be an object");
    if (!Array.isArray(required)) unsupported("required", path, "it should be a list");
    const extra = schema["additionalProperties"] as JsonSchema | undefined;
    const missing = required.filter((name) => !Object.hasOwn(properties, name));
    if (missing.length && extra === false) {
      unsupported("required", path, `"${missing[0]}" is not among the properties`);
    }
    const at = `${path}/additionalProperties`;
    const other = extra === false ? undefined : this.compile(extra ?? true, at);
    const names = [...Object.keys(properties), ...missing];
    const members = names.map((name) => ({
      required: required.includes(name),
      rule: sequence(
        literal(JSON.stringify(name)),
        json.colon,
        Object.hasOwn(properties, name)
          ? this.compile(properties[name]!, `${path}/properties/${name}`)
          : other!,
      ),
    }));
    // Properties that the schema does not name are written only where it speaks of such.
    const open = other && (extra !== undefined || schema["properties"] === undefined);
    const more = open ? sequence(otherKeys(names), json.colon, other) : undefined;
    return json.bracketed("{", this.members(members, more), "}");
  }

  /** Members in the schema's order, those that are not required perhaps; then others. */
  private members(
    list: readonly { required: boolean; rule: Rule }[],
    more: Rule | undefined,
  ): Rule {
    const rest = (i: number, first: boolean): Rule =>
      lazy(() => {
        const before = first ? sequence() : json.comma;
        if (i === list.length) {
          const end = first ? sequence() : json.space;
          if (!more) return end;
          const others = sequence(before, more, repeat(sequence(json.comma, more), 0, Infinity));
          return choice(end, sequence(others, json.space));
        }
        const { required, rule } = list[i]!;
        const taken = sequence(before, rule, rest(i + 1, false));
        return required ? taken : choice(taken, rest(i + 1, first));
      });
    return rest(0, true);
  }
}

/** Items of their own schemas, then others; cut at any length that is allowed. */
function tuple(first: readonly Rule[], rest: Rule | undefined, min: number, max: number): Rule {
  const from = (i: number): Rule => {
    if (i >= max) return sequence();
    const before = i === 0 ? sequence() : json.comma;
    if (i === first.length) {
      if (!rest) return sequence();
      return repeat(sequence(before, rest), Math.max(0, min - i), max - i);
    }
    const item = sequence(before, first[i]!, from(i + 1));
    return i < min ? item : optional(item);
  };
  return sequence(from(0), json.space);
}

function readTypes(type: unknown, path: string): readonly Type[] | undefined {
  if (type === undefined) return undefined;
  const list = (Array.isArray(type) ? type : [type]) as Type[];
  const wrong = list.find((name) => !TYPES.includes(name));
  if (wrong !== undefined || !list.length) {
    unsupported("type", path, `${JSON.stringify(wrong)} is not one of ${TYPES.join(", ")}`);
  }
  return list;
}

function hasType(value: unknown, type: Type): boolean {
  if (type === "integer") return Number.isInteger(value);
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object")
    return typeof value === "object" && value !== null && !Array.isArray(value);
  return typeof value === type;
}

function bounds(schema: Schema, least: string, most: string, path: string): [number, number] {
  const read = (keyword: string, otherwise: number): number => {
    const value = schema[keyword] ?? otherwise;
    const whole = value === Infinity || (Number.isSafeInteger(value) && (value as number) >= 0);
    return whole
      ? (value as number)
      : unsupported(keyword, path, "it should be a whole number from 0");
  };
  const [min, max] = [read(least, 0), read(most, Infinity)];
  return min <= max ? [min, max] : unsupported(least, path, `it is greater than ${most}`);
}

/** The types that a schema's values can have; undefined when it does not say. */
function typesOf(schema: JsonSchema, path: string): readonly Type[] | undefined {
  if (typeof schema === "boolean") return undefined;
  const { type, enum: values, const: value } = schema;
  if (type !== undefined) return readTypes(type, path);
  const list = Array.isArray(values) ? values : value !== undefined ? [value] : undefined;
  return list && TYPES.filter((name) => list.some((entry) => hasType(entry, name)));
}

function differ(a: JsonSchema, b: JsonSchema, path: string): boolean {
  if (typeof a === "boolean" || typeof b === "boolean") return a === false || b === false;
  const [left, right] = [typesOf(a, path), typesOf(b, path)];
  const same = (x: Type, y: Type): boolean =>
    x === y || [x, y].every((type) => type === "number" || type === "integer");
  if (left && right && !left.some((x) => right.some((y) => same(x, y)))) return true;
  const [ours, theirs] = [constants(a), constants(b)];
  if (ours && theirs) return !ours.some((value) => theirs.includes(value));
  return told(a, b);
}

/** The values of an enum or a constant, as texts. */
function constants(schema: JsonSchema | undefined): readonly string[] | undefined {
  if (typeof schema !== "object") return undefined;
  const { enum: values, const: value } = schema;
  const list = Array.isArray(values) ? values : value !== undefined ? [value] : undefined;
  return list?.map((entry) => JSON.stringify(entry));
}

/** Whether a property that both require has constants that differ. */
function told(a: Schema, b: Schema): boolean {
  const of = (schema: Schema): Record<string, JsonSchema> =>
    (schema["properties"] ?? {}) as Record<string, JsonSchema>;
  const requires = (schema: Schema, name: string): boolean =>
    ((schema["required"] ?? []) as string[]).includes(name);
  return Object.keys(of(a)).some((name) => {
    const [ours, theirs] = [constants(of(a)[name]), constants(of(b)[name])];
    const both = requires(a, name) && requires(b, name);
    return both && ours && theirs && !ours.some((value) => theirs.includes(value));
  });
}

/** Whether a rule comes back to itself before any byte. What is still being made is not asked. */
function endless(rule: Rule | undefined, seen: ReadonlySet<Rule> = new Set()): boolean {
  if (!rule) return false;
  if (seen.has(rule)) return true;
  const inside = new Set(seen).add(rule);
  if (rule.kind === "lazy") return endless(rule.rule(), inside);
  if (rule.kind === "choice") return rule.options.every((option) => endless(option, inside));
  return false;
}
