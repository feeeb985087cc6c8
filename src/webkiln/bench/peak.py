"""The machine's peak in this browser, measured by a small module of the same toolchain."""

from __future__ import annotations

from importlib import resources

from webkiln.targets.toolchain import VARIANTS, compile_wasm

__all__ = ["BYTES", "FLOPS", "MEMORY", "peak_modules"]

ITERATIONS = 1 << 20
FLOPS = ITERATIONS * 12 * 4 * 2  # chains × floats × (multiply and add)
BYTES = 64 << 20  # of one pass over memory: more than the last-level cache of common machines
MEMORY = BYTES + (2 << 20)


def peak_modules() -> list[bytes]:
    """The calibration module without threads, best variant first; the page takes the first it can.

    Raises `ToolchainError`.
    """
    source = resources.files(__package__).joinpath("peak.c").read_text(encoding="utf-8")
    source = f"#define ITERATIONS {ITERATIONS}\n#define BYTES {BYTES}\n{source}"
    return [compile_wasm(source, variant, MEMORY) for variant in VARIANTS if not variant.threads]
