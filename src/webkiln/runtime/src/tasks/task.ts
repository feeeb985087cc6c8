/**
 * What a task module is. `src/tasks/<task>.ts` is built to `tasks/<task>.js` and exports one
 * function, `create`:
 *
 *     export const create: TaskFactory<ImageInput, Classification[]> = async (model, task, base) =>
 *       definePipeline(model, task, async (input, options) => ...);
 *
 * `pipeline(url)` reads the task's name from plan.json and imports that one file, so an image
 * bundle never downloads the code for text. Task modules import the runtime from "../index.js"
 * (Tensor, WebkilnError, types): the build turns that into an import of webkiln.js beside them,
 * which the page has already.
 */
import type { Model, RunOptions } from "../model.js";

/**
 * `plan.task`: the task's name, and the settings that its build-time half
 * (`webkiln/tasks/<task>.py`) wrote.
 */
export interface TaskConfig {
  readonly name: string;
  readonly [setting: string]: unknown;
}

/**
 * A model with its pre- and post-processing: call it with what a person has, get what a person
 * wants.
 */
export interface Pipeline<Input = unknown, Output = unknown> {
  /** Rejects with a WebkilnError; `options.signal` aborts. */
  (input: Input, options?: RunOptions): Promise<Output>;
  readonly model: Model;
  readonly task: TaskConfig;
  /** Frees the model; may be called twice. */
  dispose(): Promise<void>;
}

/**
 * Makes the pipeline of a loaded model. `base` is the folder of plan.json; the task's files
 * (tokenizer.json, labels, samples) are relative to it.
 */
export type TaskFactory<Input = unknown, Output = unknown> = (
  model: Model,
  task: TaskConfig,
  base: URL,
) => Promise<Pipeline<Input, Output>>;

/** What `tasks/<task>.js` exports. */
export interface TaskModule {
  readonly create: TaskFactory<never, unknown>;
}

/** Binds a task's function to its model. */
export function definePipeline<Input, Output>(
  model: Model,
  task: TaskConfig,
  run: (input: Input, options?: RunOptions) => Promise<Output>,
): Pipeline<Input, Output> {
  const pipeline = (input: Input, options?: RunOptions): Promise<Output> => run(input, options);
  return Object.assign(pipeline, { model, task, dispose: () => model.dispose() });
}
