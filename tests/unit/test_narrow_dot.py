"""Which engines get modules that add up products of bytes in 16 bits, and that they get them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import wasmtime

import webkiln
from tests.unit import tiny_gguf
from webkiln import compile as compiler
from webkiln import frontends
from webkiln.bundle import runner
from webkiln.targets.toolchain import PLANES_VARIANTS, VARIANTS

PROBE = Path(webkiln.__file__).parent / "runtime" / "src" / "narrow-dot.ts"


def test_the_browser_runs_the_same_probe() -> None:
    text = re.sub(r"//.*", "", PROBE.read_text("utf-8").partition("Uint8Array.of(")[2])
    numbers = text.partition(");")[0].replace(",", " ").split()
    assert bytes(int(n, 0) for n in numbers) == wasmtime.wat2wasm(runner._PROBE)


def plan(variants: Any) -> Any:
    return {"wasm": {"variants": [{"file": v.file, "features": v.features} for v in variants]}}


@pytest.mark.parametrize(
    ("narrow", "chosen"), [(True, "simd-relaxed-narrow.wasm"), (False, "simd-relaxed.wasm")]
)
def test_the_variant_follows_the_engine(
    narrow: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_has_narrow_dot", lambda: narrow)
    assert runner.choose_variant(plan(PLANES_VARIANTS))["file"] == chosen
    assert runner.choose_variant(plan(VARIANTS))["file"] == "simd-relaxed.wasm"


@pytest.mark.parametrize(("activations", "narrow"), [("int16", True), ("int8", False)])
def test_only_planes_of_bytes_need_them(
    activations: str, narrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def compile_variants(text: str, memory: int, variants: Any) -> dict[Any, bytes]:
        asked.extend(variants)
        return {}

    monkeypatch.setattr(compiler, "compile_variants", compile_variants)
    monkeypatch.setattr(compiler, "_bundle", lambda *_: None)
    tiny = tiny_gguf.Tiny("llama", kind="Q4_0")
    source = frontends.load(tiny_gguf.write(tmp_path / "tiny.gguf", tiny, tiny_gguf.weights(tiny)))
    compiler.compile_model(source, activations=activations, targets=("wasm",))
    assert any(v.narrow for v in asked) == narrow
