/** webkiln.text.js: the tokenizer, which only bundles for text carry. */
export { Tokenizer } from "@huggingface/tokenizers";
