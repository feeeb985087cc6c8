/** The chat API against a model whose cache is checked, and whose answers are known. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { END, FakeModel, pipelineOf, says, spell, WebkilnError } from "./language.mjs";

const user = (content) => ({ role: "user", content });
const ask = (llm, content, options = {}) =>
  llm.chat.completions.create({ messages: [user(content)], temperature: 0, ...options });
const code = (wanted, text) => (error) => {
  assert.ok(error instanceof WebkilnError, String(error));
  assert.equal(error.code, wanted, error.message);
  if (text) assert.match(error.message, text);
  return true;
};

/** Aborts within the model's next run number `at`, while that goes on. */
function abortedInRun(model, at) {
  const controller = new AbortController();
  model.log.length = 0;
  model.delay = (count) => {
    if (count === at) controller.abort();
    return new Promise((resolve) => setTimeout(resolve, 2));
  };
  return controller;
}

test("a completion has OpenAI's shape", async () => {
  const model = new FakeModel(says("hello"));
  const llm = await pipelineOf(model);
  const answer = await ask(llm, "hi");
  assert.match(answer.id, /^chatcmpl-[0-9a-f]{24}$/);
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.model, "fake");
  assert.ok(Math.abs(answer.created - Date.now() / 1000) < 10);
  assert.deepEqual(answer.choices, [
    {
      index: 0,
      message: { role: "assistant", content: "hello", refusal: null },
      logprobs: null,
      finish_reason: "stop",
    },
  ]);
  const { prompt_tokens, completion_tokens, total_tokens, extra } = answer.usage;
  assert.deepEqual([prompt_tokens, completion_tokens, total_tokens], [5, 6, 11]);
  assert.ok(extra.prefill_tokens_per_s > 0 && extra.decode_tokens_per_s > 0);
  assert.equal(extra.context_left, 64 - 11);
});

test("prefill in chunks, then decode; logits are fetched where they are read", async () => {
  const model = new FakeModel(says("ok"));
  await ask(await pipelineOf(model), "x".repeat(15)); // 18 tokens: 8 + 8 + 2
  const runs = model.log.map(({ program, ids, position, outputs }) => [
    program,
    ids.length,
    position,
    outputs,
  ]);
  assert.deepEqual(runs, [
    ["prefill", 8, 0, []],
    ["prefill", 8, 8, []],
    ["prefill", 2, 16, ["logits"]],
    ["decode", 1, 18, ["logits"]],
    ["decode", 1, 19, ["logits"]],
  ]);
});

/** A sampler that takes the likeliest token, and says nothing else. */
const likeliest = (logits, _, Tensor) => ({
  token: () => new Tensor("int64", [logits.indexOf(Math.max(...logits))], [1]),
});

/** Counts the runs of `model` that wait; each of them takes `ms` of the time that the code sees. */
function watched(t, model, ms) {
  const seen = { waiting: 0, most: 0 };
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const { run, one } = model;
  model.run = (...args) => {
    seen.most = Math.max(seen.most, ++seen.waiting);
    return run.apply(model, args).finally(() => seen.waiting--);
  };
  model.one = (...args) => one.apply(model, args).finally(() => (now += ms));
  return seen;
}

test("where the model chooses, a run is asked for with the one before it", async (t) => {
  const model = new FakeModel(says("hello"), { sampler: likeliest });
  const llm = await pipelineOf(model);
  const seen = watched(t, model, 40);
  assert.equal((await ask(llm, "0123456789")).choices[0].message.content, "hello");
  assert.equal(seen.most, 2);
  const carried = model.log.map(({ carry }) => carry.input_ids);
  assert.deepEqual(carried.slice(0, 2), [undefined, undefined]); // the prompt's two chunks
  assert.ok(carried.slice(2).every((name) => name === "token"));
  // The run after the end of the answer was asked for before that was known: no more than that.
  assert.equal(model.log.length, 2 + 5 + 1);
  assert.deepEqual(model.log.at(-1).ids, [END]);

  // The cache is known all the same, and neither max_tokens nor the context is overrun.
  const again = await ask(llm, "0123456789", { max_tokens: 3 });
  assert.equal(again.usage.prompt_tokens_details.cached_tokens, again.usage.prompt_tokens - 1);
  assert.equal(model.log.length, 8 + 3);
  const full = await ask(llm, "x".repeat(58), { max_tokens: 50 });
  assert.equal(full.choices[0].finish_reason, "length");
  assert.equal(full.choices[0].message.content, "hell");
  assert.ok(model.log.every(({ position, ids }) => position + ids.length <= 64));
  // Penalties depend on what was chosen before.
  model.log.length = 0;
  await ask(llm, "hi", { frequency_penalty: 0.5 });
  assert.ok(model.log.every(({ carry }) => !carry.input_ids));
});

