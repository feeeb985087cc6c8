/**
 * From logits to a token, on the host. In this order: penalties, temperature, top-k, top-p, min-p,
 * then a draw from what is left.
 */
import { uniform } from "./random.js";
import type { Sampling } from "./settings.js";

/** What was generated before, for penalties. */
export interface Past {
  /** Every token of prompt and answer. */
  readonly ids: readonly number[];
  /** Where the answer begins. */
  readonly start: number;
}

/** A token that may be drawn. */
interface Candidate {
  readonly id: number;
  /** e^(logit - greatest logit). */
  readonly weight: number;
}

/**
 * Makes tokens that are there already less likely, in place: repetition as in CTRL (Keskar et al.,
 * 2019) over prompt and answer, presence and frequency as in OpenAI's API over the answer.
 */
export function penalise(logits: Float32Array, { ids, start }: Past, sampling: Sampling): void {
  const { repetition_penalty, presence_penalty, frequency_penalty } = sampling;
  if (repetition_penalty !== 1) {
    for (const id of new Set(ids)) {
      const logit = logits[id]!;
      logits[id] = logit > 0 ? logit / repetition_penalty : logit * repetition_penalty;
    }
  }
  if (presence_penalty === 0 && frequency_penalty === 0) return;
  const counts = new Map<number, number>();
  for (const id of ids.slice(start)) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) logits[id]! -= presence_penalty + frequency_penalty * count;
}

/** The index of the greatest logit, the first of equals; -1 when all are -Infinity or NaN. */
export function argmax(logits: Float32Array): number {
  let best = -1;
  let greatest = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    if (logits[i]! > greatest) greatest = logits[(best = i)]!;
  }
  return best;
}

/** The log-probability of `id`: log softmax, at temperature 1. */
export function logProbability(logits: Float32Array, id: number, greatest: number): number {
  let sum = 0;
  for (const logit of logits) if (logit > -Infinity) sum += Math.exp(logit - greatest);
  return logits[id]! - greatest - Math.log(sum);
}

/** The `count` greatest logits' indices, best first. */
export function top(logits: Float32Array, count: number): number[] {
  const order = (a: number, b: number): number => logits[b]! - logits[a]! || a - b;
  const ids: number[] = [];
  for (let i = 0; i < logits.length; i++) {
    const last = ids[count - 1];
    if (last !== undefined && !(logits[i]! > logits[last]!)) continue;
    if (!(logits[i]! > -Infinity)) continue; // NaN neither
    if (ids.length >= count) ids.pop();
    let at = ids.length;
    while (at > 0 && order(i, ids[at - 1]!) < 0) at--;
    ids.splice(at, 0, i);
  }
  return ids;
}

/** A longer top-k than this is cut from the sorted vocabulary. */
const SHORT = 500;

/**
 * Likely tokens first, at least as many as top-k and top-p can ask for. Sorting a whole vocabulary
 * takes milliseconds, so ever lower thresholds are tried: what is above one comes first in order.
 */
function shortlist(logits: Float32Array, weights: Float64Array, least: number): Candidate[] {
  for (const threshold of [1e-2, 1e-4, 1e-7, 0]) {
    const found: Candidate[] = [];
    let sum = 0;
    weights.forEach((weight, id) => {
      if (weight <= threshold) return;
      found.push({ id, weight });
      sum += weight;
    });
    if (threshold > 0 && sum < least) continue;
    return found.sort((a, b) => logits[b.id]! - logits[a.id]! || a.id - b.id);
  }
  return [];
}

/** Cuts to the k likeliest, then to the nucleus (Holtzman et al., 2020) of those, then by min-p. */
function restrict(candidates: Candidate[], sampling: Sampling, total: number): Candidate[] {
  const { top_k, top_p, min_p } = sampling;
  const kept = top_k ? candidates.slice(0, top_k) : candidates;
  const mass = top_p * (top_k ? kept.reduce((sum, { weight }) => sum + weight, 0) : total);
  let sum = 0;
  let end = kept.findIndex(({ weight }) => (sum += weight) >= mass) + 1;
  if (end === 0) end = kept.length; // rounding: the sum stayed a little below
  return kept.slice(0, end).filter(({ weight }, i) => i === 0 || weight >= min_p);
}

function draw(candidates: readonly Candidate[], random: number): number {
  let rest = random * candidates.reduce((sum, { weight }) => sum + weight, 0);
  for (const { id, weight } of candidates) {
    rest -= weight;
    if (rest < 0) return id;
  }
  return candidates.at(-1)!.id;
}

/** A draw in the vocabulary's order, for when nothing but min-p restricts it. */
function drawAll(weights: Float64Array, min: number, random: number): number {
  let total = 0;
  for (const weight of weights) if (weight >= min) total += weight;
  let rest = random * total;
  let last = 0;
  for (let id = 0; id < weights.length; id++) {
    const weight = weights[id]!;
    if (weight < min || weight === 0) continue;
    last = id;
    rest -= weight;
    if (rest < 0) break;
  }
  return last;
}

/**
 * Draws a token. `logits` are the penalised ones; -Infinity rules a token out. `counter` is the
 * number of the token in its answer: together with the seed it decides. -1 when all are ruled out.
 */
export function sample(logits: Float32Array, sampling: Sampling, counter: number): number {
  const best = argmax(logits);
  const { temperature, top_k, top_p, min_p, seed } = sampling;
  if (best < 0 || temperature === 0 || top_k === 1) return best;
  const weights = new Float64Array(logits.length);
  let total = 0;
  for (let i = 0; i < logits.length; i++) {
    const weight = Math.exp((logits[i]! - logits[best]!) / temperature);
    if (weight > 0) total += weights[i] = weight;
  }
  const random = uniform(seed, counter);
  if (top_p === 1 && top_k === 0) return drawAll(weights, min_p, random);
  const few = top_k > 0 && top_k <= SHORT;
  const candidates = few
    ? top(logits, top_k).map((id) => ({ id, weight: weights[id]! }))
    : shortlist(logits, weights, top_k ? Infinity : top_p * total);
  return draw(restrict(candidates, sampling, total), random);
}
