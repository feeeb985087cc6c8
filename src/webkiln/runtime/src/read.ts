/**
 * Readers for untrusted JSON: each takes a value and its path, and returns the value typed, or
 * throws "plan-invalid" with the path, what was expected and what was there.
 */
import { WebkilnError } from "./errors.js";

export type Reader<T> = (value: unknown, path: string) => T;

export function invalid(path: string, problem: string): never {
  throw new WebkilnError(
    "plan-invalid",
    `plan.json is not valid: ${path || "the document"} ${problem}.`,
    "Build the bundle again, and upload all of its files together.",
  );
}

function expected(path: string, what: string, value: unknown): never {
  const text = JSON.stringify(value) ?? "missing";
  const shown = text.length > 60 ? `${text.slice(0, 60)}…` : text;
  return invalid(path, `should be ${what}, but is ${shown}`);
}

export const string: Reader<string> = (value, path) =>
  typeof value === "string" ? value : expected(path, "a string", value);

export const number: Reader<number> = (value, path) =>
  typeof value === "number" ? value : expected(path, "a number", value);

/** A whole number from `min`, and a multiple of `step`. */
export function integer(min = 0, step = 1): Reader<number> {
  const what = `a whole number from ${min}${step > 1 ? `, a multiple of ${step}` : ""}`;
  return (value, path) =>
    Number.isSafeInteger(value) && (value as number) >= min && (value as number) % step === 0
      ? (value as number)
      : expected(path, what, value);
}

/** An index of something that has `count` members. */
export function index(count: number, of: string): Reader<number> {
  return (value, path) =>
    Number.isInteger(value) && (value as number) >= 0 && (value as number) < count
      ? (value as number)
      : expected(path, `an index in ${of}, which has ${count} entries`, value);
}

export function oneOf<T extends string | number>(...values: readonly T[]): Reader<T> {
  return (value, path) =>
    values.includes(value as T)
      ? (value as T)
      : expected(path, `one of ${values.join(", ")}`, value);
}

export function matching(pattern: RegExp, what: string): Reader<string> {
  return (value, path) =>
    pattern.test(string(value, path)) ? (value as string) : expected(path, what, value);
}

export function array<T>(item: Reader<T>, min = 0): Reader<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) return expected(path, "an array", value);
    if (value.length < min)
      invalid(path, `should have at least ${min} entries, but has ${value.length}`);
    return value.map((entry, i) => item(entry, `${path}[${i}]`));
  };
}

export function object<T extends object>(fields: {
  readonly [K in keyof T]-?: Reader<T[K]>;
}): Reader<T> {
  return (value, path) => {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      return expected(path, "an object", value);
    const result = {} as T;
    for (const key of Object.keys(fields) as (keyof T & string)[]) {
      result[key] = fields[key]((value as T)[key], path ? `${path}.${key}` : key);
    }
    return result;
  };
}

export function record<T>(item: Reader<T>): Reader<Readonly<Record<string, T>>> {
  return (value, path) => {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      return expected(path, "an object", value);
    return Object.fromEntries(
      Object.entries(value).map(([key, entry]) => [key, item(entry, `${path}.${key}`)]),
    );
  };
}

export function nullable<T>(reader: Reader<T>): Reader<T | null> {
  return (value, path) => (value === null || value === undefined ? null : reader(value, path));
}

export function optional<T>(reader: Reader<T>, otherwise: T): Reader<T> {
  return (value, path) => (value === undefined ? otherwise : reader(value, path));
}
