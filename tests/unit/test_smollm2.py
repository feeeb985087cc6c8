"""SmolLM2 as a whole: what the bundle says beside ONNX Runtime on the dequantised weights.

The reference's answers and its perplexity are in tests/data/smollm2.json; with
WEBKILN_UPDATE_GOLDEN=1 they are made again (some minutes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shared import once, variants_that_run
from tests.unit import smollm
from webkiln import compile as compiler
from webkiln import frontends
from webkiln.bundle import Bundle
from webkiln.generation import CausalModel
from webkiln.passes import dequantize_weights
from webkiln.reference import reference_session

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
CONTEXT = 512
ANSWER = 32

QUESTIONS = (
    "What is the capital of France?", "What do bees make?", "How many days has a week?",
    "Name the largest ocean.", "Who wrote Romeo and Juliet?", "What is two plus two?",
    "Why is the sky blue?", "What is water made of?", "Name three fruits.",
    "What does a thermometer measure?", "Translate 'good morning' into Spanish.",
    "What is the opposite of hot?", "Which planet is closest to the sun?",
    "Write one sentence about autumn.", "What is a noun?", "How do plants eat?",
    "What is the first letter of the alphabet?", "Say hello.", "What colour is a ripe tomato?",
    "Give a short definition of gravity.",
)  # fmt: skip

Logits = np.ndarray[Any, np.dtype[np.float32]]


def text() -> str:
    """A page of plain prose, fixed."""
    return (DATA / "perplexity.txt").read_text("utf-8")


# --- the reference --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def reference() -> Callable[[list[int]], Logits]:
    """Ids → logits [length, vocabulary], by ONNX Runtime on float32 weights."""
    source = frontends.load(smollm.path(), context=CONTEXT)
    session = reference_session(dequantize_weights(source.model))
    empty = {
        i.name: np.zeros(i.shape, np.float32)
        for i in session.get_inputs()
        if i.name not in ("input_ids", "position")
    }

    def run(ids: list[int]) -> Logits:
        feeds = {"input_ids": np.array([ids]), "position": np.zeros(1, np.int64)}
        (logits,) = session.run(["logits"], feeds | empty)
        return np.asarray(logits[0])

    return run


def make_expected(model: CausalModel) -> dict[str, Any]:
    """Greedy answers and perplexity, by the reference."""
    answers = []
    for question in QUESTIONS:
        ids = model.encode([{"role": "user", "content": question}])
        answer: list[int] = []
        while len(answer) < ANSWER and not model.eos & {*answer[-1:]}:
            answer.append(int(reference()([*ids, *answer])[-1].argmax()))
        answers.append(answer)
    ids = page_ids(model)
    return {"answers": answers, "perplexity": perplexity(reference()(ids), ids)}


def page_ids(model: CausalModel) -> list[int]:
    return model.encode(text())[:320]


def perplexity(logits: Logits, ids: list[int]) -> float:
    """exp of the mean negative log-likelihood of each token after the first."""
    shifted = logits[:-1].astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    total = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(ids) - 1), ids[1:]]
    return float(np.exp(total.mean()))


# --- the bundle -----------------------------------------------------------------------------------


BundleOf = Callable[[str], Bundle]
EveryPosition = Callable[[str], Logits]


@pytest.fixture(scope="module")
def bundle(run_folder: Path, request: pytest.FixtureRequest) -> BundleOf:
    """The bundle of given `activations`, compiled once for all test processes."""

    @lru_cache(maxsize=2)
    def loaded(activations: str) -> Bundle:
        if activations == "int16":  # as built by default, which the gallery's is
            return Bundle.load(request.getfixturevalue("gallery_folder") / "chat")

        def build(folder: Path) -> None:
            source = frontends.load(smollm.path(), context=CONTEXT)
            with variants_that_run():
                built = compiler.compile_model(source, targets=("wasm",), activations=activations)
            built.save(folder)

        return Bundle.load(once(run_folder / f"smollm2-{activations}", build))

    return loaded


@pytest.fixture(scope="module")
def every_position(bundle: BundleOf, run_folder: Path) -> EveryPosition:
    """Logits after each token of the page, one token at a time, by a bundle of `activations`."""

    def logits(activations: str) -> Logits:
        def run(path: Path) -> None:
            model = bundle(activations).language_model
            ids = page_ids(model)
            model.reset()
            found = np.stack([model.logits(ids[: k + 1]) for k in range(len(ids))])
            with path.open("wb") as file:
                np.save(file, found)

        return np.asarray(np.load(once(run_folder / f"smollm2-{activations}-logits", run)))

    return logits


def expected(model: CausalModel) -> dict[str, Any]:
    path = DATA / "smollm2.json"
    if os.environ.get("WEBKILN_UPDATE_GOLDEN"):
        path.write_text(json.dumps(make_expected(model)) + "\n", "utf-8")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def cosines(a: Logits, b: Logits) -> Logits:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / norms)


def greedy(model: CausalModel, question: str) -> list[int]:
    ids = model.encode([{"role": "user", "content": question}])
    answer: list[int] = []
    while len(answer) < ANSWER and not model.eos & {*answer[-1:]}:
        answer.append(int(model.logits([*ids, *answer]).argmax()))
    return answer


@pytest.mark.parametrize(("activations", "least"), [("f32", 0.999999), ("int16", 0.9999)])
def test_logits_of_64_tokens_at_every_position(
    bundle: BundleOf, every_position: EveryPosition, activations: str, least: float
) -> None:
    model = bundle(activations).language_model
    ids = page_ids(model)[:64]
    found = cosines(every_position(activations)[:64], reference()(ids))
    print(f"{activations}: cosine {found.min():.6f} at worst, {found.mean():.6f} on average")
    assert found.min() >= least
    for length in (2, 17, 64):
        model.reset()
        at_once = cosines(model.logits(ids[:length]), reference()(ids[:length])[-1])
        assert at_once >= least


@pytest.mark.parametrize("activations", ["f32", "int16"])
def test_perplexity_is_within_two_percent(
    bundle: BundleOf, every_position: EveryPosition, activations: str
) -> None:
    model = bundle(activations).language_model
    wanted = expected(model)["perplexity"]
    found = perplexity(every_position(activations), page_ids(model))
    print(f"{activations}: perplexity {found:.3f}, the reference's {wanted:.3f}")
    assert abs(found - wanted) <= 0.02 * wanted


def test_greedy_answers_are_the_references(bundle: BundleOf) -> None:
    model = bundle("f32").language_model
    wanted = expected(model)["answers"]
    same = sum(greedy(model, q) == a for q, a in zip(QUESTIONS, wanted, strict=True))
    print(f"f32: {same} of {len(QUESTIONS)} answers are the reference's")
    assert same >= 18


def test_greedy_answers_as_built_by_default(bundle: BundleOf) -> None:
    model = bundle("int16").language_model
    wanted = expected(model)["answers"]
    found = [greedy(model, question) for question in QUESTIONS]
    same = sum(a == b for a, b in zip(found, wanted, strict=True))
    print(f"int16: {same} of {len(QUESTIONS)} answers are the reference's")
    assert "Paris" in model.vocabulary.decode(found[0])
    assert same >= 18


def test_chunks_and_single_tokens_and_a_reused_cache_are_one(
    bundle: BundleOf, every_position: EveryPosition
) -> None:
    model = bundle("f32").language_model
    ids = page_ids(model)[:200]  # more than a chunk
    model.reset()
    at_once = model.logits(ids)
    singles = every_position("f32")[len(ids) - 1]
    np.testing.assert_allclose(singles, at_once, rtol=1e-3, atol=2e-3)
    model.reset()
    for length in (3, 60, 131, 200):
        in_parts = model.logits(ids[:length])
    np.testing.assert_allclose(in_parts, at_once, rtol=1e-3, atol=2e-3)
    other = [*ids[:150], *reversed(ids[:40])]
    reused = model.logits(other)
    assert model.cached([*other, 1]) == len(other)
    model.reset()
    np.testing.assert_allclose(reused, model.logits(other), rtol=1e-3, atol=2e-3)
