"""What decoding a token costs on WebGPU, whatever the adapter: dispatches and bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import wgpu_runner
from tests.decode import compare_dispatches, decode, interpreted
from tests.unit import smollm, tiny_gguf
from webkiln import compile as compiler
from webkiln import frontends
from webkiln.frontends.source import Source
from webkiln.interpret.compute import value_of
from webkiln.ir.program import Program

pytest.importorskip("gguf")

LLAMA = tiny_gguf.Tiny("llama", permuted=True, kind="Q4_1", width=128, inner=192)
QWEN2 = replace(LLAMA, architecture="qwen2", permuted=False, bias=True, kind="Q4_0")
EIGHT = replace(LLAMA, kind="Q8_0")
#: Norms of queries and keys, over heads as large as Qwen3's and Gemma 3's; Gemma's after products
QWEN3 = replace(LLAMA, architecture="qwen3", permuted=False, qk_norm=True, head_size=128)
GEMMA3 = replace(QWEN3, architecture="gemma3", gemma=True, head_size=256, base=1e6, local_base=1e4,
                 windows=(3, None), metadata={"{arch}.attention.sliding_window": 3})  # fmt: skip
GEMMA2 = replace(GEMMA3, architecture="gemma2", qk_norm=False, windows=(3, None), local_base=None)
PER_LAYER = 5  # norm + projections, cache + attention, output, norm + gate and up, down


def source(folder: Path, tiny: tiny_gguf.Tiny) -> Source:
    path = tiny_gguf.write(folder / f"{tiny.layers}.gguf", tiny, tiny_gguf.weights(tiny))
    return frontends.load(path)


def layers(tiny: tiny_gguf.Tiny, count: int) -> tiny_gguf.Tiny:
    return replace(tiny, layers=count, windows=(None,) * count)


@pytest.mark.parametrize(
    "tiny",
    [LLAMA, QWEN2, EIGHT, QWEN3, GEMMA2, GEMMA3],
    ids=["llama", "qwen2", "eight bits", "qwen3", "gemma2", "gemma3"],
)
def test_a_layer_is_five_dispatches(tiny: tiny_gguf.Tiny, tmp_path: Path) -> None:
    two, three = (len(decode(source(tmp_path, layers(tiny, n))).steps) for n in (2, 3))
    assert three - two <= PER_LAYER


def feeds(program: Program, position: int, rows: int = 1) -> dict[str, np.ndarray]:
    """Tokens from `position` on; zeros for what the sampler wants."""
    dims = {d.name: rows for d in program.dims}
    given = {
        b.name: np.zeros([value_of(e, dims) for e in b.shape], b.dtype.name) for b in program.inputs
    }
    given["input_ids"][...] = 17 + np.arange(rows)
    given["position"][...] = position
    return given


@pytest.mark.webgpu
@pytest.mark.parametrize(
    ("tiny", "position"),
    [
        (LLAMA, 0),
        (LLAMA, 9),
        (QWEN2, 9),
        (EIGHT, 9),
        (QWEN3, 0),
        (QWEN3, 9),
        (GEMMA2, 9),
        (GEMMA3, 9),
    ],
    ids=[
        "first token",
        "llama",
        "qwen2",
        "eight bits",
        "qwen3, first token",
        "qwen3",
        "gemma2",
        "gemma3",
    ],
)
def test_dispatches_compute_the_program(
    tiny: tiny_gguf.Tiny, position: int, tmp_path: Path
) -> None:
    d = decode(source(tmp_path, tiny))
    compare_dispatches(d, feeds(d.program, position), position, 2e-4)


def test_the_interpreter_agrees(tmp_path: Path) -> None:
    """Strictly: each barrier is met by all, nothing is read before it is written."""
    small = replace(GEMMA3, width=64, inner=64, heads=2, kv_heads=1, head_size=16)
    d = decode(source(tmp_path, layers(small, 1)))
    compare_dispatches(d, feeds(d.program, 9), 9, 2e-4, run=interpreted)


@pytest.mark.webgpu
def test_a_row_that_one_product_keeps_and_another_reads(tmp_path: Path) -> None:
    """Values in other blocks than queries and keys: two products of one norm of a residual."""
    made, other = (tiny_gguf.weights(t) for t in (GEMMA3, replace(GEMMA3, kind="Q8_0")))
    for name in made.rows:
        if name.endswith("attn_v"):
            made.rows[name], made.floats[name] = other.rows[name], other.floats[name]
    d = decode(frontends.load(tiny_gguf.write(tmp_path / "mixed.gguf", GEMMA3, made)))
    assert len(d.steps) <= len(decode(source(tmp_path, GEMMA3)).steps) + GEMMA3.layers
    compare_dispatches(d, feeds(d.program, 9), 9, 2e-4)


@pytest.mark.webgpu
def test_a_prompt_computes_the_program(tmp_path: Path) -> None:
    d = decode(source(tmp_path, LLAMA), 32)
    for position, rows in ((0, 11), (9, 3)):
        given = feeds(d.program, position, rows)
        compare_dispatches(d, given, position, 2e-4, {"sequence": rows})


@pytest.mark.webgpu
@pytest.mark.parametrize("tiny", [QWEN3, GEMMA3], ids=["qwen3", "gemma3"])
def test_a_plan_of_shared_bindings(
    tiny: tiny_gguf.Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle's first token, from its shards, against the architecture in NumPy."""
    monkeypatch.setattr(compiler.page, "render", lambda *_: {})
    made = tiny_gguf.weights(tiny)
    loaded = frontends.load(tiny_gguf.write(tmp_path / "tiny.gguf", tiny, made))
    bundle = compiler.compile_model(loaded, targets=("webgpu",))
    number = [p["name"] for p in bundle.plan["programs"]].index("decode")
    given = {
        port["name"]: np.zeros(port["shape"], port["dtype"])
        for port in bundle.plan["programs"][number]["inputs"]
    }
    given["input_ids"][...] = 17
    files = [bundle.files[f"model/{s['file']}"] for s in bundle.plan["weights"]["shards"]]
    weights = b"".join(map(bytes, files))
    expected = tiny_gguf.forward(tiny, made.floats, [17])
    half, plain = bundle.plan["webgpu"]["variants"]
    for variant, tolerance in ((plain, 1e-3), (half, 1e-2)):
        shader = bytes(bundle.files[f"model/{variant['file']}"]).decode()
        found = wgpu_runner.run_plan(bundle.plan, shader, weights, given, number)["logits"]
        np.testing.assert_allclose(found.reshape(1, -1), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_smollm2_in_its_budget() -> None:
    """30 layers, the embedding, the head with its norm, and the sampler."""
    path = smollm.path()
    d = decode(frontends.load(path))
    caches = sum(4 * int(np.prod([e.value for e in b.shape])) for b in d.program.states)
    weights = sum(a.nbytes for a in d.program.constants.values())
    print(f"SmolLM2: {len(d.steps)} dispatches, {d.bytes / 1e6:.0f} MB a token at full context")
    print(f"  of these {caches / 1e6:.0f} MB caches, {weights / 1e6:.0f} MB weights")
    assert len(d.steps) <= 30 * PER_LAYER + 10
    assert d.bytes < 1.1 * (caches + weights)
