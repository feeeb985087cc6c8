/** From a classifier's raw outputs to labels with scores. */

/** A class and how sure the model is of it, 0 to 1. */
export interface Classification {
  readonly label: string;
  readonly score: number;
}

/** What the model leaves to do: `none` when its outputs are probabilities already. */
export type Activation = "softmax" | "sigmoid" | "none";

function softmax(logits: Float32Array): Float32Array {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = logits.map((x) => Math.exp(x - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

export function activate(logits: Float32Array, activation: Activation): Float32Array {
  if (activation === "softmax") return softmax(logits);
  return activation === "sigmoid" ? logits.map((x) => 1 / (1 + Math.exp(-x))) : logits;
}

/** The `count` highest scores, best first. A class without a label is called by its number. */
export function rank(
  scores: Float32Array, labels: readonly string[], count = scores.length,
): Classification[] {
  return Array.from(scores, (score, i) => ({ label: labels[i] ?? `class ${i}`, score }))
    .sort((a, b) => b.score - a.score)
    .slice(0, count);
}
