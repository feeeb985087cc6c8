"""A tiny language model from its file to its answer, against the same model in NumPy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.unit import tiny_gguf, tiny_llm
from tests.unit.tiny_llm import BEGIN, CHUNK, CONTEXT, END, TINY
from webkiln import cli
from webkiln.bundle import Bundle
from webkiln.errors import ContextFullError, InputError, PromptTooLongError
from webkiln.generation import Options

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_model")
    return tiny_llm.build(folder).save(folder / "bundle")


@pytest.fixture(scope="module")
def bundle(folder) -> Bundle:
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def reference():
    weights = tiny_llm.weights()
    return lambda ids: tiny_gguf.forward(TINY, weights, ids)


def test_the_plan_says_what_a_host_needs(bundle):
    task = bundle.plan["task"]
    assert [program["name"] for program in bundle.plan["programs"]] == ["prefill", "decode"]
    assert task["generation"] == {
        "context": CONTEXT, "chunk": CHUNK, "ids": "input_ids", "position": "position",
        "logits": "logits", "eos": [END], "bos": BEGIN, "add_bos": False,
    }  # fmt: skip
    assert task["tokens"] == {"bos": "<|begin|>", "eos": "<|im_end|>"}
    assert task["chat_template"].startswith("{% for")
    assert task["sampling"] == {"temperature": 0.5, "top_k": 20}  # as the file recommends
    assert {"name", "tokenizer", "samples", "about"} <= set(task)


def test_the_golden_sample_holds(bundle):
    checks = bundle.check()
    assert {check.output for check in checks} >= {"logits"}
    assert all(check.ok for check in checks), checks


@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, CONTEXT])
def test_logits_after_chunks_are_those_of_the_whole(bundle, reference, length):
    ids = RNG.integers(0, 256, length).tolist()
    bundle.language_model.reset()
    found = bundle.language_model.logits(ids)
    np.testing.assert_allclose(found, reference(ids)[-1], rtol=2e-3, atol=2e-4)


def test_logits_token_by_token_are_those_of_the_whole(bundle, reference):
    ids = RNG.integers(0, 256, 20).tolist()
    bundle.language_model.reset()
    rows = [bundle.language_model.logits(ids[: i + 1]) for i in range(len(ids))]
    np.testing.assert_allclose(rows, reference(ids), rtol=2e-3, atol=2e-4)


def test_a_reused_cache_gives_the_logits_of_a_fresh_one(bundle):
    model = bundle.language_model
    first = RNG.integers(0, 256, 30).tolist()
    second = first[:17] + RNG.integers(0, 256, 9).tolist()
    model.reset()
    fresh = model.logits(second)
    model.reset()
    model.logits(first)
    assert model.cached(second) == 17
    np.testing.assert_allclose(model.logits(second), fresh, rtol=1e-4, atol=1e-5)


def greedy(reference, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    made: list[int] = []
    for _ in range(count):
        made.append(int(reference([*ids, *made])[-1].argmax()))
        if made[-1] == END:
            break
    return made


def test_greedy_answers_are_the_references(bundle, reference):
    for prompt in ("Once upon a time", "x", "def f(n):\n    "):
        ids = bundle.language_model.encode(prompt)
        answer = bundle.generate(prompt, stream=True, temperature=0, max_tokens=24)
        text = "".join(answer)
        assert answer.tokens == greedy(reference, ids, 24)
        assert text == answer.text


def test_the_device_samples_as_its_settings_say(bundle):
    def tokens(**options):
        answer = bundle.generate("Once upon", stream=True, max_tokens=16, **options)
        list(answer)
        return answer.tokens

    assert tokens(temperature=2, seed=5) == tokens(temperature=2, seed=5)
    assert tokens(temperature=2, seed=5) != tokens(temperature=2, seed=6)
    assert tokens(temperature=2, top_k=1, seed=5) == tokens(temperature=0)
    assert tokens(temperature=2, top_p=0, seed=5) == tokens(temperature=0)
    assert tokens(temperature=2, top_k=200, seed=5) == tokens(temperature=2, top_k=200, seed=5)
    never_twice = tokens(temperature=0, presence_penalty=2, frequency_penalty=2)
    assert never_twice != tokens(temperature=0)


def test_a_conversation_reuses_its_cache(bundle):
    chat = bundle.chat(temperature=0, max_tokens=2)
    chat.send("a")
    second = chat.send("b", stream=True)
    list(second)
    assert second.usage.cached_tokens > 15
    assert len(chat.messages) == 4


def test_context_and_prompt_limits(bundle):
    with pytest.raises(PromptTooLongError, match=f"{CONTEXT + 1} tokens"):
        bundle.generate("x" * (CONTEXT + 1))
    messages = [{"role": role, "content": "x" * 60} for role in ("user", "assistant", "user")]
    with pytest.raises(ContextFullError, match="conversation"):
        bundle.generate(messages)
    answer = bundle.generate("x" * (CONTEXT - 3), stream=True, temperature=0)
    list(answer)
    assert answer.finish_reason in ("length", "stop")
    assert len(answer.tokens) <= 4


def test_other_bundles_generate_nothing(bundle, monkeypatch):
    other = Bundle(dict(bundle.files))
    other.plan = json.loads(json.dumps(bundle.plan))
    other.plan["task"] = {"name": "feature-extraction"}
    with pytest.raises(InputError, match="feature-extraction"):
        other.generate("x")


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def webkiln(capfd):
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(list(arguments))
        said = capfd.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def test_run_answers_a_prompt(webkiln, folder, bundle):
    options = ("--temperature", "0", "--max-tokens", "5")
    code, out, errors = webkiln("run", str(folder), "--prompt", "Hi", "--raw", *options)
    assert code == 0, errors
    assert out == bundle.generate("Hi", temperature=0, max_tokens=5) + "\n"
    assert "2 tokens read" in errors and "5 written" in errors
    code, out, _ = webkiln("run", str(folder), "-p", "Hi", "--system", "S", *options)
    assert out == bundle.chat("S", temperature=0, max_tokens=5).send("Hi") + "\n"
    code, out, _ = webkiln("run", str(folder), "-p", "Hi", "--raw", "--json", *options)
    document = json.loads(out)
    assert document["text"] == bundle.generate("Hi", temperature=0, max_tokens=5)
    assert document["completion_tokens"] == 5 and document["finish_reason"] == "length"


def test_run_takes_a_file_as_prompt(webkiln, folder, tmp_path):
    (tmp_path / "prompt.txt").write_text("Hi")
    options = ("--temperature", "0", "--max-tokens", "3")
    _, expected, _ = webkiln("run", str(folder), "-p", "Hi", *options)
    code, out, _ = webkiln("run", str(folder), "-i", str(tmp_path / "prompt.txt"), *options)
    assert (code, out) == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to run"),
        (("-p", "x", "--temperature", "9"), "temperature should be a number from 0 to 2"),
        (("-p", "x", "--max-tokens", "0"), "max_tokens"),
        (("-p", "x", "-i", "y.txt"), "--prompt goes with neither"),
        (("-p", "x", "-o", "y.npz"), "--prompt goes with neither"),
        (("-p", "x", "--raw", "--system", "y"), "system prompt"),
        (("-p", "", "--raw"), "empty"),
        (("-p", "x" * 200), "tokens, the model's context"),
    ],
)
def test_run_says_what_is_wrong(webkiln, folder, arguments, says):
    code, out, errors = webkiln("run", str(folder), *arguments)
    assert (code, out) == (2, "")
    assert says in errors


# --- the documentation ----------------------------------------------------------------------------


def test_the_page_on_python_runs(folder, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/generation-python.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "dist").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "generation-python.md", "exec"), {})
    said = capsys.readouterr().out
    assert "'role': 'system', 'content': 'You answer in one word.'" in said


def test_the_page_on_python_names_every_option():
    page = (Path(__file__).parents[2] / "docs/generation-python.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in Options.__annotations__)
