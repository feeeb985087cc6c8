"""Kernels as WGSL: types, literals, an operator table, loops, barriers, the entry point.

One module a bundle, an entry point a kernel. Variables are numbered in order of appearance, so that
equal kernels print as equal text and share a pipeline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isinf, isnan
from typing import Final

import numpy as np

from webkiln.codegen.names import Names
from webkiln.codegen.vec4 import in_vectors, vector_buffers
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F16, I32, DType
from webkiln.ir.expr import (
    Const,
    Dim,
    Expr,
    Op,
    Read,
    Var,
    walk,
)
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import always_nonneg, poly
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.schedule.kernel import expressions, statements
from webkiln.targets.webgpu import legalise, workgroup_size

__all__ = ["kernel_source", "module_source"]

_TYPES: Final = {
    "float32": "f32",
    "float16": "f16",
    "int32": "i32",
    "uint32": "u32",
    "bool": "bool",
}
_INFIX: Final = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "truncdiv": "/",
    "fmod": "%",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "bitand": "&",
    "bitor": "|",
    "bitxor": "^",
}
_PREFIX: Final = {"neg": "-", "bitnot": "~", "not": "!"}
_CALLS: Final = {
    name: name
    for name in (
        "min",
        "max",
        "abs",
        "exp",
        "log",
        "sqrt",
        "floor",
        "ceil",
        "round",
        "trunc",
        "sign",
    )
}
_CALLS["rsqrt"] = "inverseSqrt"
_SCALAR_SIDE: Final = frozenset(
    {"add", "sub", "mul", "div"}
)  # a vector and a scalar, as in `v * 2.0f`

#: what some kernels call. Infinity is no literal, and no constant expression may yield it.
_HELPERS: Final = {
    "infinity": """fn infinity() -> f32 {
  var bits = 0x7f800000u;
  return bitcast<f32>(bits);
}""",
    "not_a_number": """fn not_a_number() -> f32 {
  var bits = 0x7fc00000u;
  return bitcast<f32>(bits);
}""",
    "floor_div": """fn floor_div(a: i32, b: i32) -> i32 {
  return a / b - select(0, 1, a % b != 0 && (a < 0) != (b < 0));
}""",
    "floor_mod": """fn floor_mod(a: i32, b: i32) -> i32 {
  return a % b + select(0, b, a % b != 0 && (a < 0) != (b < 0));
}""",
    "floor_div4": """fn floor_div4(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  let zero = vec4<i32>();
  return a / b - select(zero, zero + 1, (a % b != zero) & ((a < zero) != (b < zero)));
}""",
    "floor_mod4": """fn floor_mod4(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
  let zero = vec4<i32>();
  return a % b + select(zero, b, (a % b != zero) & ((a < zero) != (b < zero)));
}""",
}


def kernel_source(kernel: Kernel, name: str) -> str:
    """The kernel's variables and its entry point `name`, for `module_source`."""
    return _Printer(legalise(kernel), name).source()


def module_source(sources: Mapping[str, str]) -> str:
    """One shader module of kernels by name, after the extensions and helpers that they use."""
    text = "\n\n".join(sources.values())
    helpers = [body for name, body in _HELPERS.items() if f"{name}(" in text]
    enable = ["enable f16;"] if "f16" in text else []
    return "\n\n".join([*enable, *helpers, text]) + "\n"


def type_name(dtype: DType) -> str:
    """`f32`, `vec4<f32>`, …. Raises `ValueError` for what WGSL can't hold."""
    if dtype.name not in _TYPES or dtype.lanes not in (1, 2, 3, 4):
        raise ValueError(f"WGSL has no type for {dtype!r}: the schedule must avoid it")
    base = _TYPES[dtype.name]
    return base if dtype.lanes == 1 else f"vec{dtype.lanes}<{base}>"


