/**
 * Context-free grammars over bytes, and the automaton that reads them byte by byte.
 *
 * A place in a text is a set of stacks of what is still to come. Stacks are linked lists that share
 * their ends, and equal ones are one object; so are equal sets. What was found out about a place
 * (what byte leads where, which tokens fit) is thereby known when the text comes back to it.
 */

/** Which bytes, as 256 flags. */
export type ByteSet = Uint8Array;

export type Rule =
  | { readonly kind: "byte"; readonly set: ByteSet }
  | { readonly kind: "sequence"; readonly parts: readonly Rule[] }
  | { readonly kind: "choice"; readonly options: readonly Rule[] }
  | Repeat
  | { readonly kind: "lazy"; readonly rule: () => Rule };

interface Repeat {
  readonly kind: "repeat";
  readonly rule: Rule;
  readonly min: number;
  readonly max: number;
  /** The same after one repetition. */
  after?: Repeat;
}

/** One byte of some ranges: bytes("az", "09", "__"). */
export function bytes(...ranges: string[]): Rule {
  const set = new Uint8Array(256);
  for (const range of ranges) set.fill(1, range.charCodeAt(0), range.charCodeAt(1) + 1);
  return { kind: "byte", set };
}

/** One byte of a range, given by numbers. */
export function between(first: number, last: number): Rule {
  return bytes(String.fromCharCode(first, last));
}

export function sequence(...parts: Rule[]): Rule {
  return { kind: "sequence", parts };
}

/** One of some rules. Of none: nothing matches. */
export function choice(...options: Rule[]): Rule {
  return { kind: "choice", options };
}

export function repeat(rule: Rule, min: number, max: number): Rule {
  return { kind: "repeat", rule, min, max };
}

export function optional(rule: Rule): Rule {
  return repeat(rule, 0, 1);
}

/** A rule that is made when the text first comes to it; rules may contain themselves by it. */
export function lazy(make: () => Rule): Rule {
  let made: Rule | undefined;
  return { kind: "lazy", rule: () => (made ??= make()) };
}

const singles = Array.from({ length: 256 }, (_, byte) => between(byte, byte));

/** Exactly this text, in UTF-8. */
export function literal(text: string): Rule {
  return sequence(...Array.from(new TextEncoder().encode(text), (byte) => singles[byte]!));
}

/** A stack: `rule`, then what is below it. The bottom has no rule: the text may end. */
class Frame {
  private static count = 0;
  readonly id = Frame.count++;
  private readonly above = new Map<Rule, Frame>();

  constructor(
    readonly rule: Rule | undefined,
    readonly below: Frame | undefined,
  ) {}

  push(rule: Rule): Frame {
    let frame = this.above.get(rule);
    if (!frame) this.above.set(rule, (frame = new Frame(rule, this)));
    return frame;
  }
}

function successor(rule: Repeat): Repeat {
  const { min, max } = rule;
  if (min === 0 && max === Infinity) return rule;
  return (rule.after ??= { ...rule, min: Math.max(0, min - 1), max: max - 1 });
}

/** The stacks that a stack stands for, with a byte rule on top of each; `seen` ends circles. */
function expand(frame: Frame, seen: Set<Frame>, found: Frame[]): void {
  if (seen.has(frame)) return;
  seen.add(frame);
  const { rule, below } = frame;
  if (!rule || rule.kind === "byte") found.push(frame);
  else if (rule.kind === "lazy") expand(below!.push(rule.rule()), seen, found);
  else if (rule.kind === "choice") {
    for (const option of rule.options) expand(below!.push(option), seen, found);
  } else if (rule.kind === "sequence") {
    let top = below!;
    for (let i = rule.parts.length - 1; i >= 0; i--) top = top.push(rule.parts[i]!);
    expand(top, seen, found);
  } else {
    if (rule.min === 0) expand(below!, seen, found);
    if (rule.max > 0) expand(below!.push(successor(rule)).push(rule.rule), seen, found);
  }
}

/** A place in the text. */
export class State {
  private readonly next: (State | null | undefined)[] = new Array(256);
  /** Whether the text may end here. */
  readonly accepts: boolean;
  /** Whether the text must end here. */
  readonly finished: boolean;

  constructor(
    private readonly automaton: Automaton,
    private readonly frames: readonly Frame[],
  ) {
    this.accepts = frames.some(({ rule }) => !rule);
    this.finished = this.accepts && frames.length === 1;
  }

  /** The place after a byte; null where the grammar does not allow it. */
  after(byte: number): State | null {
    const known = this.next[byte];
    if (known !== undefined) return known;
    const below = this.frames
      .filter(({ rule }) => rule?.kind === "byte" && rule.set[byte])
      .map((frame) => frame.below!);
    return (this.next[byte] = below.length ? this.automaton.state(below) : null);
  }
}

export class Automaton {
  private readonly states = new Map<string, State>();
  readonly start: State;

  constructor(grammar: Rule) {
    this.start = this.state([new Frame(undefined, undefined).push(grammar)]);
  }

  state(frames: readonly Frame[]): State {
    const found: Frame[] = [];
    const seen = new Set<Frame>();
    for (const frame of frames) expand(frame, seen, found);
    found.sort((a, b) => a.id - b.id);
    const key = found.map(({ id }) => id).join();
    let state = this.states.get(key);
    if (!state) this.states.set(key, (state = new State(this, found)));
    return state;
  }
}
