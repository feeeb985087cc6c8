"""Kernels as C with clang's vector types, in which `a + b` is the same for scalars and vectors.

A kernel becomes `KERNEL void k(arguments, Part *part)` over a thread's part of its tasks; what it
calls (`splat_f32x4`, …) is defined in `c_module.py`. The same text compiles for every variant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from webkiln.codegen.cursors import Cursor, cursors
from webkiln.codegen.names import Names, temporaries
from webkiln.ir.buffer import Buffer
from webkiln.ir.dtypes import I32, DType
from webkiln.ir.expr import Const, Expr, Op, Read, Var, const, is_const
from webkiln.ir.program import Access, Kernel
from webkiln.ir.simplify import always_nonneg, poly, simplify
from webkiln.ir.stmt import Assign, Barrier, Declare, For, If, Once, Stmt, Store
from webkiln.schedule.kernel import expressions, map_expressions, statements
from webkiln.targets.math import EXPANDED, expand

__all__ = ["C_TYPES", "NATIVE", "goes_on", "kernel_source", "legalise", "type_name"]

_TYPES = {
    "float32": "f32",
    "float16": "f16",
    "int32": "i32",
    "uint32": "u32",
    "int8": "i8",
    "uint8": "u8",
    "bool": "i32",
}
#: the C type of each element type, by its short name in what is printed.
C_TYPES = {
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


def type_name(dtype: DType) -> str:
    """`f32`, `f32x8`, …; conditions are int32, their vectors masks."""
    base = _TYPES[dtype.name]
    return base if dtype.lanes == 1 else f"{base}x{dtype.lanes}"


def goes_on(kernel: Kernel) -> bool:
    """Whether a call of it claims more tasks itself: what it does once, it does once a thread."""
    return any(isinstance(s, Once) for s in kernel.body)


@dataclass(frozen=True, slots=True)
class _Walk:
    """A cursor's pointer. With a `stride` it goes from Read to Read, then on to the next round."""

    name: str
    cursor: Cursor
    stride: Expr | None

    @property
    def last(self) -> Read:
        """The Read that an iteration ends with."""
        return list(self.cursor.reads)[-1]