test("tokens that come fast are asked for together", async (t) => {
  const text = "an answer of forty tokens, more or less.";
  const model = new FakeModel(says(text), { sampler: likeliest });
  const llm = await pipelineOf(model);
  const seen = watched(t, model, 10);
  const { usage, choices } = await ask(llm, "hi");
  assert.equal(choices[0].message.content, text);
  assert.equal(seen.most, 2 * 3); // a portion under way, and the next
  assert.ok(model.log.length <= usage.completion_tokens + 2 * 3, "too many after the end");
  // What was run after the end is no part of what the cache is known to hold.
  await model.last;
  model.log.length = 0;
  const again = await ask(llm, "hi", { max_tokens: 9 });
  assert.equal(again.choices[0].message.content, text.slice(0, 9));
  assert.equal(model.log.length, 9);
  assert.equal(model.log[0].position, again.usage.prompt_tokens - 1);
  const full = await ask(llm, "x".repeat(50), { max_tokens: 50 });
  assert.equal(full.choices[0].finish_reason, "length");
  assert.ok(model.log.every(({ position, ids }) => position + ids.length <= 64));
});

test("runs asked for ahead: a GPU lost, an answer aborted", async () => {
  const lose = (count, model) => {
    if (count !== 4) return;
    model.state = [];
    throw new WebkilnError("device-lost", "The GPU was lost.");
  };
  const model = new FakeModel(says("a long answer"), { sampler: likeliest, fail: lose });
  const llm = await pipelineOf(model);
  const answer = await ask(llm, "hi");
  assert.equal(answer.choices[0].message.content, "a long answer");
  assert.equal(answer.usage.extra.recoveries, 1);
  for (const at of [1, 2, 5]) {
    await llm.reset();
    const { signal } = abortedInRun(model, at);
    await assert.rejects(ask(llm, "two chunks", { signal }), code("aborted"));
    model.delay = undefined;
    assert.equal((await ask(llm, "two chunks")).choices[0].message.content, "a long answer");
  }
});

test("the next turn runs only what is new", async () => {
  const model = new FakeModel(says("one"));
  const llm = await pipelineOf(model);
  const first = await ask(llm, "first");
  model.log.length = 0;
  const messages = [user("first"), { role: "assistant", content: "one" }, user("2")];
  const second = await llm.chat.completions.create({ messages, temperature: 0 });
  // The answer's last token ended it and was never run: <|end|>, then the new message.
  assert.equal(model.log[0].position, first.usage.total_tokens - 1);
  assert.equal(second.usage.prompt_tokens_details.cached_tokens, first.usage.total_tokens - 1);
  assert.equal(second.choices[0].message.content, "one");
  await llm.reset();
  model.log.length = 0;
  await ask(llm, "first");
  assert.equal(model.log[0].position, 0);
});

test("the same prompt again runs its last token only", async () => {
  const model = new FakeModel(says("a"));
  const llm = await pipelineOf(model);
  await ask(llm, "first");
  model.log.length = 0;
  await ask(llm, "first");
  assert.deepEqual([model.log[0].program, model.log[0].position], ["decode", 7]);
});

test("streams: role, contents, why it ended, usage", async () => {
  const llm = await pipelineOf(new FakeModel(says("hé😀!")));
  const chunks = [];
  const stream = await ask(llm, "hi", { stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) chunks.push(chunk);
  assert.ok(
    chunks.every(({ object, id }) => object === "chat.completion.chunk" && id === chunks[0].id),
  );
  assert.deepEqual(chunks[0].choices[0].delta, { role: "assistant", content: "" });
  const texts = chunks.slice(1, -2).map(({ choices }) => choices[0].delta.content);
  assert.deepEqual(texts, ["h", "é", "😀", "!"]); // never half a character
  assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.completion_tokens, 9);
  assert.equal(chunks[0].usage, null);
});

