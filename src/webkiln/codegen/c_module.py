"""The C module of a bundle: types and helpers, the kernels, and the driver that calls them.

The same text compiles for every variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from webkiln.codegen.c import C_TYPES, legalise, type_name
from webkiln.codegen.c_driver import SHARES, StepCall, driver
from webkiln.ir.dtypes import BOOL, I32, DType
from webkiln.ir.expr import Dim, Op, walk
from webkiln.ir.program import Kernel
from webkiln.lower.layout import PANEL
from webkiln.schedule.kernel import expressions, statements

__all__ = ["module_source", "multiplies_planes"]


def module_source(
    kernels: Mapping[str, str],
    used: Sequence[Kernel],
    programs: Sequence[Sequence[StepCall]],
    dims: Sequence[Dim],
) -> str:
    """The whole module: types that `used` kernels mention, the kernels, the driver."""
    parts = [
        '#include "wasm_runtime.h"',
        _prelude(used),
        *kernels.values(),
        driver(programs, dims),
    ]
    return "\n\n".join(parts) + "\n"


def _prelude(kernels: Sequence[Kernel]) -> str:
    types: dict[DType, None] = {}
    for kernel in [k for both in kernels for k in (both, both.paired) if k is not None]:
        for s in statements(legalise(kernel).body):
            for node in walk(*expressions(s)):
                types.setdefault(node.dtype if node.dtype.kind != "b" else _mask(node.dtype))
        types.update(dict.fromkeys(b.dtype for b in kernel.buffers))
    scalars = [f"typedef {c} {name};" for name, c in C_TYPES.items() if name != "f16"]
    wide: dict[str, DType] = {}
    for t in types:
        if t.lanes > 1:
            wide.setdefault(type_name(t), t)
            mask = _mask(BOOL.vector(t.lanes))
            wide.setdefault(type_name(mask), mask)
    if any(t == I32.vector(2 * PANEL) for t in wide.values()):
        wide.setdefault(type_name(I32.vector(PANEL)), I32.vector(PANEL))
    masks_first = sorted(wide.values(), key=lambda t: (t.kind != "i", t.name, t.lanes))
    vectors = [_vector_helpers(t) for t in masks_first]
    return "\n".join([_KERNEL, *scalars, _SCALAR_HELPERS, SHARES, *vectors])


def multiplies_planes(kernels: Sequence[Kernel]) -> bool:
    """Whether any of `kernels` multiplies numbers of 16 bits as two planes of bytes."""
    return any(
        isinstance(node, Op) and node.name == "dot_planes"
        for kernel in kernels
        for s in statements(kernel.body)
        for e in expressions(s)
        for node in walk(e)
    )


def _mask(dtype: DType) -> DType:
    return DType("int32", 4, "i", dtype.lanes)


_KERNEL = """
/* A function of its own: engines compile functions one by one, and in parallel. */
#define KERNEL static __attribute__((noinline))

/* A number in each lane of a vector. */
#define ALL(x) {(int)(x), (int)(x), (int)(x), (int)(x)}

/* By bytes: a distance in elements would be scaled at each step, which takes twice as long. */
#define MOVE(pointer, bytes) ((pointer) = (void *)((const char *)(pointer) + (bytes)))
""".strip()

_SCALAR_HELPERS = """
/* Products of four bytes are one instruction: kernels of bytes, where there are others of pairs. */
#if defined __wasm_relaxed_simd__ && !defined WEBKILN_NARROW_DOT
#define WEBKILN_DOT4
#endif

static inline float max_f32(float a, float b) { return a < b ? b : a; }
static inline float min_f32(float a, float b) { return b < a ? b : a; }
static inline int max_i32(int a, int b) { return a < b ? b : a; }
static inline int min_i32(int a, int b) { return b < a ? b : a; }
static inline unsigned max_u32(unsigned a, unsigned b) { return a < b ? b : a; }
static inline unsigned min_u32(unsigned a, unsigned b) { return b < a ? b : a; }
static inline int truncdiv_i32(int a, int b) {
  return b == 0 ? 0 : b == -1 ? (int)(0u - (unsigned)a) : a / b;
}
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

typedef int words_128 __attribute__((vector_size(16)));
typedef short shorts_128 __attribute__((vector_size(16)));
typedef signed char bytes_128 __attribute__((vector_size(16)));
typedef signed char bytes_64 __attribute__((vector_size(8)));
/* Each lane plus the products of its four bytes, signed by 7-bit: one instruction where there is
 * relaxed SIMD; elsewhere products of 16 bits, whose neighbours are added twice. */