class _Printer:
    """Prints one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.numbers = {p for p, e in kernel.extents.items() if isinstance(e, Const)}
        self.names = Names()
        self.lines: list[str] = []
        self.depth = 1
        self.temps: dict[Expr, str] = {}
        self.pool: dict[str, int] = {}  # literal → its place
        self.masks: dict[int, int] = {}  # 32 bits → the number of their vector
        self.places: dict[Read, tuple[str, str]] = {}  # what a cursor serves
        self.counter = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def source(self, name: str) -> str:
        kernel = self.kernel
        arguments = [
            f"{_constant(access)}{type_name(b.dtype)} *restrict {self.names.buffer(b)}"
            for b, access in zip(kernel.buffers, kernel.access, strict=True)
        ]
        arguments += [f"int {self.names.var(p)}" for p in kernel.params]
        self._tasks()
        arguments.append("Part *part")
        head = f"KERNEL void {name}({', '.join(arguments)}) {{"
        return "\n".join([*self._pool(name), head, *self._locals(name), *self.lines, "}"])

    def _pool(self, name: str) -> list[str]:
        """Vector constants as data: V8 loads one in one instruction, and makes one in five.

        Zeros as well: V8 keeps the one that it makes in a register, also where sums need them all.
        A sum that lies in memory for it halved the speed of products with a clamp or a ReLU behind.
        """
        return (
            [f"static const f32 {name}_pool[] = {{{', '.join(self.pool)}}};"] if self.pool else []
        )

    def _locals(self, name: str) -> list[str]:
        """Memory of one task, the pool at an address and masks with values that clang can't see.

        If it could, it would put the immediates back. V8 makes a mask in three instructions each
        time, and has one that is in a register at hand.
        """
        out = [
            f"  {type_name(b.dtype)} {self.names.buffer(b)}[{b.size!r}];"
            for b in dict.fromkeys(
                s.buffer
                for s in statements(self.kernel.body)
                if isinstance(s, Store) and s.buffer.role == "workgroup"
            )
        ]
        if self.pool:
            out += [f"  const f32 *pool = {name}_pool;", '  __asm__("" : "+r"(pool));']
        for bits, number in self.masks.items():
            mask = f"mask{number}"
            out += [f"  words_128 {mask} = ALL({bits:#x});", f'  __asm__("" : "+r"({mask}));']
        return out

    def _tasks(self) -> None:
        """The parallel loops as ranges of tasks, decoded into their variables."""
        once = [s for s in self.kernel.body if isinstance(s, Once)]
        for s in once:
            self.line("{")
            self._indented(s.body)
            self.line("}")
        again = "do " if goes_on(self.kernel) else ""
        self.line(f"{again}for (int task = part->begin, end = part->end; task < end; task++) {{")
        self.depth += 1
        rest = "task"
        for i, loop in enumerate(reversed(self.kernel.loops)):
            name = self.names.var(loop.var)
            if is_const(loop.extent, 1):
                self.line(f"const int {name} = 0;")
                continue
            if i == len(self.kernel.loops) - 1:
                self.line(f"const int {name} = {rest};")
                break
            extent = self.expr(loop.extent)
            self.line(f"const int {name} = {rest} % {extent}, rest{i} = {rest} / {extent};")
            rest = f"rest{i}"
        self.block(self.kernel.body[len(once) :])
        self.depth -= 1
        self.line("} while (next_part(part));" if again else "}")

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
                self.line(f"{type_name(var.dtype)} {self.names.var(var)} = {self.expr(value)};")
            case Assign(var, value):
                self.line(f"{self.names.var(var)} = {self.expr(value)};")
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
            case Once():
                raise AssertionError("what is done once comes first")
            case Barrier():
                raise AssertionError("a wasm kernel has no barrier inside")
        self.temps = outer

    def _loop(self, s: For) -> None:
        name = self.names.var(s.var)
        advance = f"{name}++" if s.step == 1 else f"{name} += {s.step}"
        first, last = self.expr(s.start), self.expr(s.stop)
        walking = [self._walk(c, s) for c in cursors(s, self.numbers) or ()]
        self.line(f"for (int {name} = {first}; {name} < {last}; {advance}) {{")
        self.depth += 1
        for inner in s.body:
            self.statement(inner)
            for walk in walking:
                self._stride(walk, inner)
        if walking:
            self.line(" ".join(self._move(w) for w in walking))
            # keeps clang from turning the pointers back into indices, and iterations from mixing
            pinned = ", ".join(f'"+r"({w.name})' for w in walking)
            self.line(f'__asm__ volatile("" : {pinned});')
        self.depth -= 1
        self.line("}")
        for w in walking:
            for read in w.cursor.reads:
                del self.places[read]

    def _walk(self, cursor: Cursor, loop: For) -> _Walk:
        """Declares the pointer; its Reads print relative to it until the loop ends."""
        walk = _Walk(f"p{self.counter}", cursor, cursor.stride(loop.body))
        self.counter += 1
        kind = type_name(cursor.buffer.dtype)
        start = f"{self.names.buffer(cursor.buffer)} + {self.expr(cursor.start)}"
        self.line(f"const {kind} *{walk.name} = {start};")
        if walk.stride is not None:
            back = simplify(cursor.step - cursor.reads[walk.last])
            for name, distance in (("stride", walk.stride), ("back", back)):
                self.line(f"int {name}_{walk.name} = {self.expr(distance)} * (int)sizeof({kind});")
                self.line(f'__asm__("" : "+r"({name}_{walk.name}));')
        for read, distance in cursor.reads.items():
            self.places[read] = walk.name, self.expr(distance) if walk.stride is None else "0"
        return walk

    def _move(self, walk: _Walk) -> str:
        """Takes the pointer from where an iteration ends to where the next begins."""
        if walk.stride is not None:
            return f"MOVE({walk.name}, back_{walk.name});"
        return f"{walk.name} += {self.expr(walk.cursor.step)};"

    def _stride(self, walk: _Walk, s: Stmt) -> None:
        """Moves the pointer from what `s` read to what the next statement reads, after `s` is done.

        Clang would read it all ahead, into more registers than there are.
        """
        read = walk.cursor.reads_of(s)
        if walk.stride is None or not read or read[-1] is walk.last:
            return
        assert isinstance(s, Declare | Assign)
        done = ", ".join(f'"r"({part})' for part in _registers(self.names.var(s.var), s.var.dtype))
        self.line(f"MOVE({walk.name}, stride_{walk.name});")
        self.line(f'__asm__ volatile("" : "+r"({walk.name}) : {done});')

    def _indented(self, body: Sequence[Stmt]) -> None:
        self.depth += 1
        self.block(body)
        self.depth -= 1

    def _store(self, s: Store) -> None:
        pointer, fixed = self._place(s.buffer, s.offset)
        where = f"{pointer} + {fixed}"
        value, kind = self.expr(s.value), type_name(s.value.dtype)
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

    def expr(self, e: Expr) -> str:
        if e in self.temps:
            return self.temps[e]
        if isinstance(e, Const):
            return self._constant(e)
        if isinstance(e, Var):
            return self.names.var(e)
        if isinstance(e, Read):
            return self._read(e)
        assert isinstance(e, Op), e
        return self._operation(e)

    def _constant(self, e: Const) -> str:
        """A literal; a float vector from the pool (integers stay: shifts want immediates)."""
        if e.dtype.lanes == 1 or e.dtype.name != "float32":
            return _literal(e)
        at = self.pool.setdefault(_literal(const(e.value, e.dtype.scalar)), len(self.pool))
        return f"splat_{type_name(e.dtype)}(pool[{at}])"

    def _bitwise(self, e: Op, args: list[str]) -> str:
        """Vectors of words: constants are masks, and shifts within halves need none."""
        kind = type_name(e.dtype)
        if e.dtype.lanes % 4 == 0:
            shifted = _shifted_halves(e)
            if shifted is not None:
                return f"shr_halves_{kind}({self.expr(shifted[0])}, {shifted[1]})"
            args = [
                self._mask(a) if isinstance(a, Const) else text
                for a, text in zip(e.args, args, strict=True)
            ]
        return f"({args[0]} {_INFIX[e.name]} {args[1]})"

    def _mask(self, e: Const) -> str:
        number = self.masks.setdefault(int(e.value) % 2**32, len(self.masks))
        return f"repeat_{type_name(e.dtype)}(mask{number})"

    def _read(self, e: Read) -> str:
        pointer, fixed = self.places.get(e) or self._place(e.buffer, e.args[0])
        if e.dtype.lanes == 1:
            return f"{pointer}[{fixed}]"
        return f"*(const {type_name(e.dtype)} *)({pointer} + {fixed})"

    def _place(self, buffer: Buffer, offset: Expr) -> tuple[str, str]:
        """A pointer and a constant index, which clang folds into the access (a sum it may not)."""
        name, fixed = self.names.buffer(buffer), 0
        last = offset.args[-1] if offset.args else offset
        if isinstance(offset, Op) and offset.name == "add" and isinstance(last, Const):
            offset, fixed = offset.args[0], int(last.value)
        if isinstance(offset, Const):
            return name, str(int(offset.value) + fixed)
        return f"({name} + {self.expr(offset)})", str(fixed)

    def _operation(self, e: Op) -> str:
        args = [self.expr(a) for a in e.args]
        kind, name = type_name(e.dtype), e.name
        special = self._SPECIAL.get(name)
        if special is not None:
            return special(self, e, args)
        if name in _INFIX and not (name == "div" and e.dtype.is_int):
            return f"({args[0]} {_INFIX[name]} {args[1]})"
        if name in _PREFIX:
            return f"({_PREFIX[name]}{args[0]})"
        if name in _BUILTIN:
            return f"__builtin_elementwise_{_BUILTIN[name]}({args[0]})"
        if name.startswith("fold_"):
            kind = type_name(e.args[0].dtype)
        return f"{name}_{kind}({', '.join(args)})"

    def _logic(self, e: Op, args: list[str]) -> str:
        """Scalars are 0 or 1 and stop early; the lanes of a mask are 0 or -1."""
        symbol = {"and": "&", "or": "|", "not": "~"}[e.name]
        if e.dtype.lanes == 1:
            symbol = {"and": "&&", "or": "||", "not": "!"}[e.name]
        return f"({symbol}{args[0]})" if e.name == "not" else f"({args[0]} {symbol} {args[1]})"

    def _divide(self, e: Op, args: list[str]) -> str:
        """C truncates; that is flooring where nothing is negative."""
        if e.dtype == I32 and all(always_nonneg(poly(a)) for a in e.args):
            return f"({args[0]} {'/' if e.name == 'floordiv' else '%'} {args[1]})"
        return f"{e.name}_{type_name(e.dtype)}({args[0]}, {args[1]})"

    def _select(self, e: Op, args: list[str]) -> str:
        if e.args[0].dtype.lanes == 1:
            return f"({args[0]} ? {args[1]} : {args[2]})"
        return f"select_{type_name(e.dtype)}({args[0]}, {args[1]}, {args[2]})"

    def _cast(self, e: Op, args: list[str]) -> str:
        (value,) = args
        source, wide = e.args[0].dtype, e.dtype.lanes > 1
        kind = type_name(e.dtype)
        if not wide:
            return f"(({kind})({value}))"
        if source.kind == "b":  # a mask's lanes are 0 or -1
            one = f"({value} & 1)"
            return one if e.dtype.is_int else f"__builtin_convertvector({one}, {kind})"
        return f"__builtin_convertvector({value}, {kind})"

    def _bitcast(self, e: Op, args: list[str]) -> str:
        kind = type_name(e.dtype)
        if max(e.dtype.lanes, e.args[0].dtype.lanes) > 1:
            return f"(({kind})({args[0]}))"
        return f"bits_{type_name(e.args[0].dtype)}_{kind}({args[0]})"

    def _splat(self, e: Op, args: list[str]) -> str:
        if e.args[0].dtype.lanes > 1:
            return f"repeat_{type_name(e.dtype)}({args[0]})"
        value = f"-({args[0]})" if e.dtype.kind == "b" else args[0]  # 1 becomes a mask's -1
        return f"splat_{type_name(e.dtype)}({value})"

    def _lane(self, e: Op, args: list[str]) -> str:
        return f"({args[0]})[{args[1]}]"

    def _isnan(self, e: Op, args: list[str]) -> str:
        return f"({args[0]} != {args[0]})"

    _SPECIAL: ClassVar[dict[str, Callable[[_Printer, Op, list[str]], str]]] = {
        **dict.fromkeys(("and", "or", "not"), _logic),
        **dict.fromkeys(("floordiv", "mod"), _divide),
        "select": _select,
        "cast": _cast,
        "bitcast": _bitcast,
        "splat": _splat,
        "lane": _lane,
        "isnan": _isnan,
        **dict.fromkeys(("bitand", "bitor", "bitxor"), _bitwise),
    }


def _shifted_halves(e: Op) -> tuple[Expr, int] | None:
    """What is shifted right, and how far, where `e` masks all that left one half for the other."""
    shift, mask = e.args
    if e.name != "bitand" or not isinstance(mask, Const):
        return None
    if not isinstance(shift, Op) or shift.name != "shr" or not isinstance(shift.args[1], Const):
        return None
    distance = int(shift.args[1].value)
    return (shift.args[0], distance) if mask.value == (0xFFFF >> distance) * 0x10001 else None


def _registers(name: str, dtype: DType) -> list[str]:
    """The SIMD registers of a variable."""
    lanes = max(1, 16 // dtype.bytes)
    if dtype.lanes <= lanes:
        return [name]
    return [
        f"__builtin_shufflevector({name}, {name}, {', '.join(map(str, range(at, at + lanes)))})"
        for at in range(0, dtype.lanes, lanes)
    ]


def _constant(access: Access) -> str:
    return "const " if access == "read" else ""


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
    if e.dtype.kind == "b" and e.dtype.lanes > 1:
        text = f"-{text}"  # all bits of a mask's lane
    return text if e.dtype.lanes == 1 else f"splat_{kind}({text})"


def legalise(kernel: Kernel) -> Kernel:
    """Functions without an instruction written out, at whatever width they ended up."""
    names = EXPANDED - NATIVE
    return replace(kernel, body=map_expressions(kernel.body, lambda e: expand(e, names)))


def kernel_source(kernel: Kernel, name: str) -> str:
    """The kernel as a C function called `name`, in the form that a variant compiles."""
    source = _Printer(legalise(kernel)).source(name)
    if kernel.paired is None:
        return source
    return f"#ifdef WEBKILN_DOT4\n{source}\n#else\n{kernel_source(kernel.paired, name)}\n#endif"
