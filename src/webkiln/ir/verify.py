"""What makes an expression, a program and a kernel legal, as tables of laws.

A pass that breaks a law is caught right after it ran, by the computation and the node that it got
wrong, instead of by wrong numbers in a browser. The laws are cheap: all run in every build.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

from webkiln.errors import InternalError
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import F32, I32, U32, DType
from webkiln.ir.expr import Const, Dim, Expr, Load, Op, Read, Reduce, Var, free_vars, walk
from webkiln.ir.program import Compute, Kernel, Program
from webkiln.ir.simplify import simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Once, Stmt, Store

__all__ = ["verify_expr", "verify_kernel", "verify_program"]

Law = tuple[str, Callable[..., bool]]


def _index(e: Expr) -> bool:
    return e.dtype == I32


def _size(dtype: DType) -> int:
    return dtype.bytes * dtype.lanes


def _words(e: Expr) -> DType:
    return U32.vector(e.dtype.lanes)


def _same(e: Expr) -> bool:
    return all(a.dtype == e.dtype for a in e.args)


def _fits(e: Const) -> bool:
    if e.dtype.kind == "b":
        return isinstance(e.value, bool)
    return isinstance(e.value, float if e.dtype.is_float else int)


_NUMBERS = "its operands and it are of one type"
_BINARY: Law = (_NUMBERS, lambda e: len(e.args) == 2 and _same(e))
_UNARY: Law = (_NUMBERS, lambda e: len(e.args) == 1 and _same(e))
_BITS: Law = ("its operands and it are of one integer type", lambda e: _same(e) and e.dtype.is_int)
_COMPARISON: Law = (
    "it compares two of one type, lane by lane",
    lambda e: (
        len(e.args) == 2
        and e.args[0].dtype == e.args[1].dtype
        and (e.dtype.kind, e.dtype.lanes) == ("b", e.args[0].dtype.lanes)
    ),
)
_TEST: Law = (
    "it tests a float, lane by lane",
    lambda e: (
        e.args[0].dtype.is_float and (e.dtype.kind, e.dtype.lanes) == ("b", e.args[0].dtype.lanes)
    ),
)
_LOGIC: Law = ("its operands and it are conditions", lambda e: _same(e) and e.dtype.kind == "b")
_FOLD: Law = (
    "it folds a vector into its element type",
    lambda e: e.args[0].dtype.lanes > 1 and e.args[0].dtype.scalar == e.dtype,
)


def _operations(law: Law, names: str) -> dict[str, Law]:
    return dict.fromkeys(names.split(), law)


#: the law of each operation; one that is not here does not exist.
OPERATIONS: dict[str, Law] = {
    **_operations(_BINARY, "add sub mul div floordiv mod truncdiv fmod pow atan2 min max"),
    **_operations(_UNARY, "neg abs exp log sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh"),
    **_operations(_UNARY, "asinh acosh atanh erf floor ceil round trunc sign"),
    **_operations(_UNARY, "coarse8 coarse16"),
    **_operations(_BITS, "bitand bitor bitxor bitnot shl shr"),
    **_operations(_COMPARISON, "lt le eq ne"),
    **_operations(_TEST, "isnan isinf"),
    **_operations(_LOGIC, "and or not"),
    **_operations(_FOLD, "fold_add fold_mul fold_max fold_min"),
    "half": (
        "it reads the float16 in the lower half of each word as a float32",
        lambda e: (e.args[0].dtype, e.dtype) == (_words(e), F32.vector(e.dtype.lanes)),
    ),
    "select": (
        "it chooses between two of its type by one condition, or one a lane",
        lambda e: (
            e.args[0].dtype.kind == "b"
            and e.args[0].dtype.lanes in (1, e.dtype.lanes)
            and e.args[1].dtype == e.args[2].dtype == e.dtype
        ),
    ),
    "cast": ("it keeps its lanes", lambda e: e.args[0].dtype.lanes == e.dtype.lanes),
    "bitcast": (
        "it keeps its bytes",
        lambda e: _size(e.args[0].dtype) == _size(e.dtype),
    ),
    "dot2": (
        "it adds products of the halves of two int32 to a third",
        lambda e: len(e.args) == 3 and _same(e) and e.dtype.scalar == I32,
    ),
    "dot4": (
        "it adds products of the bytes of two int32 to a third",
        lambda e: len(e.args) == 3 and _same(e) and e.dtype.scalar == I32,
    ),
    "dot_planes": (
        "it adds products of two planes of bytes with a third to the halves of a vector",
        lambda e: (
            len(e.args) == 4
            and e.args[0].dtype == e.args[1].dtype == e.args[2].dtype
            and e.args[3].dtype == e.dtype == I32.vector(2 * e.args[0].dtype.lanes)
        ),
    ),
    "join_planes": (
        "it joins the halves of a vector: 256 times the first, plus the second",
        lambda e: e.args[0].dtype == I32.vector(2 * e.dtype.lanes) and e.dtype.scalar == I32,
    ),
    "splat": (
        "it repeats an element or a shorter vector",
        lambda e: (
            e.args[0].dtype.scalar == e.dtype.scalar
            and e.args[0].dtype.lanes < e.dtype.lanes
            and e.dtype.lanes % e.args[0].dtype.lanes == 0
        ),
    ),
    "vector": (
        "it joins elements of its type, one a lane",
        lambda e: (
            len(e.args) == e.dtype.lanes > 1 and all(a.dtype == e.dtype.scalar for a in e.args)
        ),
    ),
    "lane": (
        "it takes an element of a vector by its index",
        lambda e: e.args[0].dtype.scalar == e.dtype != e.args[0].dtype and _index(e.args[1]),
    ),
}

#: the laws of each other kind of node.
NODES: dict[type[Expr], tuple[Law, ...]] = {
    Const: (("its value is of its type", _fits),),
    Var: (("its extent is an index", lambda e: e.extent is None or _index(e.extent)),),
    Dim: (("its bound is positive", lambda e: e.max is None or e.max >= 1),),
    Load: (
        ("there is an index for each axis of its buffer", lambda e: len(e.args) == _rank(e.buffer)),
        ("its indices are int32", lambda e: all(map(_index, e.args))),
        ("it has its buffer's type", lambda e: e.dtype == e.buffer.dtype),
    ),
    Read: (
        ("its offset is one int32", lambda e: len(e.args) == 1 and _index(e.args[0])),
        ("it has its buffer's type", lambda e: e.dtype.scalar == e.buffer.dtype),
    ),
    Reduce: (
        ("it is a sum, prod, max or min", lambda e: e.kind in ("sum", "prod", "max", "min")),
        ("it has axes, each once", lambda e: 0 < len(set(e.axes)) == len(e.axes)),
        ("its axes have extents over the dims", lambda e: all(map(_bounded, e.axes))),
        ("its axes are its own", lambda e: not _bound_inside(e) & set(e.axes)),
        ("it has its body's type", lambda e: e.dtype == e.body.dtype and e.dtype.lanes == 1),
    ),
}


def _rank(buffer: Buffer) -> int:
    return len(buffer.shape)


def _bounded(v: Var) -> bool:
    return v.extent is not None and all(isinstance(u, Dim) for u in free_vars(v.extent))


def _bound_inside(e: Reduce) -> set[Var]:
    return {a for n in walk(e.body) if isinstance(n, Reduce) for a in n.axes}


def _broken(node: Expr) -> str | None:
    """The first law that `node` itself breaks."""
    if isinstance(node, Op):
        if node.name not in OPERATIONS:
            return "there is such an operation"
        laws: tuple[Law, ...] = (OPERATIONS[node.name],)
    else:
        laws = NODES[type(node)]
    return next((what for what, holds in laws if not holds(node)), None)


@dataclass
class _Verifier:
    """Raises for the first broken law; `after` is the stage of the compiler, `where` the place."""

    after: str
    where: str = ""
    legal: set[Expr] = field(default_factory=set)  # nodes are shared: each is looked at once

    def law(self, holds: bool, what: str, node: object) -> None:
        if holds:
            return
        place = f"in {self.where}, " if self.where else ""
        raise InternalError(
            f"webkiln made an error in the stage “{self.after}”: {place}`{node!r:.400}` "
            f"breaks the law that {what}",
            hint="it is no error of the model's; please report it with this message",
        )

    def expr(self, *roots: Expr) -> None:
        for node in walk(*roots):
            self.node(node)

    def node(self, node: Expr) -> None:
        if node not in self.legal:
            broken = _broken(node)
            self.law(broken is None, broken or "", node)
            self.legal.add(node)


def verify_expr(e: Expr, after: str = "") -> None:
    """Raise `InternalError` when a node of `e` breaks a law."""
    _Verifier(after).expr(e)


# --- programs -------------------------------------------------------------------------------------


def verify_program(program: Program, after: str) -> None:
    """Raise `InternalError` for what is wrong in `program`, which stage `after` made."""
    v = _Verifier(after)
    dims = frozenset[Var](program.dims)
    known: set[Buffer] = {*program.inputs, *program.constants, *program.states}
    for buffer in known:
        _verify_buffer(v, buffer, dims)
    for buffer in program.states:
        v.law(buffer.role == "state", "what lives between runs says so in its role", buffer)
    for buffer, data in program.constants.items():
        fixed = tuple(s.value if isinstance(s, Const) else None for s in buffer.shape)
        v.law(fixed == data.shape, "a constant has its data's shape", buffer)
    written: set[Buffer] = set()
    for compute in program.computes:
        v.where = f"{compute.out.name} ({compute.label})"
        v.law(compute.out not in written, "a buffer is written once", compute.out)
        _verify_compute(v, compute, dims, known)
        written.add(compute.out)
        known.add(compute.out)
    v.where = ""
    computed = {c.out for c in program.computes}
    for out in program.outputs:
        v.law(out in computed and out.role == "output", "an output is computed", out)


def _verify_buffer(v: _Verifier, buffer: Buffer, dims: frozenset[Var]) -> None:
    v.expr(*buffer.shape)
    used = frozenset[Var]().union(*map(free_vars, buffer.shape))
    v.law(used <= dims, "a shape depends on the program's dims alone", buffer)
    axes = {p.axis for p in buffer.layout.parts}
    v.law(axes == set(range(len(buffer.shape))), "a layout places every axis", buffer)


def _verify_compute(
    v: _Verifier, compute: Compute, dims: frozenset[Var], known: set[Buffer]
) -> None:
    out, axes, value = compute.out, compute.axes, compute.value
    v.law(out.role in ("output", "temporary", "state"), "inputs and constants are not written", out)
    v.law(out.role != "state" or out in known, "state is the program's own", out)
    v.law(compute.at is None or out.role == "state", "only state is updated in place", out)
    _verify_buffer(v, out, dims)
    v.law(len(set(axes)) == len(axes) == _rank(out), "it has an axis for each of its shape", axes)
    for index in compute.at or ():
        v.law(_index(index), "an index is one int32", index)
    for axis, size in zip(axes, compute.extents, strict=True):
        extent = axis.extent
        equal = extent is not None and (extent is size or simplify(extent) is simplify(size))
        v.law(equal, "an axis runs over its extent of the shape", axis)
    v.expr(*compute.roots)
    v.law(value.dtype == out.dtype, f"it computes {out.dtype}, as its buffer holds", value)
    stray = frozenset[Var]().union(*map(free_vars, compute.roots)) - dims - set(axes)
    v.law(not stray, "a value depends on its axes and the dims alone", sorted(map(repr, stray)))
    for node in walk(*compute.roots):
        if isinstance(node, Load):
            v.law(node.buffer in known, "what is loaded has been computed before", node)
        elif isinstance(node, Reduce):
            v.law(not set(node.axes) & set(axes), "a reduction's axes are its own", node)
        else:
            v.law(not isinstance(node, Read), "a computation has Loads, no Reads", node)


# --- kernels --------------------------------------------------------------------------------------


def verify_kernel(kernel: Kernel, after: str, label: str = "") -> None:
    """Raise `InternalError` for what is wrong in `kernel`, which stage `after` made for `label`."""
    v = _KernelVerifier(after, f"the {kernel.kind} kernel of {label}", kernel=kernel)
    v.run()
    for other, name in ((kernel.half, "in float16"), (kernel.paired, "in pairs")):
        if other is not None:
            sides = (_signature(kernel), _signature(other))
            v.law(sides[0] == sides[1], f"its form {name} is called as it is", sides)
            verify_kernel(other, after, f"{label}, {name}")


def _signature(kernel: Kernel) -> tuple[object, ...]:
    """What a caller sees of a kernel."""
    loops = [(loop.binding, loop.extent) for loop in kernel.loops]
    return kernel.buffers, kernel.access, kernel.params, loops


@dataclass
class _KernelVerifier(_Verifier):
    kernel: Kernel = field(kw_only=True)
    once: bool = False  # inside what a thread does once

    def run(self) -> None:
        kernel = self.kernel
        once = len(set(kernel.buffers)) == len(kernel.buffers) == len(kernel.access)
        self.law(once, "each argument is given once, with its access", kernel.buffers)
        access = dict(zip(kernel.buffers, kernel.access, strict=True))
        self.readable = {b for b, a in access.items() if a != "write"}
        self.writable = {b for b, a in access.items() if a != "read"}
        params = frozenset[Var](kernel.params)
        scope = set(params)
        self.uniform = set(params)  # the same for all invocations of a workgroup
        for loop in kernel.loops:
            self._evaluate(params, loop.extent)
            self._index(loop.extent)
            self.law(loop.var not in scope, "a loop has a variable of its own", loop.var)
            scope.add(loop.var)
            if loop.binding.startswith("workgroup"):
                self.uniform.add(loop.var)
        head = list(itertools.takewhile(lambda s: isinstance(s, Once), kernel.body))
        self.once = True
        for s in head:
            assert isinstance(s, Once)
            self._block(s.body, params, together=False)
        self.once = False
        self._block(kernel.body[len(head) :], scope, together=True)

    def _block(self, body: Sequence[Stmt], outer: Iterable[Var], together: bool) -> None:
        scope = set(outer)
        for s in body:
            match s:
                case Declare(var, value):
                    self._evaluate(scope, value)
                    self.law(var not in scope, "a register is declared once", var)
                    self._typed(var, value.dtype)
                    scope.add(var)
                    if self._is_uniform(value):
                        self.uniform.add(var)
                case Assign(var, value):
                    self._evaluate(scope, value)
                    self.law(var in scope, "a register is declared before it is set", var)
                    self._typed(var, value.dtype)
                    if not self._is_uniform(value):
                        self.uniform.discard(var)
                case Store():
                    self._store(s, scope)
                case For(var, start, stop, inner, step):
                    self._evaluate(scope, start, stop)
                    self._index(start, stop)
                    self.law(var not in scope, "a loop has a variable of its own", var)
                    self.law(step >= 1, "a loop steps forward", var)
                    alike = self._is_uniform(start, stop)
                    if alike:
                        self.uniform.add(var)
                    self._block(inner, {*scope, var}, together and alike)
                case If(condition, then, orelse):
                    self._evaluate(scope, condition)
                    single = condition.dtype.kind == "b" and condition.dtype.lanes == 1
                    self.law(single, "it branches on one condition", condition)
                    alike = together and self._is_uniform(condition)
                    self._block(then, scope, alike)
                    self._block(orelse, scope, alike)
                case Once():
                    self.law(False, "what is done once comes first", s)
                case Barrier():
                    self.law(together, "all invocations meet at a barrier", s)

    def _is_uniform(self, *roots: Expr) -> bool:
        nodes = list(walk(*roots))
        variables = {n for n in nodes if isinstance(n, Var)}
        read = {n.buffer for n in nodes if isinstance(n, Read)}
        return variables <= self.uniform and not read & self.writable and read <= self.readable

    def _store(self, s: Store, scope: set[Var]) -> None:
        extra = () if s.count is None else (s.count,)
        self._evaluate(scope, s.offset, s.value, *extra)
        self._index(s.offset, *extra)
        allowed = s.buffer in self.writable or s.buffer.role == "workgroup"
        self.law(
            not self.once or s.buffer.role == "workgroup",
            "what is done once writes memory of the task",
            s.buffer,
        )
        self.law(allowed, "a buffer that is written says so in its access", s.buffer)
        self.law(s.value.dtype.scalar == s.buffer.dtype, "a buffer holds its type", s.value)

    def _evaluate(self, scope: Container[Var], *roots: Expr) -> None:
        for node in walk(*roots):
            if isinstance(node, Var):
                self.law(node in scope, "a variable is declared before it is used", node)
            self.node(node)

    def node(self, node: Expr) -> None:
        if isinstance(node, Read) and node not in self.legal:
            allowed = node.buffer in self.readable or node.buffer.role == "workgroup"
            self.law(allowed, "a buffer that is read says so in its access", node)
        self.law(not isinstance(node, Load | Reduce), "a kernel has Reads, no Loads", node)
        super().node(node)

    def _index(self, *roots: Expr) -> None:
        for e in roots:
            self.law(_index(e), "an offset, a count, a bound is one int32", e)

    def _typed(self, var: Var, dtype: DType) -> None:
        self.law(var.dtype == dtype, f"a register holds its type {var.dtype}, not {dtype}", var)
