/** Which tokens may come next, so that an answer becomes what a grammar allows. */
import { WebkilnError } from "../../../index.js";
import { Automaton, type Rule, type State } from "./grammar.js";

/** Masks that are kept; one takes an eighth of a byte a token. */
const MASKS = 500;

/** All tokens that text is made of, in the order of their bytes. */
export class Lexicon {
  readonly words: readonly string[];
  /** The tokens with each word's bytes. */
  readonly ids: readonly (readonly number[])[];
  /** How many bytes each word has in common with the one before it. */
  readonly common: Int32Array;
  /** The bytes of a token. */
  readonly spelling: ReadonlyMap<number, string>;

  /** `tokens`: ids and bytes (as strings of code units up to 255). */
  constructor(tokens: readonly (readonly [number, string])[]) {
    const alike = new Map<string, number[]>();
    for (const [id, bytes] of tokens) {
      const ids = alike.get(bytes);
      if (ids) ids.push(id);
      else alike.set(bytes, [id]);
    }
    this.words = [...alike.keys()].sort(); // by code unit, that is by byte
    this.ids = this.words.map((word) => alike.get(word)!);
    this.spelling = new Map(tokens);
    this.common = Int32Array.from(this.words, (word, i) => {
      const previous = this.words[i - 1] ?? "";
      let length = 0;
      while (length < previous.length && word[length] === previous[length]) length++;
      return length;
    });
  }
}

/** A grammar over a lexicon's tokens; answers that follow it share it, and what it found out. */
export class Guide {
  readonly start: State;
  private readonly masks = new Map<State, Uint32Array<ArrayBuffer>>();

  /** `size` is the model's vocabulary; `eos` ends an answer. */
  constructor(
    grammar: Rule,
    private readonly lexicon: Lexicon,
    private readonly eos: readonly number[],
    private readonly size: number,
  ) {
    this.start = new Automaton(grammar).start;
  }

  /** The state after a token. */
  after(state: State, id: number): State | null {
    let next: State | null = state;
    for (const letter of this.lexicon.spelling.get(id) ?? "")
      next = next && next.after(letter.charCodeAt(0));
    return next;
  }

  /** Bit `i % 32` of word `i / 32` allows token i. @throws WebkilnError "schema-unsupported". */
  mask(state: State): Uint32Array<ArrayBuffer> {
    let mask = this.masks.get(state);
    if (mask) return mask;
    if (this.masks.size >= MASKS) this.masks.clear();
    this.masks.set(state, (mask = this.walk(state)));
    if (mask.some((word) => word !== 0)) return mask;
    throw new WebkilnError(
      "schema-unsupported",
      "The model's vocabulary has no token with which the answer could go on as the schema asks.",
    );
  }

  /**
   * Goes through the words in order. What two neighbours have in common is read once, and words
   * that begin with what is known not to fit are passed over.
   */
  private walk(start: State): Uint32Array<ArrayBuffer> {
    const mask = new Uint32Array(Math.ceil(this.size / 32));
    const allow = (id: number): void =>
      void (id < this.size && (mask[id >>> 5]! |= 1 << (id & 31)));
    const { ids, words, common } = this.lexicon;
    const states: State[] = [start];
    let read = 0;
    for (let i = 0; i < words.length; i++) {
      if (common[i]! > read) continue;
      const word = words[i]!;
      for (read = common[i]!; read < word.length; read++) {
        const next = states[read]!.after(word.charCodeAt(read));
        if (!next) break;
        states[read + 1] = next;
      }
      if (read === word.length) ids[i]!.forEach(allow);
    }
    if (start.accepts) this.eos.forEach(allow);
    return mask;
  }
}

/** One answer's way through a grammar. */
export class Constraint {
  private state: State;

  constructor(private readonly guide: Guide) {
    this.state = guide.start;
  }

  /** The tokens that may come next. */
  mask(): Uint32Array<ArrayBuffer> {
    return this.guide.mask(this.state);
  }

  /** A token that came, and that `mask` allowed. */
  accept(id: number): void {
    const next = this.guide.after(this.state, id);
    if (!next)
      throw new WebkilnError("run-failed", `The model drew token ${id}, which was ruled out.`);
    this.state = next;
  }

  /** Nothing may follow. */
  get finished(): boolean {
    return this.state.finished;
  }
}