test("half a character at the end is replaced; once a stop text came nothing follows", async () => {
  const llm = await pipelineOf(new FakeModel(says("né")));
  const cut = await ask(llm, "hi", { max_tokens: 2 });
  assert.equal(cut.choices[0].message.content, "n\ufffd");
  const stopped = await ask(llm, "hi", { max_tokens: 2, stop: "n" });
  assert.equal(stopped.choices[0].message.content, "");
});

test("without include_usage no chunk has usage", async () => {
  const llm = await pipelineOf(new FakeModel(says("a")));
  for await (const chunk of await ask(llm, "hi", { stream: true })) assert.ok(!("usage" in chunk));
});

test("stop texts end the answer and are not shown, nor is their beginning", async () => {
  const llm = await pipelineOf(new FakeModel(says("one STOP two")));
  const whole = await ask(llm, "hi", { stop: ["STOP", "never"] });
  assert.equal(whole.choices[0].message.content, "one ");
  assert.equal(whole.choices[0].finish_reason, "stop");
  const seen = [];
  for await (const { choices } of await ask(llm, "hi", { stop: "STAY", stream: true })) {
    if (choices[0].delta.content) seen.push(choices[0].delta.content);
  }
  assert.equal(seen.join(""), "one STOP two");
  assert.ok(!seen.includes("S") && !seen.includes("ST"), "held back until it is clear");
  const end = await pipelineOf(new FakeModel(says("a ST")));
  assert.equal((await ask(end, "hi", { stop: "STOP" })).choices[0].message.content, "a ST");
});

test("length: max_tokens, and the end of the context", async () => {
  const llm = await pipelineOf(new FakeModel(says("x".repeat(500))));
  const limited = await ask(llm, "hi", { max_completion_tokens: 3 });
  assert.deepEqual(
    [limited.choices[0].message.content, limited.choices[0].finish_reason],
    ["xxx", "length"],
  );
  const full = await ask(llm, "hi");
  assert.equal(full.choices[0].finish_reason, "length");
  assert.equal(full.usage.extra.context_left, 0);
  assert.equal(full.usage.total_tokens, 65); // the last token needs no place
});

test("a prompt that does not fit: the message, or the conversation", async () => {
  const llm = await pipelineOf(new FakeModel(says("a")));
  await assert.rejects(ask(llm, "x".repeat(80)), code("prompt-too-long", /83 tokens.*64/));
  const messages = [
    user("x".repeat(40)),
    { role: "assistant", content: "y" },
    user("z".repeat(30)),
  ];
  await assert.rejects(
    llm.chat.completions.create({ messages }),
    code("context-full", /new conversation/),
  );
  await assert.rejects(llm.generate("x".repeat(65)), code("prompt-too-long"));
  assert.equal((await llm.generate("x".repeat(64))).usage.completion_tokens, 1);
});

test("calls at once are queued, in order", async () => {
  const model = new FakeModel((ids) => (ids.length > 20 ? END : 65 + ids.length));
  const llm = await pipelineOf(model);
  const [a, b] = await Promise.all([ask(llm, "hi"), ask(llm, "hi")]);
  assert.equal(a.choices[0].message.content, b.choices[0].message.content);
  // The second finds the first one's prompt in the cache; had they mixed, it could not.
  assert.equal(b.usage.prompt_tokens_details.cached_tokens, b.usage.prompt_tokens - 1);
});

test("abort while waiting, in prefill and in decode; the cache stays right", async () => {
  const model = new FakeModel(says("a long answer"));
  const llm = await pipelineOf(model);
  const wait = new AbortController();
  const running = ask(llm, "hi");
  const waiting = ask(llm, "never run", { signal: wait.signal });
  wait.abort();
  await assert.rejects(waiting, code("aborted"));
  assert.equal((await running).choices[0].message.content, "a long answer");

  for (const at of [1, 2, 5]) {
    await llm.reset();
    const { signal } = abortedInRun(model, at);
    const aborted = ask(llm, "a prompt of two chunks", { signal });
    await assert.rejects(aborted, code("aborted"));
    model.delay = undefined;
    const { choices, usage } = await ask(llm, "a prompt of two chunks");
    assert.equal(choices[0].message.content, "a long answer");
    assert.ok(usage.prompt_tokens_details.cached_tokens > 0, "the aborted run was not in vain");
  }
});

