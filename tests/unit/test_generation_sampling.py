"""Choosing tokens on the host: against plain definitions, and against the browser's."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.typescript import RUNTIME, run
from webkiln.errors import InputError, InvalidModelError
from webkiln.generation.sampling import Sampling, device_inputs, penalise, sample, uniform

RNG = np.random.default_rng(0)
LOGITS = (RNG.standard_normal(300) * 3).astype(np.float32)
DRAWS = 4000


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return shifted / shifted.sum()


def allowed(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Probabilities by the definitions, one sort and no shortcuts."""
    p = softmax(logits / sampling.temperature)
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    if sampling.top_k:
        order = order[: sampling.top_k]
    nucleus, total = [], sum(p[order])
    for i in order:
        if sum(p[nucleus]) >= sampling.top_p * total and nucleus:
            break
        nucleus.append(i)
    kept = [i for i in nucleus if p[i] >= sampling.min_p * p.max()]
    result = np.zeros_like(p)
    result[kept] = p[kept] / p[kept].sum()
    return result


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.5),
    Sampling(top_k=5),
    Sampling(top_p=0.6),
    Sampling(top_k=20, top_p=0.7, temperature=1.5),
    Sampling(min_p=0.2),
    Sampling(min_p=0.1, top_p=0.9, top_k=40, temperature=0.8),
    Sampling(top_p=0.0),
    Sampling(min_p=1.0),
    Sampling(top_k=10_000),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_tokens_come_with_their_probabilities(sampling):
    expected = allowed(LOGITS, sampling)
    drawn = [sample(LOGITS, sampling, step) for step in range(DRAWS)]
    counts = np.bincount(drawn, minlength=len(LOGITS))
    assert not counts[expected == 0].any()
    deviation = np.sqrt(expected * (1 - expected) / DRAWS)
    assert np.all(np.abs(counts / DRAWS - expected) <= 5 * deviation + 3 / DRAWS)


def test_greedy_takes_the_first_of_equals():
    logits = np.array([0, 3, 1, 3], np.float32)
    for greedy in (Sampling(temperature=0), Sampling(top_k=1), Sampling(top_p=0)):
        assert {sample(logits, greedy, step) for step in range(9)} == {1}
    assert {sample(logits, Sampling(temperature=1e-9), step) for step in range(9)} == {1, 3}


def test_what_is_ruled_out_is_never_drawn():
    logits = np.full(10, -np.inf, np.float32)
    logits[[2, 7]] = 0, np.nan
    assert {sample(logits, Sampling(), step) for step in range(50)} == {2}
    with pytest.raises(InvalidModelError, match="finite"):
        sample(np.full(4, np.nan, np.float32), Sampling(temperature=0), 0)
    with pytest.raises(InvalidModelError):
        sample(np.full(4, -np.inf, np.float32), Sampling(), 0)


def test_a_seed_decides():
    def draw(seed: int) -> list[int]:
        return [sample(LOGITS, Sampling(seed=seed), step) for step in range(30)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(1) != draw(1 + 2**32)
    assert draw(-1) != draw(1)


def test_uniform_is_uniform():
    numbers = np.array([uniform(7, step) for step in range(20_000)])
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert np.abs(np.histogram(numbers, 20, (0, 1))[0] / 1000 - 1).max() < 0.15
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03


def test_penalties():
    logits = np.array([2, -2, 1, 1, 1, 0], np.float32)
    ids, start = [0, 1, 2, 3, 3, 2], 3  # the answer is 3, 3, 2
    found = penalise(logits, ids, start, Sampling(repetition_penalty=2))
    np.testing.assert_allclose(found, [1, -4, 0.5, 0.5, 1, 0])
    found = penalise(logits, ids, start, Sampling(presence_penalty=0.5, frequency_penalty=0.25))
    np.testing.assert_allclose(found, [2, -2, 0.25, 0, 1, 0])
    np.testing.assert_array_equal(penalise(logits, ids, start, Sampling()), logits)
    assert logits[0] == 2  # a copy was changed


def test_the_first_choice_that_says_something():
    made = Sampling.of({"top_k": 3, "seed": None}, {"top_k": 9, "top_p": 0.5}, {"seed": 4})
    assert made == Sampling(top_k=3, top_p=0.5, seed=4)
    assert Sampling.of({"max_tokens": 3}) == Sampling()
    with pytest.raises(InputError, match="top_p should be a number from 0 to 1, but is 2"):
        Sampling.of({"top_p": 2})


def test_inputs_of_the_device_sampler():
    sampling = Sampling(0.5, 0.9, 40, 0.1, 1.5, 0.2, 0.3, seed=2**32 + 5)
    ids = [7, 8, 9, 8, 8, 10]
    found = device_inputs(sampling, ids, start=3, step=2, vocabulary=70)
    shapes = {name: (array.dtype.name, array.shape) for name, array in found.items()}
    assert shapes == {
        "sampling": ("float32", (8,)),
        "seed": ("uint32", (2,)),
        "penalty_ids": ("int64", (256,)),
        "penalties": ("float32", (2, 256)),
        "token_mask": ("uint32", (3,)),
    }
    np.testing.assert_allclose(found["sampling"], [0.5, 0.9, 0.1, 1.5, 0.2, 0.3, 40, 0])
    assert found["seed"].tolist() == [5, 2]
    assert found["penalty_ids"][:5].tolist() == [10, 8, 9, 7, -1]  # the most recent first
    assert found["penalties"][0, :5].tolist() == [1, 2, -1, -1, 0]
    assert not found["penalties"][1].any()
    many = device_inputs(sampling, list(range(1000)), 0, 0, 1000)
    assert many["penalty_ids"].min() == 744
    plain = device_inputs(Sampling(), ids, 3, 0, 70)
    assert (plain["penalty_ids"] == -1).all() and not plain["penalties"].any()


SAMPLE = """
import { penalise, sample } from "src/tasks/generation/sampler.ts";
export function answer({ logits, settings, steps, ids, start }) {
  return settings.map((sampling) => {
    const scores = Float32Array.from(logits);
    penalise(scores, { ids, start }, sampling);
    return Array.from({ length: steps }, (_, step) => sample(scores, sampling, step));
  });
}
"""


def test_the_browser_draws_the_same_tokens(tmp_path):
    if not (RUNTIME / "src/tasks/generation/sampler.ts").is_file():
        pytest.skip("the runtime has no sampler on the host")
    penalties = Sampling(repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=-0.5)
    settings = [*SETTINGS, penalties, Sampling(seed=-3), Sampling(seed=2**40 + 1)]
    ids, start, steps = [5, 9, 5, 200, 200], 2, 200
    job = {
        "logits": LOGITS.tolist(), "steps": steps, "ids": ids, "start": start,
        "settings": [vars(one) for one in settings],
    }  # fmt: skip
    for one, got in zip(settings, run(tmp_path, SAMPLE, job), strict=True):
        scores = penalise(LOGITS, ids, start, one)
        assert [sample(scores, one, step) for step in range(steps)] == got, one
