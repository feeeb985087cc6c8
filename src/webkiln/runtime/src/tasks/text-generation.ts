/** A conversation → its next message, a text → how it goes on: language models. */
import type { Model } from "../index.js";
import { readConfig, type LanguageConfig } from "./generation/config.js";
import { Constraint, Guide, Lexicon } from "./generation/constraint/constraint.js";
import { compileSchema } from "./generation/constraint/schema.js";
import { vocabularySize } from "./generation/chooser.js";
import { guarded } from "./generation/guarded.js";
import { Answers, type Job } from "./generation/openai.js";
import { Prompts } from "./generation/prompts.js";
import { Queue } from "./generation/queue.js";
import { Session } from "./generation/session.js";
import { checkNames, readSettings, refuse } from "./generation/settings.js";
import type {
  ChatMessage,
  ChatOptions,
  CreateChatCompletion,
  GenerateText,
  GenerationOptions,
  JsonSchema,
  TextGeneration,
} from "./generation/types.js";
import { Vocabulary } from "./generation/vocabulary.js";
import type { TaskFactory } from "./task.js";
import { fetchTokenizer } from "./text.js";

export type * from "./generation/types.js";

/** What `chat.completions.create` takes beside sampling; the second half is read by nobody. */
const CHAT_OPTIONS = [
  "messages",
  "stream",
  "stream_options",
  "chat_template_kwargs",
  "n",
  "model",
  "user",
  "store",
  "metadata",
];

export const create: TaskFactory<string | readonly ChatMessage[], string> = async (
  model,
  task,
  base,
): Promise<TextGeneration> => {
  const config = readConfig(task);
  const vocabulary = new Vocabulary(await fetchTokenizer(new URL(config.tokenizer, base)));
  const session = new Session(model, config.generation);
  const queue = new Queue();
  const answers = new Answers({ model, config, vocabulary, session }, queue);
  const prompts = new Prompts(config, vocabulary);
  const constrain = constraints(model, config, vocabulary);

  const job = (prompt: readonly number[], options: GenerationOptions): Job => {
    const settings = readSettings(options, config.sampling);
    const { schema } = settings;
    return { prompt, settings, constraint: schema === undefined ? schema : constrain(schema) };
  };
  const chat = async (options: ChatOptions) => {
    checkNames(options, CHAT_OPTIONS);
    const { messages, stream, stream_options, chat_template_kwargs, n } = options;
    if (n !== undefined && n !== null && n !== 1) refuse("n", "1", n);
    // Settings first: they are cheaper to read than messages.
    const asked = job([], options);
    const prompt = prompts.chat(messages, chat_template_kwargs ?? {});
    if (!readStream(stream)) return answers.chat({ ...asked, prompt });
    return answers.chatStream({ ...asked, prompt }, stream_options?.include_usage === true);
  };
  const generate = async (
    prompt: string | readonly number[],
    options: GenerationOptions & { readonly stream?: boolean | null } = {},
  ) => {
    checkNames(options, ["stream"]);
    const asked = { ...job([], options), prompt: prompts.raw(prompt) };
    return readStream(options.stream) ? answers.generateStream(asked) : answers.generate(asked);
  };
  const say = async (
    input: string | readonly ChatMessage[],
    options: GenerationOptions = {},
  ): Promise<string> => {
    if (typeof input === "string" && config.chat_template === null) {
      return (await (generate as GenerateText)(input, options)).text;
    }
    const messages = typeof input === "string" ? [{ role: "user", content: input }] : input;
    const completion = await (chat as CreateChatCompletion)({
      ...options,
      messages,
      stream: false,
    });
    return completion.choices[0].message.content;
  };

  return Object.assign(say, {
    model: guarded(
      model,
      (work) => queue.add(work),
      () => session.forget(),
    ),
    task,
    context: config.generation.context,
    chat: { completions: { create: chat as CreateChatCompletion } },
    generate: generate as GenerateText,
    tokenize: (text: string) => vocabulary.encode(text),
    detokenize: (ids: readonly number[]) => vocabulary.decode(ids),
    countTokens: (input: string | readonly ChatMessage[]) =>
      (typeof input === "string" ? vocabulary.encode(input) : prompts.messages(input)).length,
    reset: () => queue.add(async () => session.forget()),
    dispose: () => model.dispose(),
  });
};

function readStream(stream: unknown): boolean {
  const asked = stream ?? false;
  return typeof asked === "boolean" ? asked : refuse("stream", "true or false", stream);
}

/** Makes constraints; schemas that come again are not compiled again. */
function constraints(
  model: Model,
  { generation }: LanguageConfig,
  vocabulary: Vocabulary,
): (schema: JsonSchema) => Constraint {
  let lexicon: Lexicon | undefined;
  let latest: { readonly text: string; readonly guide: Guide } | undefined;
  return (schema) => {
    const text = JSON.stringify(schema);
    if (latest?.text !== text) {
      const grammar = compileSchema(schema);
      lexicon ??= new Lexicon(vocabulary.plain());
      const size = vocabularySize(model, generation.logits);
      latest = { text, guide: new Guide(grammar, lexicon, generation.eos, size) };
    }
    return new Constraint(latest.guide);
  };
}