static inline words_128 dot4_128(words_128 a, words_128 b, words_128 total) {
#ifdef __wasm_relaxed_simd__
  return __builtin_wasm_relaxed_dot_i8x16_i7x16_add_s_i32x4((bytes_128)a, (bytes_128)b, total);
#else
  bytes_128 p = (bytes_128)a, q = (bytes_128)b;
  words_128 low = __builtin_wasm_dot_s_i32x4_i16x8(
      __builtin_convertvector(__builtin_shufflevector(p, p, 0, 1, 2, 3, 4, 5, 6, 7), shorts_128),
      __builtin_convertvector(__builtin_shufflevector(q, q, 0, 1, 2, 3, 4, 5, 6, 7), shorts_128));
  words_128 high = __builtin_wasm_dot_s_i32x4_i16x8(
      __builtin_convertvector(
          __builtin_shufflevector(p, p, 8, 9, 10, 11, 12, 13, 14, 15), shorts_128),
      __builtin_convertvector(
          __builtin_shufflevector(q, q, 8, 9, 10, 11, 12, 13, 14, 15), shorts_128));
  return total + __builtin_shufflevector(low, high, 0, 2, 4, 6) +
         __builtin_shufflevector(low, high, 1, 3, 5, 7);
#endif
}

#ifdef WEBKILN_NARROW_DOT
/* What a sum of the high plane counts, and one of the low plane. */
static const shorts_128 plane_factors[] = {{256, 256, 256, 256, 256, 256, 256, 256},
                                           {1, 1, 1, 1, 1, 1, 1, 1}};
/* Each half of a lane plus the products of its two bytes: two instructions on x86, where dot4_128
 * may be five. 4-bit numbers times bytes: 8 of these are 8 · 2 · 15 · 128 at most, which fits. */
static inline words_128 narrow_dot_128(words_128 a, words_128 b, words_128 total) {
  shorts_128 pairs =
      __builtin_wasm_relaxed_dot_i8x16_i7x16_s_i16x8((bytes_128)a, (bytes_128)b);
  return (words_128)((shorts_128)total + pairs);
}
#endif

/* Numbers of 16 bits as two planes of bytes, 256 high + low, times 7-bit ones, four a lane: `high`
 * and `low` are the planes' sums. Without relaxed SIMD the bytes become halves of lanes again, and
 * `low` has all. Sums of a block of 32 numbers, which join_planes ends. */
static inline void dot_planes_128(words_128 a, words_128 b, words_128 small, words_128 *high,
                                  words_128 *low) {
#ifdef WEBKILN_NARROW_DOT
  *high = narrow_dot_128(a, small, *high);
  *low = narrow_dot_128(b, small, *low);
#elif defined __wasm_relaxed_simd__
  *high = dot4_128(a, small, *high);
  *low = dot4_128(b, small, *low);
#else
  shorts_128 p = (shorts_128)a, q = (shorts_128)b;
  shorts_128 even = (p << 8) + ((q << 8) >> 8), odd = (p & -256) + (q >> 8);
  *low += __builtin_wasm_dot_s_i32x4_i16x8(even, (shorts_128)small & 0xFF);
  *low += __builtin_wasm_dot_s_i32x4_i16x8(odd, (shorts_128)small >> 8);
#endif
}

/* Each lane plus the products of its two halves. Sums are made, and their operands read, in the
 * order in which they are written: clang would sort them anew, with many more operands at a time
 * than registers. */
