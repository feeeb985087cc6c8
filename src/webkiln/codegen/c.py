"""Kernels as C with clang's vector types, in which `a + b` is the same for scalars and vectors.

One module a bundle: the kernels, each `static void k(arguments, int begin, int end)` over a range
of its tasks, and the two functions that wasm_runtime.h asks for. The same text compiles for every
variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from webkiln.ir.buffer import Buffer
from webkiln.codegen.cursors import Cursor, cursors
from webkiln.codegen.names import Names, temporaries
from webkiln.ir.dtypes import BOOL, DType
from webkiln.ir.expr import Const, Dim, Expr, Op, Read, Var, walk
from webkiln.ir.program import Kernel
from webkiln.ir.simplify import always_nonneg, poly, simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Stmt, Store
from webkiln.schedule.kernel import expressions, map_expressions, statements
from webkiln.targets.math import EXPANDED, expand

__all__ = ["NATIVE", "StepCall", "kernel_source", "module_source"]

_TYPES = {
    "float32": "f32",
    "float16": "f16",
    "int32": "i32",
    "uint32": "u32",
    "int8": "i8",
    "uint8": "u8",
    "bool": "i32",
}
_C = {
    "f32": "float",
    "f16": "_Float16",
    "i32": "int",
    "u32": "unsigned",
    "i8": "signed char",
    "u8": "unsigned char",
}
_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "bitand": "&",
    "bitor": "|",
    "bitxor": "^",
    "shl": "<<",
    "shr": ">>",
}
_PREFIX = {"neg": "-", "bitnot": "~"}
#: what WebAssembly has as an instruction; all else is expanded into IR.
NATIVE = frozenset({"sqrt", "floor", "ceil", "trunc", "round", "abs", "neg"})
_BUILTIN = {
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
    "abs": "abs",
}


@dataclass(frozen=True, slots=True)
class StepCall:
    """One step of a program as the driver calls it: kernel `name` on `addresses` with `params`."""

    kernel: Kernel
    name: str
    addresses: Sequence[int]
    params: Sequence[Expr]


def type_name(dtype: DType) -> str:
    """`f32`, `f32x8`, …; conditions are int32, their vectors masks."""
    base = _TYPES[dtype.name]
    return base if dtype.lanes == 1 else f"{base}x{dtype.lanes}"


class _Printer:
    """Prints one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.names = Names()
        self.lines: list[str] = []
        self.depth = 1
        self.temps: dict[Expr, str] = {}
        self.places: dict[Read, tuple[str, int]] = {}  # what a cursor serves
        self.counter = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def source(self, name: str) -> str:
        kernel = self.kernel
        arguments = [
            f"{'const ' if access == 'read' else ''}{type_name(b.dtype)} *restrict {self.names.buffer(b)}"
            for b, access in zip(kernel.buffers, kernel.access, strict=True)
        ]
        arguments += [f"int {self.names.var(p)}" for p in kernel.params]
        self._tasks()
        head = f"static void {name}({', '.join([*arguments, 'int begin', 'int end'])}) {{"
        return "\n".join([head, *self.lines, "}"])

    def _tasks(self) -> None:
        """The parallel loops as one range of tasks, decoded into their variables."""
        self.line("for (int task = begin; task < end; task++) {")
        self.depth += 1
        rest = "task"
        for i, loop in enumerate(reversed(self.kernel.loops)):
            name = self.names.var(loop.var)
            if i == len(self.kernel.loops) - 1:
                self.line(f"const int {name} = {rest};")
                break
            extent = self.expr(loop.extent)
            self.line(f"const int {name} = {rest} % {extent}, rest{i} = {rest} / {extent};")
            rest = f"rest{i}"
        self.block(self.kernel.body)
        self.depth -= 1
        self.line("}")

    # statements -----------------------------------------------------------------------------------

    def block(self, body: Sequence[Stmt]) -> None:
        for s in body:
            self.statement(s)

    def statement(self, s: Stmt) -> None:
        outer = dict(self.temps)
        if not isinstance(s, For):  # a loop's bounds are simple, and print inside its head
            self._bind(expressions(s))
        match s:
            case Declare(var, value):
                self.line(f"{type_name(var.dtype)} {self.names.var(var)} = {self.typed(value)};")
            case Assign(var, value):
                self.line(f"{self.names.var(var)} = {self.typed(value)};")
            case Store(buffer, offset, value, count):
                self._store(Store(buffer, offset, value, count))
            case For():
                self._loop(s)
            case If(condition, body, orelse):
                self.line(f"if ({self.expr(condition)}) {{")
                self._indented(body)
                if orelse:
                    self.line("} else {")
                    self._indented(orelse)
                self.line("}")
            case Barrier():
                raise AssertionError("a wasm kernel has no barrier inside")
        self.temps = outer

    def _loop(self, s: For) -> None:
        name = self.names.var(s.var)
        advance = f"{name}++" if s.step == 1 else f"{name} += {s.step}"
        first, last = self.expr(s.start), self.expr(s.stop)
        walking = cursors(s) or []
        pointers = [self._cursor(c) for c in walking]
        self.line(f"for (int {name} = {first}; {name} < {last}; {advance}) {{")
        self._indented(s.body)
        if walking:
            moves = [
                f"{p} += {self.expr(c.step)};" for p, c in zip(pointers, walking, strict=True)
            ]
            self.line("  " + " ".join(moves))
            # keeps clang from turning the pointers back into indices, and iterations from mixing
            pinned = ", ".join(f'"+r"({p})' for p in pointers)
            self.line(f'  __asm__ volatile("" : {pinned});')
        self.line("}")
        for c in walking:
            for read in c.reads:
                del self.places[read]

    def _cursor(self, cursor: Cursor) -> str:
        """Declares the pointer; its Reads print relative to it until the loop ends."""
        name = f"p{self.counter}"
        self.counter += 1
        kind = type_name(cursor.buffer.dtype)
        start = f"{self.names.buffer(cursor.buffer)} + {self.expr(cursor.start)}"
        self.line(f"const {kind} *{name} = {start};")
        for read, distance in cursor.reads.items():
            self.places[read] = name, distance
        return name

    def _indented(self, body: Sequence[Stmt]) -> None:
        self.depth += 1
        self.block(body)
        self.depth -= 1

    def _store(self, s: Store) -> None:
        pointer, fixed = self._place(s.buffer, s.offset)
        where = f"{pointer} + {fixed}"
        value, kind = self.typed(s.value), type_name(s.value.dtype)
        if s.count is not None:
            self.line(f"store_{kind}({where}, {value}, {self.expr(s.count)});")
        elif s.value.dtype.lanes == 1:
            self.line(f"{pointer}[{fixed}] = {value};")
        else:
            self.line(f"*({kind} *)({where}) = {value};")

    def _bind(self, roots: Sequence[Expr]) -> None:
        """Temporaries for what `roots` use more than once."""
        for node in temporaries(roots):
            if node in self.temps:
                continue
            text = self.expr(node)
            name = f"s{self.counter}"
            self.counter += 1
            self.line(f"const {type_name(node.dtype)} {name} = {text};")
            self.temps[node] = name

    # expressions ----------------------------------------------------------------------------------

    def typed(self, e: Expr) -> str:
        return self.expr(e)

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
        pointer, fixed = self.places.get(e) or self._place(e.buffer, e.args[0])
        if e.dtype.lanes == 1:
            return f"{pointer}[{fixed}]"
        return f"*(const {type_name(e.dtype)} *)({pointer} + {fixed})"

    def _place(self, buffer: Buffer, offset: Expr) -> tuple[str, int]:
        """A pointer and a constant index, which clang folds into the access (a sum it may not)."""
        name, fixed = self.names.buffer(buffer), 0
        last = offset.args[-1] if offset.args else offset
        if isinstance(offset, Op) and offset.name == "add" and isinstance(last, Const):
            offset, fixed = offset.args[0], int(last.value)
        if isinstance(offset, Const):
            return name, int(offset.value) + fixed
        return f"({name} + {self.expr(offset)})", fixed

    def _operation(self, e: Op) -> str:
        args = [self.expr(a) for a in e.args]
        kind, wide = type_name(e.dtype), e.dtype.lanes > 1
        name = e.name
        if name in _INFIX and not (name == "div" and e.dtype.is_int):
            return f"({args[0]} {_INFIX[name]} {args[1]})"
        if name in _PREFIX:
            return f"({_PREFIX[name]}{args[0]})"
        if name in ("and", "or", "not"):
            symbol = {
                "and": "&" if wide else "&&",
                "or": "|" if wide else "||",
                "not": "~" if wide else "!",
            }
            return (
                f"({symbol[name]}{args[0]})"
                if name == "not"
                else f"({args[0]} {symbol[name]} {args[1]})"
            )
        if name in ("floordiv", "mod"):
            plain = (
                all(always_nonneg(poly(a)) for a in e.args)
                if not wide and e.dtype.kind == "i"
                else False
            )
            if plain:
                return f"({args[0]} {'/' if name == 'floordiv' else '%'} {args[1]})"
            return f"{name}_{kind}({args[0]}, {args[1]})"
        if name == "select":
            return self._select(e, args)
        if name == "cast":
            return self._cast(e, args[0])
        if name == "bitcast":
            return (
                f"(({kind})({args[0]}))"
                if wide
                else f"bits_{type_name(e.args[0].dtype)}_{kind}({args[0]})"
            )
        if name == "splat":
            return f"splat_{kind}({args[0]})"
        if name.startswith("fold_"):
            return f"{name}_{type_name(e.args[0].dtype)}({args[0]})"
        if name in ("min", "max"):
            return f"{name}_{kind}({args[0]}, {args[1]})"
        if name in _BUILTIN:
            return f"__builtin_elementwise_{_BUILTIN[name]}({args[0]})"
        if name == "isnan":
            return f"({args[0]} != {args[0]})"
        return f"{name}_{kind}({', '.join(args)})"

    def _select(self, e: Op, args: list[str]) -> str:
        if e.args[0].dtype.lanes == 1:
            return f"({args[0]} ? {args[1]} : {args[2]})"
        return f"select_{type_name(e.dtype)}({args[0]}, {args[1]}, {args[2]})"

    def _cast(self, e: Op, value: str) -> str:
        source, wide = e.args[0].dtype, e.dtype.lanes > 1
        kind = type_name(e.dtype)
        if not wide:
            return f"(({kind})({value}))"
        if source.kind == "b":  # a mask's lanes are 0 or -1
            one = f"({value} & 1)"
            return one if e.dtype.is_int else f"__builtin_convertvector({one}, {kind})"
        return f"__builtin_convertvector({value}, {kind})"