test("reset while an aborted run still goes on", async () => {
  const model = new FakeModel(says("fine"));
  const llm = await pipelineOf(model);
  await ask(llm, "0123456789");
  const controller = new AbortController();
  model.delay = () => (controller.abort(), new Promise((resolve) => setTimeout(resolve, 20)));
  await assert.rejects(ask(llm, "0123456789abc", { signal: controller.signal }), code("aborted"));
  await llm.reset();
  model.delay = undefined;
  model.log.length = 0;
  assert.equal((await ask(llm, "abc")).choices[0].message.content, "fine");
  assert.equal(model.log[0].position, 0);
});

test("an aborted stream throws; leaving the loop ends the answer", async () => {
  const model = new FakeModel(says("x".repeat(50)));
  const llm = await pipelineOf(model);
  const controller = new AbortController();
  const stream = await ask(llm, "hi", { stream: true, signal: controller.signal });
  let text = "";
  await assert.rejects(async () => {
    for await (const { choices } of stream) {
      text += choices[0].delta.content ?? "";
      if (text.length === 5) controller.abort();
    }
  }, code("aborted"));
  assert.ok(text.length >= 5 && text.length < 50);
  for await (const _ of await ask(llm, "hi", { stream: true })) break;
  const count = model.log.length;
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(model.log.length <= count + 1, "nothing is generated for nobody");
  assert.equal((await ask(llm, "hi", { max_tokens: 2 })).choices[0].message.content, "xx");
});

test("a stream is ended by its own controller, and by a signal that had fired before", async () => {
  const llm = await pipelineOf(new FakeModel(says("x".repeat(50))));
  const stream = await ask(llm, "hi", { stream: true });
  await stream.next();
  stream.controller.abort();
  await assert.rejects(async () => {
    for await (const _ of stream);
  }, code("aborted"));
  const fired = AbortSignal.abort();
  const never = await ask(llm, "hi", { stream: true, signal: fired });
  await never.next(); // the role
  await assert.rejects(never.next(), code("aborted"));
  await assert.rejects(ask(llm, "hi", { signal: fired }), code("aborted"));
});

test("a stream that nobody reads does not hold up the next call", async () => {
  const llm = await pipelineOf(new FakeModel(says("a")));
  await ask(llm, "hi", { stream: true });
  assert.equal((await ask(llm, "ho")).choices[0].message.content, "a");
});

test("a GPU lost in the middle of an answer: it goes on where it was", async () => {
  const lose =
    (...at) =>
    (count, model) => {
      if (!at.includes(count)) return;
      model.state = [];
      throw new WebkilnError("device-lost", "The GPU was lost.");
    };
  const model = new FakeModel(says("a long answer"), { fail: lose(1, 5) });
  const llm = await pipelineOf(model);
  const answer = await ask(llm, "hi");
  assert.equal(answer.choices[0].message.content, "a long answer");
  assert.equal(answer.usage.extra.recoveries, 2);
  // After the loss: prompt and answer are run again, from position 0.
  assert.deepEqual([model.log[5].position, model.log[5].ids.length], [0, 8]);

  const hopeless = new FakeModel(says("a"), { fail: lose(...Array(50).keys()) });
  await assert.rejects(ask(await pipelineOf(hopeless), "hi"), code("device-lost"));
  assert.equal(hopeless.log.length, 4);
});

test("after a failed run, even one that nobody waited for, the cache counts as empty", async () => {
  const fail = (count, model) => {
    if (count !== 2) return;
    model.state = [];
    throw new WebkilnError("run-failed", "It trapped.");
  };
  const model = new FakeModel(says("fine"), { fail });
  const llm = await pipelineOf(model);
  const controller = new AbortController();
  model.delay = (count) => {
    if (count === 2) controller.abort();
    return new Promise((resolve) => setTimeout(resolve, 5));
  };
  await assert.rejects(ask(llm, "hi", { signal: controller.signal }), code("aborted"));
  assert.equal((await ask(llm, "hi")).choices[0].message.content, "fine");
  assert.equal(model.log[2].position, 0);
});

test("runs of one's own empty the cache", async () => {
  const model = new FakeModel(says("a"));
  const llm = await pipelineOf(model);
  await ask(llm, "hi");
  await llm.model.selfTest();
  model.log.length = 0;
  await ask(llm, "hi");
  assert.equal(model.log[0].position, 0);
  assert.equal(llm.model.name, "fake");
});

