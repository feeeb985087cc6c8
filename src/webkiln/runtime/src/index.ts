/** webkiln.js: runs a webkiln bundle in the browser. */
export { WebkilnError } from "./errors.js";
export type { WebkilnErrorCode } from "./errors.js";
export type { Expression, Operator } from "./expression.js";
export { load } from "./load.js";
export type {
  Device,
  DeviceOption,
  LoadOptions,
  Model,
  ModelState,
  OutputCheck,
  Port,
  Program,
  Progress,
  RunOptions,
  StepProfile,
  Timings,
  WeightStorage,
} from "./model.js";
export { pipeline } from "./pipeline.js";
export type { Dim } from "./plan.js";
export type {
  AnswerStream,
  ChatChunkChoice,
  ChatChoice,
  ChatCompletion,
  ChatCompletionChunk,
  ChatMessage,
  ChatOptions,
  ContentLogprob,
  CreateChatCompletion,
  FinishReason,
  GenerateText,
  Generation,
  GenerationOptions,
  GenerationPart,
  JsonSchema,
  ResponseFormat,
  TextGeneration,
  TextPart,
  TokenLogprob,
  Usage,
} from "./tasks/generation/types.js";
export { storage } from "./storage.js";
export type { BundleStorage } from "./storage.js";
export type { Pipeline, TaskConfig, TaskFactory, TaskModule } from "./tasks/task.js";
export { Tensor } from "./tensor.js";
export type { DType, TensorData, TensorSource } from "./tensor.js";