def _literal(e: Const) -> str:
    kind = type_name(e.dtype)
    value = e.value
    if e.dtype.kind == "f":
        text = (
            '__builtin_nanf("")'
            if value != value
            else f"{'-' if value < 0 else ''}__builtin_inff()"
            if abs(value) == float("inf")
            else f"{float(value)!r}f"
        )
    else:
        text = "(-2147483647 - 1)" if value == -(2**31) else str(int(value))
        text += "u" if e.dtype.kind == "u" else ""
    return text if e.dtype.lanes == 1 else f"splat_{kind}({text})"


def legalise(kernel: Kernel) -> Kernel:
    """Functions without an instruction written out, at whatever width they ended up."""
    names = EXPANDED - NATIVE
    return replace(kernel, body=map_expressions(kernel.body, lambda e: expand(e, names)))


def kernel_source(kernel: Kernel, name: str) -> str:
    """The kernel as a C function called `name`."""
    return _Printer(legalise(kernel)).source(name)


# --- the module -----------------------------------------------------------------------------------


def module_source(
    kernels: Mapping[str, str],
    used: Sequence[Kernel],
    programs: Sequence[Sequence[StepCall]],
    dims: Sequence[Dim],
) -> str:
    """The whole module: prelude for the types that `used` kernels mention, the kernels, the driver."""
    parts = [
        '#include "wasm_runtime.h"',
        _prelude(used),
        *kernels.values(),
        _driver(programs, dims),
    ]
    return "\n\n".join(parts) + "\n"


