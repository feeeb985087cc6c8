/** A text → its classes, most likely first. */
import type { TaskConfig, TaskFactory } from "./task.js";
import { definePipeline } from "./task.js";
import { activate, rank, type Activation, type Classification } from "./scores.js";
import { textReader, type TextSettings } from "./text.js";

export type { Classification };

interface Settings extends TaskConfig {
  readonly text: TextSettings;
  readonly labels: readonly string[];
  readonly activation: Activation;
}

export const create: TaskFactory<string, Classification[]> = async (model, task, base) => {
  const { text, labels, activation } = task as Settings;
  const output = model.outputs[0]!;
  const reader = await textReader(model, text, base);

  return definePipeline<string, Classification[]>(model, task, async (input, options) => {
    const outputs = await model.run(reader.read(input), options);
    return rank(activate(outputs[output.name]!.toFloat32(), activation), labels);
  });
};
