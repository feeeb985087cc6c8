/** JSON (RFC 8259) as a grammar over bytes. */
import {
  between,
  bytes,
  choice,
  lazy,
  literal,
  optional,
  repeat,
  sequence,
  type Rule,
} from "./grammar.js";

/**
 * White space where JSON allows it, but only as people lay out JSON: none, a blank, or a new line
 * and its indentation. A model that could go on with blanks for ever sometimes does.
 */
export const space = choice(
  sequence(),
  literal(" "),
  sequence(literal("\n"), repeat(bytes("  ", "\t\t"), 0, 24)),
);

const tail = between(0x80, 0xbf);
/** Well-formed UTF-8 of more than one byte: the Unicode Standard, table 3-7. */
const longCharacters: readonly Rule[] = [
  sequence(between(0xc2, 0xdf), tail),
  sequence(between(0xe0, 0xe0), between(0xa0, 0xbf), tail),
  sequence(choice(between(0xe1, 0xec), between(0xee, 0xef)), tail, tail),
  sequence(between(0xed, 0xed), between(0x80, 0x9f), tail),
  sequence(between(0xf0, 0xf0), between(0x90, 0xbf), tail, tail),
  sequence(between(0xf1, 0xf3), tail, tail, tail),
  sequence(between(0xf4, 0xf4), between(0x80, 0x8f), tail, tail),
];
export const longCharacter = choice(...longCharacters);

const hex = bytes("09", "AF", "af");
const unicode = choice(
  sequence(bytes("09", "AC", "EF", "ac", "ef"), hex, hex, hex),
  sequence(bytes("DD", "dd"), bytes("07"), hex, hex),
  // Characters beyond 16 bits are written as two surrogates, which mean nothing apart.
  sequence(
    sequence(bytes("DD", "dd"), bytes("89", "AB", "ab"), hex, hex),
    sequence(literal("\\u"), bytes("DD", "dd"), bytes("CF", "cf"), hex, hex),
  ),
);
const escape = sequence(
  literal("\\"),
  choice(bytes('""', "\\\\", "//", "bb", "ff", "nn", "rr", "tt"), sequence(literal("u"), unicode)),
);
const plain = bytes(" !", "#[", "]\x7f");
export const character = choice(plain, escape, longCharacter);

/** A string of so many characters. Each escape is one, as JSON Schema counts. */
export function stringOf(min: number, max: number, of: Rule = character): Rule {
  return sequence(literal('"'), repeat(of, min, max), literal('"'));
}

export const string = stringOf(0, Infinity);

export const digit = bytes("09");
/** More digits than a double holds mean nothing; a model that goes on with them is stuck. */
const DIGITS = 17;
const EXPONENT = 3;
const whole = choice(literal("0"), sequence(bytes("19"), repeat(digit, 0, DIGITS - 1)));
export const integer = sequence(optional(literal("-")), whole);
export const number = sequence(
  integer,
  optional(sequence(literal("."), repeat(digit, 1, DIGITS))),
  optional(sequence(bytes("EE", "ee"), optional(bytes("++", "--")), repeat(digit, 1, EXPONENT))),
);
export const boolean = choice(literal("true"), literal("false"));
export const nothing = literal("null");

/** Items between brackets, with commas. `items` are what comes between them, commas included. */
export function bracketed(open: string, items: Rule, close: string): Rule {
  return sequence(literal(open), space, items, literal(close));
}

export const comma = sequence(literal(","), space);
export const colon = sequence(literal(":"), space);

/** From `min` to `max` items, the last followed by white space. */
export function list(item: Rule, min: number, max: number): Rule {
  if (max === 0) return sequence();
  const more = repeat(sequence(comma, item), Math.max(0, min - 1), max - 1);
  const some = sequence(item, more, space);
  return min === 0 ? optional(some) : some;
}

/** Any value at all. */
export const value: Rule = lazy(() =>
  choice(string, number, boolean, nothing, anyArray, anyObject),
);
export const anyArray = bracketed("[", list(value, 0, Infinity), "]");
export const anyObject = bracketed("{", list(sequence(string, colon, value), 0, Infinity), "}");
