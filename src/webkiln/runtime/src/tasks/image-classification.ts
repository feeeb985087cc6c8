/** A photograph → what it shows: the most likely classes, best first. */
import type { TaskConfig, TaskFactory } from "./task.js";
import { definePipeline } from "./task.js";
import { imageReader, type ImageInput } from "./image.js";
import type { ImageSettings } from "./prepare.js";
import { activate, rank, type Activation, type Classification } from "./scores.js";

export type { Classification, ImageInput, ImageSettings };

interface Settings extends TaskConfig {
  readonly preprocess: ImageSettings;
  readonly labels: readonly string[];
  readonly activation: Activation;
  /** How many classes a result has. */
  readonly top: number;
}

export const create: TaskFactory<ImageInput, Classification[]> = async (model, task) => {
  const { preprocess, labels, activation, top } = task as Settings;
  const [input, output] = [model.inputs[0]!, model.outputs[0]!];
  const reader = imageReader(preprocess);

  const pipeline = definePipeline<ImageInput, Classification[]>(model, task, async (image, options) => {
    const pixels = await reader.read(image, input.dtype, options?.signal);
    const outputs = await model.run({ [input.name]: pixels }, options);
    return rank(activate(outputs[output.name]!.toFloat32(), activation), labels, top);
  });
  const { dispose } = pipeline;
  return Object.assign(pipeline, {
    dispose(): Promise<void> {
      reader.close();
      return dispose();
    },
  });
};