def _prelude(kernels: Sequence[Kernel]) -> str:
    types: dict[DType, None] = {}
    for kernel in kernels:
        for s in statements(legalise(kernel).body):
            for node in walk(*expressions(s)):
                types.setdefault(node.dtype if node.dtype.kind != "b" else _mask(node.dtype))
        types.update(dict.fromkeys(b.dtype for b in kernel.buffers))
    scalars = [f"typedef {c} {name};" for name, c in _C.items() if name != "f16"]
    wide: dict[str, DType] = {}
    for t in types:
        if t.lanes > 1:
            wide.setdefault(type_name(t), t)
            mask = _mask(BOOL.vector(t.lanes))
            wide.setdefault(type_name(mask), mask)
    vectors = [
        _vector_helpers(t) for t in sorted(wide.values(), key=lambda t: (t.is_float, t.lanes))
    ]
    return "\n".join([*scalars, _SCALAR_HELPERS, *vectors])


def _mask(dtype: DType) -> DType:
    return DType("int32", 4, "i", dtype.lanes)


_SCALAR_HELPERS = """
static inline float max_f32(float a, float b) { return a < b ? b : a; }
static inline float min_f32(float a, float b) { return b < a ? b : a; }
static inline int max_i32(int a, int b) { return a < b ? b : a; }
static inline int min_i32(int a, int b) { return b < a ? b : a; }
static inline unsigned max_u32(unsigned a, unsigned b) { return a < b ? b : a; }
static inline unsigned min_u32(unsigned a, unsigned b) { return b < a ? b : a; }
static inline int truncdiv_i32(int a, int b) { return b == 0 ? 0 : b == -1 ? (int)(0u - (unsigned)a) : a / b; }
static inline unsigned truncdiv_u32(unsigned a, unsigned b) { return b == 0 ? 0 : a / b; }
static inline int fmod_i32(int a, int b) { return b == 0 || b == -1 ? 0 : a % b; }
static inline unsigned fmod_u32(unsigned a, unsigned b) { return b == 0 ? 0 : a % b; }
static inline int floordiv_i32(int a, int b) {
  int q = truncdiv_i32(a, b);
  return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}
static inline int mod_i32(int a, int b) {
  int r = fmod_i32(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static inline unsigned floordiv_u32(unsigned a, unsigned b) { return truncdiv_u32(a, b); }
static inline unsigned mod_u32(unsigned a, unsigned b) { return fmod_u32(a, b); }
static inline float mod_f32(float a, float b) { return a - b * __builtin_floorf(a / b); }
static inline int bits_f32_i32(float a) { return __builtin_bit_cast(int, a); }
static inline unsigned bits_f32_u32(float a) { return __builtin_bit_cast(unsigned, a); }
static inline float bits_i32_f32(int a) { return __builtin_bit_cast(float, a); }
static inline float bits_u32_f32(unsigned a) { return __builtin_bit_cast(float, a); }
static inline int bits_u32_i32(unsigned a) { return (int)a; }
static inline unsigned bits_i32_u32(int a) { return (unsigned)a; }
""".strip()


