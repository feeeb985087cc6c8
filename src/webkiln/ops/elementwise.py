"""Element-wise arithmetic with broadcasting: one scalar function an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce as fold

from webkiln.ir.dtypes import F32, I32, STORAGE
from webkiln.ir.expr import (
    Const,
    Expr,
    ExprLike,
    Load,
    Op,
    call,
    cast,
    compare,
    const,
    is_const,
    logical_and,
    maximum,
    minimum,
    select,
)
from webkiln.ops.core import Context, Tensor, Unsupported, operator

__all__ = [
    "broadcast",
    "broadcast_shape",
    "elementwise",
    "is_float",
    "merge_shapes",
    "narrow",
    "wrap",
]


def merge_shapes(*shapes: Sequence[Expr]) -> tuple[Expr, ...]:
    """The NumPy broadcast of `shapes`; symbolic extents must be equal or meet a 1."""
    rank = max((len(s) for s in shapes), default=0)
    merged: list[Expr] = []
    for axis in range(-rank, 0):
        extents = [s[axis] for s in shapes if len(s) >= -axis]
        wide = list(dict.fromkeys(e for e in extents if not is_const(e, 1)))
        if len(wide) > 1:
            shown = ", ".join(str(list(s)) for s in shapes)
            symbolic = not all(isinstance(e, Const) for e in wide)
            hint = "give equal dimensions one name" if symbolic else None
            raise Unsupported(f"shapes {shown} do not broadcast", hint=hint)
        merged.append(wide[0] if wide else const(1, I32))
    return tuple(merged)


def broadcast_shape(*tensors: Tensor) -> tuple[Expr, ...]:
    """The NumPy broadcast of the tensors' shapes."""
    return merge_shapes(*(t.shape for t in tensors))


def broadcast(t: Tensor, index: Sequence[ExprLike]) -> Expr:
    """The element of `t` for `index` of the broadcast result."""
    own = index[len(index) - t.rank :]
    return t[tuple(0 if is_const(s, 1) else i for s, i in zip(t.shape, own, strict=True))]


def elementwise(ctx: Context, f: Callable[..., Expr], *xs: Tensor, dtype: str = "") -> Tensor:
    """`f` of the broadcast elements of `xs`, of ONNX type `dtype` (default: the first input's).

    What overflows a type narrower than its storage wraps, as it does in C.
    """
    result = dtype or xs[0].dtype
    return ctx.compute(
        broadcast_shape(*xs),
        lambda *i: narrow(f(*(broadcast(x, i) for x in xs)), result),
        result,
    )


_BITS = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}


def wrap(e: Expr, dtype: str) -> Expr:
    """The bits of an int32 `e` that an 8- or 16-bit `dtype` keeps; for others `e` as it is."""
    if dtype not in _BITS or e.dtype != I32:
        return e
    bits = _BITS[dtype]
    if dtype.startswith("u"):
        return call("bitand", e, (1 << bits) - 1)
    half = 1 << (bits - 1)
    return call("bitand", e + half, (1 << bits) - 1) - half


def narrow(e: Expr, dtype: str) -> Expr:
    """`wrap`, unless `e` is made of elements of `dtype` by steps that can't leave its range."""
    return e if _fits(e) else wrap(e, dtype)


def _fits(e: Expr) -> bool:
    if isinstance(e, Op) and e.name in ("min", "max"):
        return all(map(_fits, e.args))
    if isinstance(e, Op) and e.name == "select":
        return all(map(_fits, e.args[1:]))
    return isinstance(e, Load | Const)


def is_float(t: Tensor) -> bool:
    return STORAGE[t.dtype].is_float


# --- one argument ---------------------------------------------------------------------------------

_UNARY = {
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Round": "round",  # half to even
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}


def _unary(function: str) -> Callable[[Context, Tensor], Tensor]:
    def definition(ctx: Context, x: Tensor) -> Tensor:
        return elementwise(ctx, lambda a: call(function, a), x)

    return definition


for _name, _function in _UNARY.items():
    operator(_name)(_unary(_function))


@operator("Abs")
def absolute(ctx: Context, x: Tensor) -> Tensor:
    if is_float(x):
        return elementwise(ctx, lambda a: call("abs", a), x)
    return elementwise(ctx, lambda a: a if x.dtype.startswith("u") else maximum(a, -a), x)


@operator("Neg")
def negative(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: -a, x)


@operator("Sign")
def sign(ctx: Context, x: Tensor) -> Tensor:
    if is_float(x):
        return elementwise(ctx, lambda a: call("sign", a), x)
    if x.dtype.startswith("u"):
        return elementwise(ctx, lambda a: minimum(a, 1), x)
    return elementwise(ctx, lambda a: maximum(minimum(a, 1), -1), x)


