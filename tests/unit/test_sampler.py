"""The sampler at the end of a language model: equal to ONNX Runtime's, and fair."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from scipy import stats

from tests.unit.sampler_model import (
    Array,
    Arrays,
    OnWasm,
    OnWebGPU,
    cases,
    compare,
    feeds,
    lowered,
    model,
    reference,
    session,
)
from webkiln.errors import InvalidModelError
from webkiln.interpret.compute import run_program
from webkiln.passes.append_sampler import CANDIDATES, INPUTS, OUTPUTS, append_sampler
from webkiln.schedule.program import schedule_program

SMOLLM2 = 49152
LARGE = 262144  # more groups than a workgroup has room for, if groups were as small as elsewhere
ODD = 777  # neither words of a mask nor groups divide it


@functools.cache
def on_wasm(vocabulary: int) -> OnWasm:
    return OnWasm(vocabulary)


@pytest.fixture(scope="module", autouse=True)
def engines() -> Iterator[None]:
    """Samplers are compiled once, and end before the interpreter does."""
    yield
    on_wasm.cache_clear()


# --- the same numbers everywhere ------------------------------------------------------------------


def test_interpreter_equals_onnx_runtime() -> None:
    runtime, program = session(640), lowered(640)
    names = [b.name for b in program.outputs]
    for given in cases(640):
        compare(
            dict(zip(names, run_program(program, given), strict=True)), reference(runtime, given)
        )


@pytest.mark.parametrize("vocabulary", [40, ODD, SMOLLM2, LARGE])
def test_webassembly_equals_onnx_runtime(vocabulary: int) -> None:
    runtime = session(vocabulary)
    for given in cases(vocabulary):
        compare(on_wasm(vocabulary).run(given), reference(runtime, given))


@pytest.mark.webgpu
@pytest.mark.parametrize("vocabulary", [ODD, 4096])
def test_webgpu_equals_onnx_runtime(vocabulary: int) -> None:
    runtime, gpu = session(vocabulary), OnWebGPU(vocabulary)
    for given in cases(vocabulary):
        compare(gpu.run(given), reference(runtime, given))


@pytest.mark.parametrize("vocabulary", [32000, LARGE])
def test_few_dispatches(vocabulary: int) -> None:
    steps = schedule_program(lowered(vocabulary), "webgpu")
    kinds = [s.kernel.kind for s in steps if "logits" not in [b.name for b in s.writes]]
    assert len(kinds) <= 4, kinds


# --- what is drawn --------------------------------------------------------------------------------


def drawn(logits: Array, count: int = 4000, **settings: float) -> Counter[int]:
    """How often each token was drawn, step after step."""
    return Counter(on_wasm(len(logits)).draw(feeds(logits, seed=2026, **settings), count))


def check_fair(found: Counter[int], wanted: Array) -> None:
    """Only tokens that may be, as often as they should be (p of chi-square over 0.001)."""
    assert all(wanted[token] > 0 for token in found)
    total = sum(found.values())
    often = np.flatnonzero(wanted * total >= 5)
    seldom = total - sum(found[int(t)] for t in often)
    observed = [*(found[int(t)] for t in often), seldom]
    expected = [*(wanted[often] * total), total * (1 - wanted[often].sum())]
    if expected[-1] < 5:  # too few to test: with another
        observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
    if len(observed) > 1:
        scale = total / sum(expected)
        assert stats.chisquare(observed, np.array(expected) * scale).pvalue > 0.001


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    weights = np.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


LOGITS = np.random.default_rng(3).standard_normal(ODD) * 2.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_from_the_whole_vocabulary(temperature: float) -> None:
    check_fair(drawn(LOGITS, temperature=temperature), softmax(LOGITS, temperature))


@pytest.mark.parametrize("top_k", [1, 5, 64])
def test_top_k(top_k: int) -> None:
    wanted = softmax(LOGITS)
    wanted[np.argsort(LOGITS)[:-top_k]] = 0
    check_fair(drawn(LOGITS, top_k=top_k), wanted / wanted.sum())


@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.7, 0.999])
def test_top_p(top_p: float) -> None:
    order = np.argsort(-LOGITS)
    probability = softmax(LOGITS)
    before = np.cumsum(probability[order]) - probability[order]
    kept = order[(before < top_p) | (before == 0)]
    assert (len(kept) > CANDIDATES) == (top_p == 0.999)
    kept = kept[:CANDIDATES]
    wanted = np.zeros(ODD)
    wanted[kept] = probability[kept] / probability[kept].sum()
    check_fair(drawn(LOGITS, top_p=top_p), wanted)


@pytest.mark.parametrize("min_p", [0.001, 0.05, 1.0])
def test_min_p(min_p: float) -> None:
    probability = softmax(LOGITS, 1.5)
    wanted = np.where(probability >= min_p * probability.max(), probability, 0)
    check_fair(drawn(LOGITS, min_p=min_p, temperature=1.5), wanted / wanted.sum())


def test_top_p_counts_what_top_k_left() -> None:
    """Of four equal tokens out of eight, half the probability is two, not four."""
    logits = np.full(ODD, -20.0)
    logits[100:108] = 5.0
    found = drawn(logits, count=200, top_k=4, top_p=0.5)
    assert set(found) == {100, 101}


# --- what changes logits --------------------------------------------------------------------------


def greedy(given: Arrays) -> int:
    return int(on_wasm(ODD).run(given)["token"][0])


def penalised(count: float, bias: float, **settings: float) -> Array:
    """The ids in order after token 7, of logit 3 among others at 2, 1, 0, -1, … was changed."""
    logits = np.full(ODD, -50.0)
    logits[:8] = [2, 1, 0, -1, -2, -3, -4, 3]
    given = feeds(logits, temperature=0, **settings)
    given["penalty_ids"][3] = 7
    given["penalties"][:, 3] = count, bias
    return on_wasm(ODD).run(given)["top_ids"]


@pytest.mark.parametrize(
    ("count", "bias", "settings", "place"),
    [
        (0, 0, {"presence_penalty": 9, "frequency_penalty": 9, "repetition_penalty": 9}, 0),
        (2, 0, {"presence_penalty": 1.5}, 1),  # 1.5
        (3, 0, {"frequency_penalty": 1.5}, 4),  # -1.5
        (1, 0, {"repetition_penalty": 2}, 1),  # 1.5
        (-1, 0, {"repetition_penalty": 2}, 1),
        (-1, 0, {"presence_penalty": 9, "frequency_penalty": 9}, 0),
        (0, -4.5, {}, 4),  # -1.5
        (2, 1, {"repetition_penalty": 2, "presence_penalty": 1, "frequency_penalty": 1}, 3),  # -.5
    ],
)
def test_penalties(count: float, bias: float, settings: dict[str, float], place: int) -> None:
    assert penalised(count, bias, **settings).tolist().index(7) == place


def test_a_negative_logit_is_multiplied_by_the_repetition_penalty() -> None:
    logits = np.full(ODD, -9.0)
    logits[:2] = -1.0, -1.5
    given = feeds(logits, temperature=0, repetition_penalty=2)
    given["penalty_ids"][0], given["penalties"][0, 0] = 0, 1
    assert greedy(given) == 1


def test_token_zero_has_penalties_beside_unused_places() -> None:
    given = feeds(np.arange(ODD, 0.0, -1.0), temperature=0)
    assert greedy(given) == 0
    given["penalty_ids"][9], given["penalties"][1, 9] = 0, -100
    assert greedy(given) == 1


def test_what_the_mask_forbids_is_never_drawn() -> None:
    given = feeds(LOGITS, temperature=3)
    allowed = np.random.default_rng(0).random(ODD) < 0.02
    padded = np.concatenate([allowed, np.zeros(-ODD % 32, bool)])
    given["token_mask"] = np.packbits(padded, bitorder="little").view(np.uint32)
    given["penalty_ids"][0], given["penalties"][1, 0] = np.flatnonzero(~allowed)[0], 1e6
    assert all(allowed[on_wasm(ODD).draw(given, 500)])


def test_equal_logits_go_to_the_lowest_id() -> None:
    result = on_wasm(ODD).run(feeds(np.zeros(ODD), temperature=0))
    assert result["token"].tolist() == [0]
    assert result["top_ids"].tolist() == list(range(CANDIDATES))


def test_same_seed_same_token_other_step_other_token() -> None:
    def tokens(seed: int) -> list[int]:
        return on_wasm(ODD).draw(feeds(np.zeros(ODD), seed), 20)

    assert tokens(5) == tokens(5)
    assert len(set(tokens(5))) > 10
    assert tokens(5) != tokens(6)


@pytest.mark.parametrize("vocabulary", [ODD, SMOLLM2])
def test_log_probabilities_are_the_models_own(vocabulary: int) -> None:
    logits = np.random.default_rng(4).standard_normal(vocabulary).astype(np.float32) * 2.5
    given = feeds(logits, temperature=0.3, top_k=3, logprobs=1, repetition_penalty=2)
    given["penalty_ids"][0], given["penalties"][0, 0] = int(logits.argmax()), 1
    result = on_wasm(vocabulary).run(given)
    ids = [int(result["token"][0]), *result["top_ids"]]
    wanted = np.log(softmax(logits.astype(np.float64)))[ids]
    np.testing.assert_allclose(result["logprobs"], wanted, rtol=0, atol=3e-5)


# --- ports ----------------------------------------------------------------------------------------


def test_the_last_position_counts() -> None:
    text = "g (float[1,3,70] x) => (float[1,3,70] logits) { logits = Identity(x) }"
    parsed = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 24]> {text}')
    sampled = append_sampler(ir.from_proto(parsed), vocabulary=70)
    assert [v.name for v in sampled.graph.inputs] == ["x", *INPUTS]
    assert [v.name for v in sampled.graph.outputs] == ["logits", *OUTPUTS]
    proto = ir.to_proto(sampled).SerializeToString()
    logits = np.random.default_rng(0).standard_normal((1, 3, 70)).astype(np.float32)
    given = feeds(np.zeros(70), temperature=0) | {"x": logits}
    (token,) = onnxruntime.InferenceSession(proto).run(["token"], given)
    assert token.tolist() == [logits[0, 2].argmax()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[1,1,70] x) => (float[1,1,70] y) { y = Relu(x) }", "no output 'logits'"),
        (
            "(float[1,1,70] seed) => (float[1,1,70] logits) { logits = Relu(seed) }",
            "port 'seed' already",
        ),
    ],
)
def test_models_that_no_sampler_fits(text: str, message: str) -> None:
    parsed = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 24]> g {text}')
    with pytest.raises(InvalidModelError, match=message):
        append_sampler(ir.from_proto(parsed), vocabulary=70)


def test_an_old_opset_is_refused() -> None:
    text = "g (float[1,1,70] x) => (float[1,1,70] logits) { logits = Relu(x) }"
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 13]> {text}')
    with pytest.raises(InvalidModelError, match="opset 18"):
        append_sampler(ir.from_proto(parsed), vocabulary=70)


def test_the_page_lists_the_ports() -> None:
    page = (Path(__file__).parents[2] / "docs" / "generation.md").read_text()
    sampled = model(SMOLLM2)
    for port in (*sampled.graph.inputs, *sampled.graph.outputs):
        if port.name in (*INPUTS, *OUTPUTS):
            assert port.dtype is not None
            assert port.shape is not None
            shape = str(list(port.shape)).replace("1536", "⌈V / 32⌉")
            row = f"| `{port.name}` | {port.dtype.numpy()} {shape} |"
            assert re.search(re.escape(row), page), row