def _vector_helpers(t: DType) -> str:
    """A vector type and what C has no operator for: splat, select, min, max, folds, partial store."""
    kind, element = type_name(t), type_name(t.scalar)
    mask = type_name(_mask(t))
    lanes = t.lanes
    aligned = f"typedef {_C[element]} {kind} __attribute__((vector_size({lanes * t.bytes}), aligned({t.bytes})));"
    repeated = ", ".join(["x"] * lanes)
    out = [
        aligned,
        f"static inline {kind} splat_{kind}({element} x) {{ return ({kind}){{{repeated}}}; }}",
        f"static inline {kind} select_{kind}({mask} m, {kind} a, {kind} b) {{"
        f" return ({kind})((m & ({mask})a) | (~m & ({mask})b)); }}",
        *_extrema(t, kind, mask),
        f"static void store_{kind}({element} *p, {kind} v, int n) {{",
        f"  if (n >= {lanes}) *({kind} *)p = v;",
        f"  else for (int i = 0; i < n; i++) p[i] = v[i];",
        "}",
    ]
    for combine, text in (("add", "{} + {}"), ("mul", "{} * {}"), ("max", None), ("min", None)):
        out.append(
            f"static inline {element} fold_{combine}_{kind}({kind} v) {{ return {_fold(element, combine, text, lanes)}; }}"
        )
    if not t.is_float:
        for name in ("truncdiv", "fmod", "floordiv", "mod"):
            out.append(
                f"static inline {kind} {name}_{kind}({kind} a, {kind} b) {{ {kind} r;"
                f" for (int i = 0; i < {lanes}; i++) r[i] = {name}_{element}(a[i], b[i]); return r; }}"
            )
    return "\n".join(out)


