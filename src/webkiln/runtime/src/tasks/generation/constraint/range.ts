/** Whole numbers from one bound to another, digit by digit. */
import { bytes, choice, literal, repeat, sequence, type Rule } from "./grammar.js";
import { digit } from "./json.js";

const DIGITS = 15; // those of the greatest whole number that every double is exact up to

const digits = (first: number, last: number): Rule => bytes(`${first}${last}`);

/** Texts of equal length, from `low` to `high`, digit for digit. */
function sameLength(low: string, high: string): Rule {
  if (!low) return sequence();
  const [first, last] = [Number(low[0]), Number(high[0])];
  const [restLow, restHigh] = [low.slice(1), high.slice(1)];
  if (first === last) return sequence(literal(low[0]!), sameLength(restLow, restHigh));
  const free = repeat(digit, restLow.length, restLow.length);
  const options = [
    sequence(literal(low[0]!), sameLength(restLow, "9".repeat(restLow.length))),
    sequence(literal(high[0]!), sameLength("0".repeat(restHigh.length), restHigh)),
  ];
  if (last - first > 1) options.push(sequence(digits(first + 1, last - 1), free));
  return choice(...options);
}

/** Whole numbers from `low` to `high`, both from 0. */
function natural(low: number, high: number): Rule {
  const options: Rule[] = [];
  for (let length = String(low).length; length <= String(high).length; length++) {
    const least = length === 1 ? 0 : 10 ** (length - 1);
    const [from, to] = [Math.max(low, least), Math.min(high, 10 ** length - 1)];
    options.push(sameLength(String(from), String(to)));
  }
  return choice(...options);
}

/** Whole numbers from `min` to `max`; undefined when there is none. */
export function integerBetween(min: number, max: number): Rule | undefined {
  const limit = 10 ** DIGITS - 1;
  const low = Math.max(Math.ceil(min), -limit);
  const high = Math.min(Math.floor(max), limit);
  if (low > high) return undefined;
  const options: Rule[] = [];
  if (low < 0) options.push(sequence(literal("-"), natural(Math.max(1, -high), -low)));
  if (high >= 0) options.push(natural(Math.max(0, low), high));
  return choice(...options);
}
