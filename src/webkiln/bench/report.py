"""What a benchmark found, for programs and for people."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from webkiln.terminal import count, print_table, say, size

__all__ = ["Configuration", "Kernel", "Peak", "Report", "show"]


@dataclass(frozen=True)
class Peak:
    """What one thread of wasm can do here: GFLOP/s of multiply-adds, GB/s read from memory."""

    gflops: float
    gbps: float


@dataclass(frozen=True)
class Kernel:
    """One step timed alone on one thread. `floor_ms` is None where the peak is not known."""

    label: str
    kind: str
    ms: float
    flops: float
    bytes: float
    floor_ms: float | None

    @property
    def distance(self) -> float | None:
        """How many times the floor the step takes; None where the clock is too coarse to say."""
        return self.ms / self.floor_ms if self.floor_ms and self.ms else None


@dataclass(frozen=True)
class Configuration:
    """One engine on one device and number of threads; times in milliseconds."""

    engine: str
    device: str
    threads: int
    description: str
    load_ms: float
    first_ms: float
    ms: list[float]
    difference: float | None = None
    """Largest difference from our outputs, relative to the largest value; of a peer only."""

    @property
    def median(self) -> float:
        """Median of the timed runs."""
        return statistics.median(self.ms)

    @property
    def spread(self) -> float:
        """Half of the interquartile range, relative to the median."""
        if len(self.ms) < 4:
            return 0.0
        low, _, high = statistics.quantiles(self.ms, n=4)
        return (high - low) / 2 / self.median


@dataclass(frozen=True)
class Report:
    """All that one `webkiln bench` measured."""

    bundle: str
    browser: str
    peak: Peak | None
    configurations: list[Configuration]
    kernels: dict[str, list[Kernel]] = field(default_factory=dict)
    """Steps by device, in order."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values, medians and distances included."""
        data = asdict(self)
        for entry, configuration in zip(data["configurations"], self.configurations, strict=True):
            entry |= {"median": configuration.median, "spread": configuration.spread}
        for device, kernels in self.kernels.items():
            for entry, kernel in zip(data["kernels"][device], kernels, strict=True):
                entry["distance"] = kernel.distance
        return data


def show(report: Report) -> None:
    """Print the medians, then the steps with their distance from the floor."""
    say(f"{report.bundle} in {report.browser}")
    if report.peak:
        say(
            f"one thread of wasm does {report.peak.gflops:.1f} GFLOP/s, "
            f"reads {report.peak.gbps:.1f} GB/s"
        )
    print_table(
        "",
        ["engine", "where", "load ms>", "first ms>", "median ms>", "±>", "ratio>"],
        [_row(report, configuration) for configuration in report.configurations],
    )
    for device, kernels in report.kernels.items():
        _show_kernels(device, kernels)


def _row(report: Report, entry: Configuration) -> list[str]:
    peer = next(
        (
            other
            for other in report.configurations
            if other.engine != "webkiln"
            and (other.device, other.threads) == (entry.device, entry.threads)
        ),
        None,
    )
    ours = entry.engine == "webkiln" and peer is not None
    return [
        entry.engine,
        entry.description,
        f"{entry.load_ms:.0f}",
        f"{entry.first_ms:.1f}",
        f"{entry.median:.2f}",
        f"{entry.spread:.0%}",
        f"{peer.median / entry.median:.2f}× faster" if ours and peer else "",
    ]


def _show_kernels(device: str, kernels: list[Kernel]) -> None:
    total = sum(kernel.ms for kernel in kernels)
    floor = sum(kernel.floor_ms or 0.0 for kernel in kernels)
    say("")
    rows = [
        [
            str(index),
            kernel.label,
            f"{kernel.ms:.3f}",
            f"{kernel.ms / total:.1%}" if total else "–",
            count(kernel.flops / (kernel.ms / 1e3)) if kernel.ms else "–",
            size(kernel.bytes / (kernel.ms / 1e3)) if kernel.ms else "–",
            f"{kernel.floor_ms:.3f}" if kernel.floor_ms is not None else "–",
            f"{kernel.distance:.1f}×" if kernel.distance is not None else "–",
        ]
        for index, kernel in enumerate(kernels)
    ]
    columns = ["step>", f"computes, on {device}", "ms>", "share>", "FLOP/s>", "bytes/s>",
               "floor ms>", "distance>"]  # fmt: skip
    print_table("", columns, rows)
    if floor:
        say(
            f"all steps, one thread: {total:.2f} ms, "
            f"{total / floor:.1f}× their floor of {floor:.2f} ms"
        )