test("logprobs", async () => {
  const model = new FakeModel(() => ({ 104: 3, 105: 2, [END]: -20 }));
  const llm = await pipelineOf(model);
  const options = { logprobs: true, top_logprobs: 2, max_tokens: 2 };
  const { choices } = await ask(llm, "hi", options);
  const { content } = choices[0].logprobs;
  assert.equal(content.length, 2);
  const total = Math.log(Math.exp(3) + Math.exp(2) + 259 * Math.exp(-10));
  assert.equal(content[0].token, "h");
  assert.deepEqual(content[0].bytes, [104]);
  assert.ok(Math.abs(content[0].logprob - (3 - total)) < 1e-5);
  assert.deepEqual(
    content[0].top_logprobs.map(({ token }) => token),
    ["h", "i"],
  );
  let streamed = 0;
  for await (const chunk of await ask(llm, "hi", { ...options, stream: true })) {
    streamed += chunk.choices[0].logprobs?.content.length ?? 0;
  }
  assert.equal(streamed, 2);
});

test("seeds", async () => {
  const llm = await pipelineOf(new FakeModel(() => ({ 97: 1, 98: 1, 99: 1, 100: 1 })));
  const draw = async (seed) => {
    const answer = await ask(llm, "hi", { seed, temperature: 1, max_tokens: 30 });
    return answer.choices[0].message.content;
  };
  assert.equal(await draw(7), await draw(7));
  assert.notEqual(await draw(7), await draw(8));
  assert.equal(new Set(await draw(7)).size, 4);
});

test("bad options are named", async () => {
  const llm = await pipelineOf(new FakeModel(says("a")));
  const cases = [
    [{ temperature: -1 }, /temperature should be a number from 0 to 2, but is -1/],
    [{ temperature: "hot" }, /temperature.*"hot"/],
    [{ temperature: NaN }, /temperature.*NaN/],
    [{ top_p: 1.5 }, /top_p/],
    [{ top_k: 2.5 }, /top_k should be a whole number/],
    [{ min_p: -0.1 }, /min_p/],
    [{ repetition_penalty: 0 }, /repetition_penalty should be a number above 0/],
    [{ presence_penalty: 3 }, /presence_penalty/],
    [{ frequency_penalty: -3 }, /frequency_penalty/],
    [{ seed: 0.5 }, /seed/],
    [{ max_tokens: 0 }, /max_tokens should be a whole number from 1, but is 0/],
    [{ max_completion_tokens: 1.5 }, /max_completion_tokens/],
    [{ stop: "" }, /stop/],
    [{ stop: [1] }, /stop/],
    [{ logprobs: 1 }, /logprobs should be true or false/],
    [{ top_logprobs: 3 }, /top_logprobs needs logprobs/],
    [{ logprobs: true, top_logprobs: 21 }, /top_logprobs should be a whole number from 0 to 20/],
    [{ n: 2 }, /n should be 1/],
    [{ stream: "yes" }, /stream should be true or false/],
    [{ signal: {} }, /signal should be an AbortSignal/],
    [{ tools: [] }, /no option "tools"/],
    [{ response_format: { type: "xml" } }, /response_format.type.*"xml"/],
    [{ response_format: { type: "json_schema" } }, /response_format.json_schema.schema/],
    [{ messages: [] }, /messages should be a list/],
    [{ messages: [{ content: "x" }] }, /messages\[0\].role/],
    [{ messages: [{ role: "user", content: 5 }] }, /messages\[0\].content/],
    [{ messages: [user([{ type: "image_url" }])] }, /messages\[0\].content\[0\].*"text"/],
  ];
  for (const [options, text] of cases) {
    await assert.rejects(ask(llm, "hi", options), code("option-invalid", text));
  }
  await assert.rejects(llm.generate(5), code("option-invalid"));
  await assert.rejects(llm.generate([9999]), code("option-invalid", /no token 9999/));
  await assert.rejects(llm.generate(""), code("input-text"));
  const mute = await pipelineOf(new FakeModel(says("a")), { chat_template: "{# nothing #}" });
  await assert.rejects(ask(mute, "hi"), code("input-text", /prompt is empty/));
});

test("null means the default, and parts are joined", async () => {
  const llm = await pipelineOf(new FakeModel(says("a")));
  const nulls = {
    top_p: null,
    stop: null,
    seed: null,
    max_tokens: null,
    response_format: null,
    signal: null,
  };
  const content = [
    { type: "text", text: "h" },
    { type: "text", text: "i" },
  ];
  const answer = await ask(llm, content, nulls);
  assert.equal(answer.usage.prompt_tokens, 5);
});