static inline words_128 dot2_128(words_128 a, words_128 b, words_128 total) {
  total += __builtin_wasm_dot_s_i32x4_i16x8((shorts_128)a, (shorts_128)b);
  __asm__ volatile("" : "+r"(total) : : "memory");
  return total;
}
""".strip()


_VECTOR = """
typedef {c} {kind} __attribute__((vector_size({size}), aligned({align})));
static inline {kind} splat_{kind}({element} x) {{ return ({kind}){{{repeated}}}; }}
static void store_{kind}({element} *p, {kind} v, int n) {{
  if (n >= {lanes}) *({kind} *)p = v;
  else for (int i = 0; i < n; i++) p[i] = v[i];
}}
""".strip()

_SELECT = """
static inline {kind} select_{kind}({mask} m, {kind} a, {kind} b) {{
  return ({kind})((m & ({mask})a) | (~m & ({mask})b));
}}
""".strip()

_LANE_BY_LANE = """
static inline {kind} {name}_{kind}({kind} a, {kind} b) {{
  {kind} r;
  for (int i = 0; i < {lanes}; i++) r[i] = {name}_{element}(a[i], b[i]);
  return r;
}}
""".strip()


def _vector_helpers(t: DType) -> str:
    """A vector type and what C lacks for it: splat, select, min, max, folds, partial store."""
    kind, element, mask = type_name(t), type_name(t.scalar), type_name(_mask(t))
    out = [
        _VECTOR.format(
            c=C_TYPES[element],
            kind=kind,
            element=element,
            mask=mask,
            lanes=t.lanes,
            size=t.lanes * t.bytes,
            align=t.bytes,  # of an element: vectors are read from any offset
            repeated=", ".join(["x"] * t.lanes),
        ),
    ]
    if t.bytes == 1:  # bytes are packed and unpacked, never computed with
        return out[0]
    out += [_SELECT.format(kind=kind, mask=mask), *_extrema(t, kind, mask)]
    for combine, text in (("add", "{} + {}"), ("mul", "{} * {}"), ("max", None), ("min", None)):
        folded = _fold(element, combine, text, t.lanes)
        out.append(
            f"static inline {element} fold_{combine}_{kind}({kind} v) {{ return {folded}; }}"
        )
    if not t.is_float:
        for name in ("truncdiv", "fmod", "floordiv", "mod"):
            out.append(_LANE_BY_LANE.format(kind=kind, element=element, name=name, lanes=t.lanes))
    if t.is_int and t.lanes % 4 == 0:
        out.append(_REPEAT.format(kind=kind, lanes=", ".join(str(i % 4) for i in range(t.lanes))))
        out.append(_HALVES.format(kind=kind, size=t.lanes * t.bytes))
    if t.scalar == I32 and t.lanes % 4 == 0:
        out += [_dot(name, kind, t.lanes) for name in ("dot2", "dot4")]
    if t.scalar == I32 and t.lanes == 2 * PANEL:
        out += [_PLANES.format(kind=kind, half=type_name(I32.vector(PANEL)))]
    return "\n".join(out)


_REPEAT = """
static inline {kind} repeat_{kind}(words_128 x) {{
  return ({kind})__builtin_shufflevector(x, x, {lanes});
}}
""".strip()

#: One instruction, where bits that leave one half for the other would have to be masked.
_HALVES = """
static inline {kind} shr_halves_{kind}({kind} x, int distance) {{
  typedef unsigned short halves __attribute__((vector_size({size})));
  return ({kind})((halves)x >> distance);
}}
""".strip()

#: Products are made in the order in which they are written, each group of operands read when it is
#: needed: clang would read those of a whole loop's body first, many more than there are registers.
_PLANES = """
static inline {kind} dot_planes_{kind}({half} a, {half} b, {half} small, {kind} total) {{
  words_128 x[2], y[2], s[2], t[4];
  __builtin_memcpy(x, &a, 32), __builtin_memcpy(y, &b, 32), __builtin_memcpy(s, &small, 32);
  __builtin_memcpy(t, &total, 64);
  for (int i = 0; i < 2; i++) dot_planes_128(x[i], y[i], s[i], &t[i], &t[i + 2]);
  __asm__ volatile("" : "+r"(t[0]), "+r"(t[1]), "+r"(t[2]), "+r"(t[3]) : : "memory");
  __builtin_memcpy(&total, t, 64);
  return total;
}}
static inline {half} join_planes_{half}({kind} total) {{
#ifdef WEBKILN_NARROW_DOT
  const shorts_128 *factors = plane_factors;
  shorts_128 halves[4];
  words_128 sums[4];
  __builtin_memcpy(halves, &total, 64);
  __asm__("" : "+r"(factors));
  for (int i = 0; i < 4; i++)
    sums[i] = __builtin_wasm_dot_s_i32x4_i16x8(halves[i], factors[i / 2]);
  __builtin_memcpy(&total, sums, 64);
#endif
  {half} high = __builtin_shufflevector(total, total, 0, 1, 2, 3, 4, 5, 6, 7);
  {half} low = __builtin_shufflevector(total, total, 8, 9, 10, 11, 12, 13, 14, 15);
#ifndef WEBKILN_NARROW_DOT
  high <<= 8;
#endif
  return high + low;
}}
""".strip()


def _dot(name: str, kind: str, lanes: int) -> str:
    """Products of parts of words for any number of 128-bit vectors."""
    parts = []
    for first in range(0, lanes, 4):
        at = ", ".join(map(str, range(first, first + 4)))
        a, b, total = (f"__builtin_shufflevector({x}, {x}, {at})" for x in ("a", "b", "total"))
        parts.append(f"{name}_128({a}, {b}, {total})")
    head = f"static inline {kind} {name}_{kind}({kind} a, {kind} b, {kind} total)"
    if lanes == 4:
        return f"{head} {{ return ({kind}){name}_128(a, b, total); }}"
    while len(parts) > 1:  # joined pairwise: 4 lanes to 8, to 16
        width = 2 * lanes // len(parts)
        every = ", ".join(map(str, range(width)))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [f"__builtin_shufflevector({x}, {y}, {every})" for x, y in pairs]
    return f"{head} {{ return ({kind}){parts[0]}; }}"


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
