/** A model whose task is unknown: tensors in, tensors out. */
import type { Tensor } from "../index.js";
import { definePipeline, type TaskFactory } from "./task.js";

/** Without feeds the first golden sample is run. */
export const create: TaskFactory<
  Readonly<Record<string, Tensor>> | undefined,
  Record<string, Tensor>
> = async (model, task) =>
  definePipeline(model, task, async (feeds, options) =>
    model.run(feeds ?? (await model.sample()), options),
  );