def _extrema(t: DType, kind: str, mask: str) -> list[str]:
    """One instruction where the engine has relaxed SIMD, elsewhere a compare and a select."""
    out = []
    for name, test in (("max", "a < b"), ("min", "b < a")):
        head = f"static inline {kind} {name}_{kind}({kind} a, {kind} b)"
        chosen = f"{{ return select_{kind}(({mask})({test}), b, a); }}"
        if t.is_float:
            relaxed = f"{{ return __builtin_elementwise_{name}(a, b); }}"
            out += ["#ifdef __wasm_relaxed_simd__", f"{head} {relaxed}", "#else"]
            out += [f"{head} {chosen}", "#endif"]
        else:
            out.append(f"{head} {{ return __builtin_elementwise_{name}(a, b); }}")
    return out


def _fold(element: str, combine: str, text: str | None, lanes: int) -> str:
    """Lanes combined pairwise, half with half."""
    terms = [f"v[{i}]" for i in range(lanes)]
    while len(terms) > 1:
        half = len(terms) // 2
        pairs = zip(terms[:half], terms[half:], strict=True)
        terms = [
            f"({text.format(a, b)})" if text else f"{combine}_{element}({a}, {b})" for a, b in pairs
        ]
    return terms[0]


def _driver(programs: Sequence[Sequence[StepCall]], dims: Sequence[Dim]) -> str:
    """`webkiln_steps` and `webkiln_step`: which kernel, on which addresses, over which tasks."""
    counts = " : ".join(f"program == {i} ? {len(steps)}" for i, steps in enumerate(programs))
    lines = [_SHARE, "", f"int webkiln_steps(int program) {{ return {counts} : 0; }}", ""]
    lines.append("void webkiln_step(int program, int step, int thread, int threads) {")
    lines += [f"  const int d{i} = webkiln_dim({i});" for i in range(len(dims))]
    lines += [f"  (void)d{i};" for i in range(len(dims))]
    lines.append("  switch (program << 16 | step) {")
    names = {d: f"d{i}" for i, d in enumerate(dims)}
    for p, steps in enumerate(programs):
        for i, call in enumerate(steps):
            lines += _case(p << 16 | i, call, names)
    return "\n".join([*lines, "  }", "}"])


_SHARE = """
/* Where thread `thread`'s part of `tasks` begins. */
static inline int share(int tasks, int thread, int threads) { return (int)((long long)tasks * thread / threads); }
""".strip()


def _case(label: int, call: StepCall, dims: Mapping[Dim, str]) -> list[str]:
    tasks = Const(1, DType("int32", 4, "i"))
    total: Expr = tasks
    for loop in call.kernel.loops:
        total = total * loop.extent
    count = _plain(simplify(total), dims)
    arguments = [
        f"({type_name(b.dtype)} *){address}"
        for b, address in zip(call.kernel.buffers, call.addresses, strict=True)
    ]
    arguments += [_plain(p, dims) for p in call.params]
    return [
        f"  case {label}: {{",
        f"    const int tasks = {count};",
        f"    {call.name}({', '.join(arguments)}, share(tasks, thread, threads), share(tasks, thread + 1, threads));",
        "    break;",
        "  }",
    ]


def _plain(e: Expr, dims: Mapping[Dim, str]) -> str:
    """An integer expression over dims."""
    if isinstance(e, Const):
        return str(int(e.value))
    if isinstance(e, Dim):
        return dims[e]
    assert isinstance(e, Op)
    a, b = (_plain(x, dims) for x in e.args)
    if e.name in ("min", "max"):
        return f"{e.name}_i32({a}, {b})"
    symbol = {"add": "+", "sub": "-", "mul": "*", "floordiv": "/", "mod": "%"}[e.name]
    return f"({a} {symbol} {b})"