test("templates that raise, that are broken, that are not there", async () => {
  const llm = await pipelineOf(new FakeModel(says("a")));
  const messages = [{ role: "tool", content: "x" }];
  await assert.rejects(
    llm.chat.completions.create({ messages }),
    code("template-failed", /no tools here/),
  );
  const broken = await pipelineOf(new FakeModel(says("a")), { chat_template: "{% for %}" });
  await assert.rejects(ask(broken, "hi"), code("template-failed", /can't be read/));
  const none = await pipelineOf(new FakeModel((ids) => (ids.length > 3 ? END : 97)), {
    chat_template: null,
  });
  await assert.rejects(ask(none, "hi"), code("template-failed", /no chat template/));
  assert.equal(await none("hi", { temperature: 0 }), "aa"); // it continues the text instead
});

test("raw prompts, as text and ids, whole and streamed", async () => {
  const llm = await pipelineOf(new FakeModel((ids) => (ids.length > 5 ? END : 97)));
  const whole = await llm.generate("xyz", { temperature: 0 });
  assert.deepEqual(
    [whole.text, whole.tokens, whole.finish_reason],
    ["aaa", [97, 97, 97, END], "stop"],
  );
  const parts = [];
  for await (const part of await llm.generate([120, 121, 122], { temperature: 0, stream: true })) {
    parts.push(part);
  }
  assert.equal(parts.map(({ text }) => text).join(""), "aaa");
  assert.deepEqual(
    parts.flatMap(({ tokens }) => tokens),
    whole.tokens,
  );
  assert.equal(parts.at(-1).finish_reason, "stop");
  assert.equal(parts.at(-1).usage.completion_tokens, 4);
});

test("the first token that the model wants comes before the prompt, once", async () => {
  const generation = { bos: 261, add_bos: true };
  const model = new FakeModel((ids) => (ids.length > 3 ? END : 97));
  const llm = await pipelineOf(model, { generation });
  await llm.generate("x", { temperature: 0 });
  assert.deepEqual(model.log[0].ids, [261, 120]);
  await llm.reset();
  model.log.length = 0;
  await llm.generate("<|system|>x", { temperature: 0 });
  assert.deepEqual(model.log[0].ids, [261, 120]);
});

test("tokens and counts", async () => {
  const llm = await pipelineOf(new FakeModel(says("a")));
  assert.deepEqual(llm.tokenize("hello<|end|>"), [256, 257, 111, END]);
  assert.equal(llm.detokenize([256, 257, 111, END]), "hello<|end|>");
  assert.equal(llm.detokenize(llm.tokenize("hé 😀\n")), "hé 😀\n");
  assert.equal(llm.detokenize([]), "");
  assert.equal(llm.countTokens("hello"), 3);
  assert.equal(llm.countTokens([user("hello")]), 6);
  assert.throws(() => llm.tokenize(5), code("input-text"));
  assert.throws(() => llm.detokenize([-1]), code("option-invalid"));
});

test("bundles whose task is not whole are refused", async () => {
  for (const generation of [{ context: 0 }, { ids: undefined }, { eos: undefined }]) {
    await assert.rejects(
      pipelineOf(new FakeModel(says("a")), { generation }),
      code("plan-invalid"),
    );
  }
});

test("what the documentation shows runs, in order", async () => {
  const page = readFileSync(new URL("../../../../docs/generation-api.md", import.meta.url), "utf8");
  const blocks = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, code]) => code);
  assert.equal(blocks.length, 4);
  const wish = 'Yes! {"name": "Ann", "age": 7}';
  const next = (ids) =>
    Object.fromEntries([...spell(wish), END].map((id, i) => [id, (i * ids.length) % 7]));
  const llm = await pipelineOf(new FakeModel(next), { generation: { context: 500 } });
  const printed = [];
  const code =
    blocks.join("\n").replace(/^import .*$/m, "") + "\nreturn { answer, text, ids, person };";
  const Block = Object.getPrototypeOf(async () => undefined).constructor;
  const made = await new Block("pipeline", "console", code)(async () => llm, {
    log: (...values) => printed.push(values),
  });
  assert.equal(made.answer.object, "chat.completion");
  assert.ok(
    printed.some(([value]) => value?.completion_tokens > 0),
    "a chunk with usage",
  );
  assert.deepEqual(Object.keys(made.person), ["name", "age"]);
  assert.ok(made.ids.length > 0 && typeof made.text === "string");
});
