"""GridSample: interpolation at positions that a tensor gives (arXiv 1506.02025)."""

from __future__ import annotations

from dataclasses import dataclass

from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import (
    Expr,
    call,
    cast,
    compare,
    const,
    logical_and,
    maximum,
    minimum,
    select,
)
from webkiln.ops.core import Context, Tensor, Unsupported, operator
from webkiln.ops.resize import cubic_weights
from webkiln.ops.windows import inside

__all__: list[str] = []


@dataclass(frozen=True)
class _Sampling:
    """The attributes: kind of interpolation, padding, whether corners are aligned."""

    kind: str
    padding: str
    corners: bool

    def position(self, g: Expr, size: Expr) -> Expr:
        """Where `g` in [-1, 1] lies along an axis."""
        extent = cast(size, F32)
        p = (g + 1) * 0.5 * (extent - 1) if self.corners else ((g + 1) * extent - 1) * 0.5
        if self.padding == "border" and self.kind != "cubic":  # cubic weights keep the fraction
            return minimum(maximum(p, 0.0), extent - 1)
        return self._mirrored(p, extent) if self.padding == "reflection" else p

    def place(self, p: Expr, size: Expr) -> tuple[Expr, Expr]:
        """A whole position, brought into the axis, and whether it was there."""
        at = cast(minimum(maximum(p, -4.0), cast(size, F32) + 4), I32)  # 4: beyond any neighbour
        moved = at
        if self.padding == "reflection":
            moved = cast(self._mirrored(p, cast(size, F32)), I32)
        return minimum(maximum(moved, 0), size - 1), inside(at, size)

    def _mirrored(self, p: Expr, extent: Expr) -> Expr:
        """`p` reflected at the centres (corners aligned) or the edges of the outer elements."""
        half = 0.0 if self.corners else 0.5
        low, high = const(-half, F32), extent - (1.0 - half)
        span = maximum(high - low, 1e-6)
        away = call("abs", p - low)
        turns = call("floor", away / span)
        rest = away - turns * span
        odd = compare("ne", turns - call("floor", turns * 0.5) * 2.0, 0.0)
        return select(odd, high - rest, low + rest)

    def taps(self, g: Expr, size: Expr) -> list[tuple[Expr, Expr, Expr | None]]:
        """Neighbours along an axis: place, whether it is inside, weight (None: the only one)."""
        p = self.position(g, size)
        if self.kind == "nearest":
            return [(*self.place(call("round", p), size), None)]
        base = call("floor", p)
        t = p - base
        first, weights = (
            (0, [1.0 - t, t]) if self.kind == "linear" else (-1, cubic_weights(t, -0.75))
        )
        return [(*self.place(base + float(first + k), size), w) for k, w in enumerate(weights)]


@operator("GridSample")
def grid_sample(ctx: Context, x: Tensor, grid: Tensor) -> Tensor:
    """X [N, C, …] at positions `grid` [N, …, rank] in [-1, 1], the last coordinate first."""
    rank = x.rank - 2
    mode = ctx.str("mode", "linear")
    kind = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)  # as called before opset 20
    if kind not in ("nearest", "linear", "cubic"):
        raise Unsupported(f"mode {mode!r}")
    sampling = _Sampling(kind, ctx.str("padding_mode", "zeros"), bool(ctx.int("align_corners", 0)))

    def value(n: Expr, c: Expr, *at: Expr) -> Expr:
        taps = [sampling.taps(grid[(n, *at, rank - 1 - a)], x.shape[2 + a]) for a in range(rank)]

        def blend(index: tuple[Expr, ...], guards: tuple[Expr, ...]) -> Expr:
            if len(index) == rank:
                element = x[(n, c, *index)]
                if sampling.padding != "zeros":
                    return element
                return select(logical_and(*guards), element, const(0, element.dtype))
            total: Expr | None = None
            for where, within, weight in taps[len(index)]:
                inner = blend((*index, where), (*guards, within))
                part = inner if weight is None else inner * weight
                total = part if total is None else total + part
            assert total is not None
            return total

        return blend((), ())

    shape = (x.shape[0], x.shape[1], *grid.shape[1:-1])
    return ctx.compute(shape, value, x.dtype, channels_last=rank == 2)