class _Printer:
    """Prints one kernel."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.vectors = vector_buffers(kernel)
        self.kernel = replace(kernel, body=in_vectors(kernel.body, self.vectors))
        self.assigned = {s.var for s in statements(kernel.body) if isinstance(s, Assign)}
        self.name = name
        self.names = Names()
        self.lines: list[str] = []
        self.depth = 1
        self.temps: dict[Expr, str] = {}
        self.counter = 0
        self.bound: frozenset[Var] = frozenset()

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def source(self) -> str:
        declarations = [
            self._declaration(b, f"@group(0) @binding({i}) var<storage, {mode}>")
            for i, (b, mode) in enumerate(zip(self.kernel.buffers, self._modes(), strict=True))
        ]
        if self.kernel.params:
            at = f"@group(0) @binding({len(self.kernel.buffers)}) var<uniform>"
            size = -(-len(self.kernel.params) // 4)
            declarations.append(f"{at} {self.name}_params: array<vec4<i32>, {size}>;")
        stores = [s.buffer for s in statements(self.kernel.body) if isinstance(s, Store)]
        shared = dict.fromkeys(b for b in stores if b.role == "workgroup")
        declarations.extend(self._declaration(b, "var<workgroup>") for b in shared)
        size_text = ", ".join(map(str, workgroup_size(self.kernel)))
        head = [
            f"@compute @workgroup_size({size_text})",
            f"fn {self.name}(",
            "  @builtin(workgroup_id) group: vec3<u32>,",
            "  @builtin(local_invocation_id) local: vec3<u32>,",
            ") {",
        ]
        self._entry()
        return "\n".join([*declarations, *head, *self.lines, "}"])

    def _modes(self) -> list[str]:
        return ["read" if a == "read" else "read_write" for a in self.kernel.access]

    def _declaration(self, b: Buffer, how: str) -> str:
        lanes = 4 if b in self.vectors else 1
        count = ""
        if b.role == "workgroup":
            assert isinstance(b.size, Const), "workgroup memory has a fixed size"
            count = f", {int(b.size.value) // lanes}"
        return f"{how} {self._buffer(b)}: array<{type_name(b.dtype.vector(lanes))}{count}>;"

    def _buffer(self, b: Buffer) -> str:
        return f"{self.name}_{self.names.buffer(b)}"

    def _entry(self) -> None:
        for i, param in enumerate(self.kernel.params):
            self.line(
                f"let {self.names.var(param)} = {self.name}_params[{i // 4}].{'xyzw'[i % 4]};"
            )
        for loop in self.kernel.loops:
            place, axis = loop.binding.split(".")
            source = "group" if place == "workgroup" else "local"
            self.line(f"let {self.names.var(loop.var)} = i32({source}.{axis});")
        self.bound = frozenset(loop.var for loop in self.kernel.loops)
        self.block(self.kernel.body)

    # statements -----------------------------------------------------------------------------------

    def block(self, body: Sequence[Stmt]) -> None:
        """Statements in a scope of their own, after what they share: index arithmetic, mostly."""
        outer = dict(self.temps), self.bound
        self._share(body)
        for i, s in enumerate(body):
            inner = dict(self.temps)
            self.statement(s)
            self.temps = inner
            if isinstance(s, Declare) and s.var.extent is not None:
                self.bound |= {s.var}
                self._share(body[i + 1 :])
        self.temps, self.bound = outer

    def _share(self, body: Sequence[Stmt]) -> None:
        roots = [e for s in statements(body) for e in expressions(s)]
        self._bind(roots, invariant=True)

    def statement(self, s: Stmt) -> None:
        before = dict(self.temps)
        self._bind(expressions(s), invariant=False)
        match s:
            case Declare(var, value):
                how = "var" if var in self.assigned else "let"
                self.line(f"{how} {self.names.var(var)} = {self.expr(value)};")
            case Assign(var, value):
                self._assign(var, value)
            case Store(buffer, offset, value, count):
                self._store(buffer, offset, value, count)
            case For():
                self._for(s, before)
            case If(condition, body, orelse):
                self.line(f"if ({self.expr(condition)}) {{")
                self.temps = before  # the body may change what the condition read
                self._indented(body)
                if orelse:
                    self.line("} else {")
                    self._indented(orelse)
                self.line("}")
            case Barrier():
                self.line("workgroupBarrier();")

    def _assign(self, var: Var, value: Expr) -> None:
        name = self.names.var(var)
        if isinstance(value, Op) and value.name in ("add", "mul") and value.args[0] is var:
            self.line(f"{name} {_INFIX[value.name]}= {self.expr(value.args[1])};")
        else:
            self.line(f"{name} = {self.expr(value)};")

    def _for(self, s: For, before: dict[Expr, str]) -> None:
        name, start = self.names.var(s.var), self.expr(s.start)
        fixed = all(isinstance(n, Const | Dim | Op) or n in self.bound for n in walk(s.stop))
        stop = self.expr(s.stop) if fixed else self._named(s.stop)
        self.temps = before  # the body may change what the bounds read
        step = f"{name}++" if s.step == 1 else f"{name} += {s.step}"
        self.line(f"for (var {name}: i32 = {start}; {name} < {stop}; {step}) {{")
        bound, self.bound = self.bound, self.bound | {s.var}
        self._indented(s.body)
        self.bound = bound
        self.line("}")

    def _indented(self, body: Sequence[Stmt]) -> None:
        self.depth += 1
        self.block(body)
        self.depth -= 1

    def _store(self, buffer: Buffer, offset: Expr, value: Expr, count: Expr | None) -> None:
        name = self._buffer(buffer)
        lanes = value.dtype.lanes
        if lanes == 1 or buffer in self.vectors:
            self.line(f"{name}[{self.expr(offset)}] = {self.expr(value)};")
            return
        at, what = self._named(offset), self._named(value)
        limit = None if count is None else self._named(count)
        for i in range(lanes):
            text = f"{name}[{at} + {i}] = {what}.{'xyzw'[i]};"
            self.line(text if limit is None else f"if ({i} < {limit}) {{ {text} }}")

    def _bind(self, roots: Sequence[Expr], *, invariant: bool) -> None:
        """Temporaries for what is used more than once, operands first.

        `invariant`: only what no statement changes and whose variables are known here.
        """
        nodes = list(walk(*roots))
        uses: Counter[Expr] = Counter(a for node in nodes for a in node.args)
        uses.update(roots)
        fixed: dict[Expr, bool] = {}
        for node in nodes:
            known = isinstance(node, Const | Dim | Op) or node in self.bound
            fixed[node] = known and all(fixed[a] for a in node.args)
            repeated = uses[node] > 1 and not _trivial(node) and node not in self.temps
            if repeated and (fixed[node] or not invariant):
                self._named(node)

    def _named(self, e: Expr) -> str:
        """A name or literal for `e`, in a new temporary if need be."""
        text = self.expr(e)
        constant = isinstance(e, Const | Dim) or e in self.bound
        if (constant and e.dtype.lanes == 1) or e in self.temps:
            return text
        name = f"t{self.counter}"
        self.counter += 1
        self.line(f"let {name} = {text};")
        self.temps[e] = name
        return name

    # expressions ----------------------------------------------------------------------------------

    def expr(self, e: Expr) -> str:
        if e in self.temps:
            return self.temps[e]
        if isinstance(e, Const):
            return _literal(e)
        if isinstance(e, Var):
            return self.names.var(e)
        if isinstance(e, Read):
            return self._read(e)
        assert isinstance(e, Op), e
        return self._operation(e)

    def _read(self, e: Read) -> str:
        name, offset, lanes = self._buffer(e.buffer), e.args[0], e.dtype.lanes
        if lanes == 1 or e.buffer in self.vectors:
            return f"{name}[{self.expr(offset)}]"
        at = self._named(offset)
        parts = ", ".join(f"{name}[{at} + {i}]" for i in range(lanes))
        return f"{type_name(e.dtype)}({parts})"

    def _operation(self, e: Op) -> str:
        name, kind = e.name, type_name(e.dtype)
        if name in ("floordiv", "mod"):
            return self._divide(e)
        if name.startswith("fold_"):
            return self._fold(e)
        if name in _SCALAR_SIDE:
            left, right = self._sides(e)
            return f"({left} {_INFIX[name]} {right})"
        if name in ("shl", "shr"):
            shift = _shift(e.args[1], self.expr(e.args[1]))
            return f"({self.expr(e.args[0])} {'<<' if name == 'shl' else '>>'} {shift})"
        args = [self.expr(a) for a in e.args]
        if name in _INFIX:
            return f"({args[0]} {_INFIX[name]} {args[1]})"
        if name in _PREFIX:
            return f"({_PREFIX[name]}{args[0]})"
        if name in ("and", "or"):
            symbol = "&" if name == "and" else "|"
            return f"({args[0]} {symbol * (2 if e.dtype.lanes == 1 else 1)} {args[1]})"
        if name == "select":
            return f"select({args[2]}, {args[1]}, {args[0]})"
        if name in ("cast", "splat", "vector"):
            return f"{kind}({', '.join(args)})"
        if name == "bitcast":
            return _bitcast(e, kind, args[0])
        if name == "half":
            return self._half(e)
        if name == "lane":
            which = e.args[1]
            if isinstance(which, Const):
                return f"{args[0]}.{'xyzw'[int(which.value)]}"
            return f"{args[0]}[{args[1]}]"
        if name in _CALLS:
            return f"{_CALLS[name]}({', '.join(args)})"
        raise ValueError(f"WGSL has no {name} of {e.dtype!r}: targets/webgpu.py must expand it")

    def _sides(self, e: Op) -> tuple[str, str]:
        """The operands; one that is the same in every lane stays a scalar beside a vector."""
        wide = [a for a in e.args if not _uniform(a)]
        if e.dtype.lanes == 1 or len(wide) != 1 or not e.dtype.is_float:
            return self.expr(e.args[0]), self.expr(e.args[1])
        left, right = (self.expr(_uniform(a) or a) for a in e.args)
        return left, right

    def _divide(self, e: Op) -> str:
        """Division rounds to zero in WGSL: the same as downwards where nothing is negative."""
        if e.dtype.lanes not in (1, 4) or e.dtype.is_float:
            raise ValueError(f"WGSL has no {e.name} of {e.dtype!r}")
        a, b = e.args
        left, right = self.expr(a), self.expr(b)
        if e.dtype.scalar != I32 or (always_nonneg(poly(a)) and always_nonneg(poly(b))):
            width = int(b.value) if isinstance(b, Const) else 0
            if width > 0 and width & (width - 1) == 0:  # signed division by a power of two is slow
                bits = f"{width.bit_length() - 1}u"
                if e.dtype.lanes > 1:
                    bits = f"vec{e.dtype.lanes}<u32>({bits})"
                mask = self.expr(Const(width - 1, e.dtype))
                return f"({left} >> {bits})" if e.name == "floordiv" else f"({left} & {mask})"
            return f"({left} {'/' if e.name == 'floordiv' else '%'} {right})"
        helper = "floor_div" if e.name == "floordiv" else "floor_mod"
        lanes = "" if e.dtype.lanes == 1 else e.dtype.lanes
        return f"{helper}{lanes}({left}, {right})"

    def _half(self, e: Op) -> str:
        if e.dtype.lanes == 1:
            return f"unpack2x16float({self.expr(e.args[0])}).x"
        words = self._named(e.args[0])
        parts = (f"unpack2x16float({words}.{'xyzw'[i]}).x" for i in range(e.dtype.lanes))
        return f"{type_name(e.dtype)}({', '.join(parts)})"

    def _fold(self, e: Op) -> str:
        vector = self._named(e.args[0])
        parts = [f"{vector}.{'xyzw'[i]}" for i in range(e.args[0].dtype.lanes)]
        combine = e.name.removeprefix("fold_")
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            if combine in _INFIX:
                parts = [f"({a} {_INFIX[combine]} {b})" for a, b in pairs]
            else:
                parts = [f"{combine}({a}, {b})" for a, b in pairs]
        return parts[0]


def _bitcast(e: Op, kind: str, text: str) -> str:
    """Naga, Firefox' compiler of WGSL, has no bitcast from a word to two float16; compilers of
    drivers see that there and back is nothing.
    """
    if e.dtype == F16.vector(2):
        return f"{kind}(unpack2x16float({text}))"
    return f"bitcast<{kind}>({text})"


def _trivial(e: Expr) -> bool:
    """Cheaper to write again than to name."""
    if isinstance(e, Const | Var):
        return True
    small = isinstance(e, Op) and e.name in ("add", "sub", "splat", "lane", "cast", "neg")
    return small and all(isinstance(a, Const | Var) for a in e.args)


def _uniform(e: Expr) -> Expr | None:
    """The scalar that every lane of `e` holds, if that is so."""
    if isinstance(e, Op) and e.name == "splat" and e.args[0].dtype.lanes == 1:
        return e.args[0]
    if isinstance(e, Const) and e.dtype.lanes > 1:
        return Const(e.value, e.dtype.scalar)
    return None


def _shift(amount: Expr, text: str) -> str:
    unsigned = DType("uint32", 4, "u", amount.dtype.lanes)
    if isinstance(amount, Const):
        return _literal(Const(amount.value, unsigned))
    return f"{type_name(unsigned)}({text})"


def _literal(e: Const) -> str:
    if e.dtype.lanes > 1:
        return f"{type_name(e.dtype)}({_literal(Const(e.value, e.dtype.scalar))})"
    if e.dtype.kind == "b":
        return "true" if e.value else "false"
    if e.dtype.is_int:
        text = "i32(-2147483648)" if e.value == -(2**31) else str(e.value)
        return f"{text}u" if e.dtype.kind == "u" else text
    value = float(np.float32(e.value))
    if isnan(value):
        text = "not_a_number()"
    elif isinf(value):
        text = "infinity()" if value > 0 else "(-infinity())"
    else:
        # the largest floats rounded to few digits would be beyond what a float32 holds
        digits = str(np.float32(value)) if abs(value) < 3e38 else repr(value)
        return digits + ("h" if e.dtype.bytes == 2 else "f")
    return f"f16({text})" if e.dtype.bytes == 2 else text
