/** Names of properties that a schema does not name itself. */
import { choice, literal, repeat, sequence, type Rule } from "./grammar.js";
import { longCharacter, stringOf } from "./json.js";

/** A character that is written as it is, without a backslash. */
function plainExcept(letters: readonly string[]): Rule {
  const set = new Uint8Array(256).fill(1, 0x20, 0x80);
  for (const letter of ['"', "\\", ...letters]) if (letter < "\x80") set[letter.charCodeAt(0)] = 0;
  const short: Rule = { kind: "byte", set };
  // Beside a name that has a letter beyond ASCII here, no other such letter begins a name.
  return letters.some((letter) => letter >= "\x80") ? short : choice(short, longCharacter);
}

/**
 * A string that is none of `names`. Without escapes: by one, a name could be written in disguise.
 */
export function otherKeys(names: readonly string[]): Rule {
  if (!names.length) return stringOf(0, Infinity, plainExcept([]));
  const rest = repeat(plainExcept([]), 0, Infinity);
  const quote = literal('"');
  const after = (tails: readonly (readonly string[])[]): Rule => {
    const letters = [
      ...new Set(tails.map((tail) => tail[0]).filter((letter) => letter !== undefined)),
    ];
    const options = [sequence(plainExcept(letters), rest, quote)];
    if (!tails.some((tail) => !tail.length)) options.push(quote);
    for (const letter of letters) {
      if (letter === '"' || letter === "\\" || letter < " ") continue; // never written as it is
      const inside = tails.filter((tail) => tail[0] === letter).map((tail) => tail.slice(1));
      options.push(sequence(literal(letter), after(inside)));
    }
    return choice(...options);
  };
  return sequence(quote, after(names.map((name) => Array.from(name))));
}
