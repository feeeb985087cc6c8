import { WebkilnError } from "./errors.js";
import { begin } from "./load.js";
import type { LoadOptions, Model } from "./model.js";
import type { Pipeline, TaskModule } from "./tasks/task.js";

/**
 * Loads a bundle with its task's pre- and post-processing.
 *
 * `url` is the bundle's folder, which holds `model/plan.json`; the task's code comes from `tasks/`
 * beside this module.
 *
 *     const classify = await pipeline("./");
 *     const [best] = await classify(image);
 *     const llm = await pipeline<TextGeneration>("./");
 *
 * @throws WebkilnError as `load` does, and "task-unknown".
 */
export function pipeline<P extends Pipeline<never, unknown> = Pipeline>(
  url: string | URL,
  options?: LoadOptions,
): Promise<P>;
export function pipeline<Input = unknown, Output = unknown>(
  url: string | URL,
  options?: LoadOptions,
): Promise<Pipeline<Input, Output>>;
export async function pipeline(
  url: string | URL,
  options: LoadOptions = {},
): Promise<Pipeline<never, unknown>> {
  const folder = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  const base = new URL("model/", folder);
  const { model, ready } = await begin(base, options);
  // The task's own files are read while the weights arrive.
  const creating = taskModule(model).then(({ create }) => create(model, model.task, base));
  try {
    const [pipeline] = await Promise.all([creating, ready]);
    return pipeline;
  } catch (error) {
    await model.dispose();
    void creating.then((pipeline) => pipeline.dispose()).catch(() => undefined);
    throw error;
  }
}

async function taskModule({ task: { name } }: Model): Promise<TaskModule> {
  // Not a literal, so that bundlers leave it: a bundle has the file of its own task only.
  const path = `./tasks/${name}.js`;
  try {
    return (await import(path)) as TaskModule;
  } catch (cause) {
    throw new WebkilnError(
      "task-unknown",
      `The code for the task "${name}" could not be loaded: tasks/${name}.js.`,
      "Upload the bundle's tasks folder beside webkiln.js, or use load().",
      { cause },
    );
  }
}
