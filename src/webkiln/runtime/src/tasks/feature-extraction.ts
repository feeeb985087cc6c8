/** A text → its embedding: a vector whose angle to another text's tells how close their meanings are. */
import { WebkilnError, type Tensor } from "../index.js";
import type { TaskConfig, TaskFactory } from "./task.js";
import { definePipeline } from "./task.js";
import { textReader, type TextSettings } from "./text.js";

interface Settings extends TaskConfig {
  readonly text: TextSettings;
  /** How token vectors become one; `none` when the model's output is one vector already. */
  readonly pooling: "mean" | "cls" | "none";
  /** Scale to length 1. */
  readonly normalize: boolean;
}

/** Sequence output [1, tokens, width] → [width]. The mask tells padding from tokens. */
function pool(output: Tensor, mask: Float32Array, pooling: "mean" | "cls"): Float32Array {
  const [, tokens, width] = output.shape as [number, number, number];
  const data = output.toFloat32();
  if (pooling === "cls") return data.slice(0, width);
  const sums = new Float32Array(width);
  let count = 0;
  for (let t = 0; t < tokens; t++) {
    if (!mask[t]) continue;
    count++;
    for (let i = 0; i < width; i++) sums[i]! += data[t * width + i]!;
  }
  return sums.map((sum) => sum / Math.max(1, count));
}

function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
  return length > 0 ? vector.map((x) => x / length) : vector;
}

/** Cosine of the angle between two vectors: 1 for the same direction, 0 for unrelated ones. */
export function cosineSimilarity(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) {
    throw new WebkilnError("input-shape", `Vectors of ${a.length} and ${b.length} elements can't be compared.`);
  }
  let product = 0;
  let squareA = 0;
  let squareB = 0;
  for (let i = 0; i < a.length; i++) {
    product += a[i]! * b[i]!;
    squareA += a[i]! * a[i]!;
    squareB += b[i]! * b[i]!;
  }
  const lengths = Math.sqrt(squareA * squareB);
  return lengths > 0 ? product / lengths : 0;
}

export const create: TaskFactory<string, Float32Array> = async (model, task, base) => {
  const { text, pooling, normalize } = task as Settings;
  const output = model.outputs[0]!;
  const reader = await textReader(model, text, base);

  return definePipeline<string, Float32Array>(model, task, async (input, options) => {
    const feeds = reader.read(input);
    const result = (await model.run(feeds, options))[output.name]!;
    const { ids, mask } = text.inputs;
    // Without a mask input every token counts.
    const used = mask ? feeds[mask]!.toFloat32() : new Float32Array(feeds[ids]!.data.length).fill(1);
    const vector = pooling === "none" ? result.toFloat32() : pool(result, used, pooling);
    return normalize ? unit(vector) : vector;
  });
};
