"""Results of the language-model benchmark as the tables of docs/benchmarks-llm.md."""

from __future__ import annotations

from typing import Any

__all__ = ["render"]

_PLACES = {
    "wasm-1": "wasm, 1 thread",
    "wasm-2": "wasm, 2 threads",
    "webgpu": "WebGPU (SwiftShader)",
    "webgpu-f16": "WebGPU (llvmpipe, f16)",
}


def render(results: dict[str, Any]) -> str:
    """All tables, as Markdown."""
    parts = [_environment(results["environment"])]
    parts += ["### Tokens a second", _speeds(results["places"])]
    parts.append(_threads(results["threads"]))
    visit = results["second_visit"]
    parts.append(
        f"Navigation to first token, wasm, 1 thread: first visit {visit['first_ms']:,.0f} ms, "
        f"later ones {_spread(visit['summary'], ',.0f')} ms."
    )
    parts.append(_native(results["native"]))
    return "\n\n".join(parts)


def _environment(environment: dict[str, Any]) -> str:
    return (
        f"{environment['date'][:10]}, webkiln {environment['webkiln']} ({environment['commit']}), "
        f"wllama {environment['wllama']}, onnxruntime-web {environment['onnxruntime-web']}, "
        f"Chromium {environment['chromium']}, "
        f"{environment['cpu']}, {environment['cores']} cores, "
        f"load average {environment['load_average']} at the start. Median [quartiles]."
    )


def _speeds(places: list[dict[str, Any]]) -> str:
    lines = [
        "| where | engine | prefill | decode | webkiln: prefill | decode |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for place in places:
        for name, entry in place["engines"].items():
            cells = [_spread(entry["prefill"]), _spread(entry["decode"])]
            for key in ("prefill_ratio", "decode_ratio"):
                found = entry.get(key)
                cells.append(f"**{found['median']:.1f}×**" if found else "")
            # A peer that finds no GPU to its liking computes on the CPU, in silence.
            elsewhere = place["device"] == "webgpu" and entry.get("places") == ["CPU"]
            name += ", in truth on the CPU" if elsewhere else ""
            lines.append(f"| {_PLACES[place['place']]} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _threads(rows: dict[str, Any]) -> str:
    two, one = rows["2 threads"], rows["1 thread"]
    parts = []
    for work in ("prefill", "decode"):
        times = one[f"{work}_ratio"]["median"]
        parts.append(f"{work} {_spread(two[work])} and {_spread(one[work])}, {times:.2f}×")
    return f"Two threads and one, webkiln alone in a page, in turns: {'; '.join(parts)}."


def _spread(s: dict[str, float], form: str = ".1f") -> str:
    return f"{s['median']:{form}} [{s['low']:{form}}–{s['high']:{form}}]"


def _native(n: dict[str, Any]) -> str:
    share = n["floor_ms"] / n["decode_ms"]
    return (
        f"The same wasm in wasmtime, one thread: prefill {n['prefill_per_s']:.0f}, decode "
        f"{n['decode_per_s']:.0f} tokens/s. A token reads {n['bytes_a_token'] / 1e6:.0f} MB; at "
        f"the {n['bandwidth'] / 1e9:.1f} GB/s that one core reads here, that takes "
        f"{n['floor_ms']:.1f} ms of the {n['decode_ms']:.1f} ({share:.0%})."
    )
