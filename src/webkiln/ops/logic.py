"""Comparisons, logic, bits, selection and conversion between types."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir

from webkiln.ir.dtypes import I32
from webkiln.ir.expr import (
    Expr,
    bitcast,
    call,
    cast,
    compare,
    logical_and,
    logical_not,
    logical_or,
    select,
)
from webkiln.ops.core import Context, Tensor, Unsupported, operator, stored
from webkiln.ops.elementwise import elementwise, wrap

__all__ = ["dtype_name"]


def dtype_name(code: int) -> str:
    """The NumPy name of an ONNX element type; raises `Unsupported` for one that isn't stored."""
    kind = onnx_ir.DataType(code)
    name = "bfloat16" if kind == onnx_ir.DataType.BFLOAT16 else kind.name.lower()
    name = {"float": "float32", "double": "float64"}.get(name, name)
    stored(name)
    return name


def _compare(name: str) -> Callable[[Context, Tensor, Tensor], Tensor]:
    def definition(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
        return elementwise(ctx, lambda x, y: compare(name, x, y), a, b, dtype="bool")

    return definition


operator("Equal")(_compare("eq"))
operator("Less")(_compare("lt"))
operator("LessOrEqual")(_compare("le"))
operator("Greater")(_compare("gt"))
operator("GreaterOrEqual")(_compare("ge"))


@operator("And")
def both(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, logical_and, a, b)


@operator("Or")
def either(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, logical_or, a, b)


@operator("Xor")
def one_of(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, lambda x, y: compare("ne", cast(x, I32), cast(y, I32)), a, b)


@operator("Not")
def negation(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, logical_not, x)


def _bits(name: str) -> Callable[[Context, Tensor, Tensor], Tensor]:
    return lambda ctx, a, b: elementwise(ctx, lambda x, y: call(name, x, y), a, b)


operator("BitwiseAnd")(_bits("bitand"))
operator("BitwiseOr")(_bits("bitor"))
operator("BitwiseXor")(_bits("bitxor"))


@operator("BitwiseNot")
def bitwise_not(ctx: Context, x: Tensor) -> Tensor:
    return elementwise(ctx, lambda a: call("bitnot", a), x)


@operator("Where")
def where(ctx: Context, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(ctx, select, condition, a, b, dtype=a.dtype)


_RANGE = {"uint8": (0, 8), "int8": (-7, 7), "uint16": (0, 16), "int16": (-15, 15)}


def convert_to(ctx: Context, x: Tensor, dtype: str) -> Tensor:
    """`x` as ONNX type `dtype`; what a narrower integer can't hold wraps."""
    storage = stored(dtype)
    fits = x.dtype == "bool" or _includes(dtype, x.dtype)

    def value(a: Expr) -> Expr:
        if dtype == "bool":
            return a if x.dtype == "bool" else compare("ne", a, 0)
        return cast(a, storage) if fits else wrap(cast(a, storage), dtype)

    return ctx.compute(x.shape, lambda *i: value(x[i]), dtype)


def _includes(wide: str, narrow: str) -> bool:
    if wide not in _RANGE or wide == narrow:
        return True
    if narrow not in _RANGE:
        return False
    return _RANGE[wide][0] <= _RANGE[narrow][0] and _RANGE[narrow][1] <= _RANGE[wide][1]


@operator("Cast")
def cast_operator(ctx: Context, x: Tensor) -> Tensor:
    """Floats become integers by truncation; half-precision types keep float32's precision here."""
    return convert_to(ctx, x, dtype_name(ctx.int("to")))


@operator("CastLike")
def cast_like(ctx: Context, x: Tensor, like: Tensor) -> Tensor:
    return convert_to(ctx, x, like.dtype)


_SAME_BITS = ({"float32", "int32", "uint32"}, {"int8", "uint8", "bool"}, {"int16", "uint16"})


@operator("BitCast")
def bit_cast(ctx: Context, x: Tensor) -> Tensor:
    """The same bits under another type of as many, where the storage holds them."""
    dtype = dtype_name(ctx.int("to"))
    if not any({x.dtype, dtype} <= kinds for kinds in _SAME_BITS):
        raise Unsupported(f"the bits of {x.dtype} as {dtype}", hint="types of at most 32 bits")
    if x.dtype in _SAME_BITS[0]:
        return ctx.compute(x.shape, lambda *i: bitcast(x[i], stored(dtype)), dtype)
    return ctx.compute(x.shape, lambda *i: wrap(cast(x[i], I32), dtype), dtype)
