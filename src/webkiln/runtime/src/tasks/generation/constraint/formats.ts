/** The texts of JSON Schema's `format` that a grammar can spell. */
import { bytes, choice, literal, optional, repeat, sequence, type Rule } from "./grammar.js";
import { digit } from "./json.js";

const two = (first: string, last: string): Rule => {
  // From 01 or 00 to a bound, both of two digits: by the first digit.
  const options: Rule[] = [];
  for (let tens = Number(first[0]); tens <= Number(last[0]); tens++) {
    const from = tens === Number(first[0]) ? first[1]! : "0";
    const to = tens === Number(last[0]) ? last[1]! : "9";
    options.push(sequence(literal(String(tens)), bytes(from + to)));
  }
  return choice(...options);
};

const hex = bytes("09", "af");
const year = repeat(digit, 4, 4);
const dash = literal("-");
const colon = literal(":");
// Every month has 28 days; the others are spelt by month. 29 February is left out.
const days = choice(
  sequence(two("01", "12"), dash, two("01", "28")),
  sequence(choice(literal("01"), two("03", "12")), dash, two("29", "30")),
  sequence(choice(...["01", "03", "05", "07", "08", "10", "12"].map(literal)), dash, literal("31")),
);
const date = sequence(year, dash, days);
const clock = sequence(two("00", "23"), colon, two("00", "59"), colon, two("00", "59"));
const zone = choice(
  literal("Z"),
  sequence(bytes("++", "--"), two("00", "23"), colon, two("00", "59")),
);
const time = sequence(clock, optional(sequence(literal("."), repeat(digit, 1, 6))), zone);
const group = (length: number): Rule => repeat(hex, length, length);

/** By name: RFC 3339 for dates and times, RFC 9562 for UUIDs. */
export const formats: Readonly<Record<string, Rule>> = {
  date,
  time,
  "date-time": sequence(date, literal("T"), time),
  uuid: sequence(group(8), dash, group(4), dash, group(4), dash, group(4), dash, group(12)),
};
