"""A tiny language model in Chromium: the API on real programs, against the bundle in Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

import webkiln
from tests.browser.test_runtime import KEEP_DEVICE, with_prefix
from tests.unit import tiny_llm
from webkiln.browser import find_chromium
from webkiln.bundle import Bundle
from webkiln.server import Server

DIST = Path(webkiln.__file__).parent / "runtime" / "dist"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium"),
    pytest.mark.skipif(not (DIST / "webkiln.js").exists(), reason="runtime not built"),
]

PROMPTS = ["x", "hé 😀\n\n", "a prompt of more than one chunk, even three"]


@pytest.fixture(scope="module", params=["wasm"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


both = pytest.mark.parametrize("device", ["wasm", "webgpu"], indirect=True, scope="module")
on_webgpu = pytest.mark.parametrize("device", ["webgpu"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def bundle(device: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    # Python runs the bundle's WebAssembly.
    targets = tuple({"wasm", device})
    return tiny_llm.build(tmp_path_factory.mktemp(device), targets=targets)


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = bundle.save(tmp_path_factory.mktemp("language") / "bundle")
    shutil.copytree(DIST, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def page(folder: Path, webgpu_browser: Browser) -> Iterator[Page]:
    with Server(folder, port=0) as server:
        context = webgpu_browser.new_context()
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{server.url}webkiln.d.ts")
        yield page
        context.close()


def run(page: Page, script: str, device: str, **args: Any) -> Any:
    """What a script returns; it has the model as `llm`."""
    start = 'const { pipeline, Tensor } = await import("./webkiln.js");'
    start += "const { device } = args; const llm = await pipeline('./', { device });"
    end = "finally { await llm.dispose(); }"
    return page.evaluate(
        f"async (args) => {{ {start} try {{ {script} }} {end} }}", {"device": device, **args}
    )


GENERATE = """
  const found = [];
  for (const prompt of args.prompts) {
    const { tokens, text, logprobs, usage } =
      await llm.generate(prompt, { temperature: 0, max_tokens: 8, logprobs: true });
    found.push([tokens, text, logprobs.map(({ logprob }) => logprob), usage.prompt_tokens]);
  }
  return found;
"""


@both
def test_answers_are_those_of_python(page: Page, bundle: Bundle, device: str) -> None:
    found = run(page, GENERATE, device, prompts=PROMPTS)
    model = bundle.language_model
    for prompt, (tokens, text, logprobs, count) in zip(PROMPTS, found, strict=True):
        answer = bundle.generate(prompt, stream=True, temperature=0, max_tokens=8)
        assert "".join(answer) == text
        assert answer.tokens == tokens
        ids = model.encode(prompt)
        assert len(ids) == count
        logits = model.logits(ids).astype(np.float64)
        expected = logits[tokens[0]] - np.log(np.exp(logits).sum())
        assert logprobs[0] == pytest.approx(expected, abs=2e-3)


TURNS = """
  const options = { temperature: 0, max_tokens: 3 };
  const ask = (messages) => llm.chat.completions.create({ ...options, messages });
  const first = [{ role: "user", content: "a" }];
  const { choices: [{ message }] } = await ask(first);
  const second = [...first, message, { role: "user", content: "b" }];
  const reused = await ask(second);
  await llm.reset();
  const fresh = await ask(second);
  return { reused, fresh };
"""


def test_the_next_turn_reuses_the_cache(page: Page, device: str) -> None:
    found = run(page, TURNS, device)
    reused, fresh = found["reused"], found["fresh"]
    assert reused["choices"] == fresh["choices"]
    # A random model's bytes are not always text, which would be read differently; its question is.
    assert reused["usage"]["prompt_tokens_details"]["cached_tokens"] >= 8
    assert fresh["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


ABORT = """
  const options = { temperature: 0, max_tokens: 20 };
  const whole = await llm.generate("abc", options);
  const abort = new AbortController();
  const seen = [];
  let code;
  try {
    const stream = await llm.generate("abc", { ...options, stream: true, signal: abort.signal });
    for await (const part of stream) {
      seen.push(...part.tokens);
      if (seen.length === 5) abort.abort();
    }
  } catch (error) {
    code = error.code;
  }
  const prefill = new AbortController();
  const early = llm.generate("a long prompt to begin with", { ...options, signal: prefill.signal })
    .catch((error) => error.code);
  setTimeout(() => prefill.abort());
  const queued = llm.generate("abc", options);
  return { whole, seen, code, early: await early, again: await queued };
"""


def test_abort_leaves_a_model_that_works(page: Page, device: str) -> None:
    found = run(page, ABORT, device)
    assert (found["code"], found["early"]) == ("aborted", "aborted")
    assert found["seen"][:5] == found["whole"]["tokens"][:5]
    assert found["again"]["tokens"] == found["whole"]["tokens"]


JSON = """
  const schema = {
    type: "object",
    properties: { kind: { enum: ["yes", "no"] }, n: { type: "integer", minimum: 5, maximum: 70 } },
    required: ["kind", "n"],
  };
  const response_format = { type: "json_schema", json_schema: { schema } };
  const messages = [{ role: "user", content: "?" }];
  const found = [];
  // Drawn on the device, and on the host.
  for (const top_k of [0, 100]) {
    const options = { messages, response_format, seed: 1, temperature: 1.5, top_k };
    found.push((await llm.chat.completions.create(options)).choices[0]);
  }
  return found;
"""


@both
def test_json_out_of_a_model_that_knows_none(page: Page, device: str) -> None:
    for choice in run(page, JSON, device):
        value = json.loads(choice["message"]["content"])
        assert set(value) == {"kind", "n"}
        assert value["kind"] in ("yes", "no") and 5 <= value["n"] <= 70
        assert choice["finish_reason"] == "stop"


OWN_RUNS = """
  const options = { temperature: 0, max_tokens: 5 };
  const { tokens } = await llm.generate("abcdef", options);
  const checks = await llm.model.selfTest();
  const again = await llm.generate("abcdef", options);
  return [tokens, again.tokens, checks.every(({ ok }) => ok), again.usage];
"""


def test_a_self_test_between_two_answers(page: Page, device: str) -> None:
    first, second, passed, usage = run(page, OWN_RUNS, device)
    assert first == second
    assert passed
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


# Longer than what may be under way when the third token comes: two portions of eight.
LOST = """
  const options = { temperature: 1.2, seed: 4, max_tokens: 32 };
  const whole = await llm.generate("Once upon", options);
  await llm.reset();
  const lose = new BroadcastChannel("lose");
  const tokens = [];
  let usage;
  for await (const part of await llm.generate("Once upon", { ...options, stream: true })) {
    tokens.push(...part.tokens);
    usage ??= part.usage;
    if (tokens.length === 3) lose.postMessage(false);
  }
  return { whole: whole.tokens, tokens, usage };
"""


@on_webgpu
def test_a_gpu_lost_in_the_middle_of_an_answer(page: Page, device: str) -> None:
    page.route("**/webkiln.worker.js", with_prefix(KEEP_DEVICE))
    found = run(page, LOST, device)
    assert len(found["whole"]) > 2 + 2 * 8
    assert found["usage"]["extra"]["recoveries"] >= 1
    assert found["tokens"] == found["whole"]
