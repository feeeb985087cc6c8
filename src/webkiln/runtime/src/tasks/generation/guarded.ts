/** The model, for those who run it beside the answers. */
import type { Model } from "../../index.js";

/**
 * The same model; but runs wait for the answers under way, and `before` is told of them: they
 * overwrite the cache.
 */
export function guarded(
  model: Model,
  add: <T>(work: () => Promise<T>) => Promise<T>,
  before: () => void,
): Model {
  const alone = <T>(work: () => Promise<T>): Promise<T> =>
    add(() => {
      before();
      return work();
    });
  const own: Partial<Model> = {
    run: (feeds, options) => alone(() => model.run(feeds, options)),
    runs: (feeds, options) => alone(() => model.runs(feeds, options)),
    profile: (feeds, options) => alone(() => model.profile(feeds, options)),
    selfTest: () => alone(() => model.selfTest()),
  };
  return new Proxy(model, {
    get(_, name) {
      const value: unknown = own[name as keyof Model] ?? Reflect.get(model, name, model);
      return typeof value === "function" && !Object.hasOwn(own, name)
        ? (value as (...args: unknown[]) => unknown).bind(model)
        : value;
    },
  });
}