@operator("Reciprocal")
def reciprocal(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: 1.0 / a, x)


@operator("IsNaN")
def is_nan(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: call("isnan", a), x, dtype="bool")


@operator("IsInf")
def is_inf(ctx: Context, x: Tensor) -> Tensor:
    """Infinities of the signs that the attributes ask for."""
    low, high = ctx.int("detect_negative", 1), ctx.int("detect_positive", 1)

    def value(a: Expr) -> Expr:
        infinite = call("isinf", a)
        if low and high:
            return infinite
        if low or high:
            return logical_and(infinite, compare("gt" if high else "lt", a, 0))
        return logical_and(infinite, compare("ne", a, a))

    return elementwise(ctx, value, x, dtype="bool")


# --- two arguments --------------------------------------------------------------------------------


@operator("Add")
def add(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: x + y, a, b)


@operator("Sub")
def sub(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: x - y, a, b)


@operator("Mul")
def mul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: x * y, a, b)


@operator("Div")
def div(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """Floats divide; integers truncate towards zero (ONNX follows C)."""
    if is_float(a):
        return elementwise(ctx, lambda x, y: x / y, a, b)
    return elementwise(ctx, lambda x, y: call("truncdiv", x, y), a, b)


@operator("Mod")
def mod(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """The remainder's sign is the divisor's (Python), or with `fmod` the dividend's (C)."""
    if not ctx.int("fmod", 0):
        return elementwise(ctx, lambda x, y: call("mod", x, y), a, b)
    if is_float(a):
        return elementwise(ctx, lambda x, y: call("fmod", x, y), a, b)
    return elementwise(ctx, lambda x, y: x - call("truncdiv", x, y) * y, a, b)


@operator("Pow")
def power(ctx: Context, base: Tensor, exponent: Tensor) -> Tensor:
    """Base to the exponent, in the base's type. Small constant exponents become multiplications."""
    integral = not is_float(base)

    def value(x: Expr, y: Expr) -> Expr:
        if isinstance(y, Const) and y.value in (1, 2, 3):
            return fold(lambda a, b: a * b, [x] * int(y.value))
        if isinstance(y, Const) and not integral:
            special = {0.5: "sqrt", -0.5: "rsqrt"}.get(y.value)
            if special is not None:
                return call(special, x)
            if y.value == -1:
                return 1.0 / x
        result = call("pow", cast(x, F32), cast(y, F32))
        return cast(call("round", result), STORAGE[base.dtype]) if integral else result

    return elementwise(ctx, value, base, exponent)


@operator("BitShift")
def bit_shift(ctx: Context, x: Tensor, by: Tensor) -> Tensor:
    """Shift by any number of bits; when all have left, 0 or (right, negative) -1."""
    direction = ctx.str("direction", "")
    if direction not in ("LEFT", "RIGHT"):
        raise Unsupported(f"direction {direction!r}")
    bits = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}.get(x.dtype, 32)

    def value(a: Expr, n: Expr) -> Expr:
        some = compare("lt", n, bits)
        if n.dtype == I32:  # a negative number of bits counts as all of them, as in NumPy
            some = logical_and(compare("ge", n, 0), some)
        shifted = call("shl" if direction == "LEFT" else "shr", a, select(some, n, bits - 1))
        if direction == "RIGHT" and a.dtype == I32 and x.dtype.startswith("i"):
            return shifted
        return select(some, shifted, 0)

    return elementwise(ctx, value, x, by)


# --- any number of arguments ----------------------------------------------------------------------


def _variadic(f: Callable[[Expr, Expr], Expr]) -> Callable[..., Tensor]:
    return lambda ctx, *xs: elementwise(ctx, lambda *a: fold(f, a), *xs)


operator("Max")(_variadic(maximum))
operator("Min")(_variadic(minimum))
operator("Sum")(_variadic(lambda a, b: a + b))


@operator("Mean")
def mean(ctx: Context, *xs: Tensor) -> Tensor:
    return elementwise(ctx, lambda *a: fold(lambda x, y: x + y, a) * (1 / len(xs)), *xs)


@operator("Clip")
def clip(ctx: Context, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Bounds are inputs since opset 11, attributes before."""
    storage = STORAGE[x.dtype]
    before = {k: const(ctx.attributes[k], storage) for k in ("min", "max") if k in ctx.attributes}

    def value(a: Expr, *bounds: Expr) -> Expr:
        rest = iter(bounds)
        least = next(rest) if low is not None else before.get("min")
        most = next(rest) if high is not None else before.get("max")
        a = a if least is None else maximum(a, least)
        return a if most is None else minimum(a, most)

    return elementwise(ctx, value, x, *(t for t in (low, high) if t is not None))
