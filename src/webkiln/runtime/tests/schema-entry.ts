/** One bundle of what the tests of schemas use, so that they share its classes. */
export { WebkilnError } from "../src/index.js";
export { Constraint, Guide, Lexicon } from "../src/tasks/generation/constraint/constraint.js";
export { Automaton } from "../src/tasks/generation/constraint/grammar.js";
export { compileSchema } from "../src/tasks/generation/constraint/schema.js";
