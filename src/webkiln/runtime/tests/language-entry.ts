/** One bundle of what the tests of language models use, so that they share its classes. */
export { Tensor, WebkilnError } from "../src/index.js";
export { create } from "../src/tasks/text-generation.js";
