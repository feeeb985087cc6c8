"""Integer expressions in canonical form: polynomials over variables and opaque atoms.

`simplify` is what makes a reshape, a transpose or a packed layout cost nothing: it cancels
divisions and remainders against the ranges of the variables, and decides comparisons that always
hold. `linear` reads off how an index moves with each variable, on which every schedule rests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias

from webkiln.ir.dtypes import BOOL, I32
from webkiln.ir.expr import (
    Const,
    Dim,
    Expr,
    Load,
    Op,
    Reduce,
    Var,
    const,
    map_children,
    transform,
    walk,
)

__all__ = ["Poly", "always_nonneg", "linear", "poly", "simplify", "to_expr", "upper_bound"]

Monomial: TypeAlias = tuple[Expr, ...]  # sorted atoms, repeated for powers; () is the constant term
Poly: TypeAlias = dict[Monomial, int]

_MAX_TERMS = 64  # beyond this an expansion is kept opaque: no index of a model comes near it


def _key(e: Expr) -> tuple[tuple[str | int, ...], int]:
    return _natural(e.name if isinstance(e, Var) else "~" + type(e).__name__), id(e)


@lru_cache(maxsize=1 << 12)
def _natural(name: str) -> tuple[str | int, ...]:
    """Orders i9 before i10: layers that are alike have their terms in one order."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))


def _add(a: Poly, b: Poly, scale: int = 1) -> Poly:
    out = dict(a)
    for m, c in b.items():
        total = out.get(m, 0) + c * scale
        if total:
            out[m] = total
        else:
            out.pop(m, None)
    return out


def _mul(a: Poly, b: Poly) -> Poly:
    out: Poly = {}
    for ma, ca in a.items():
        for mb, cb in b.items():
            m = tuple(sorted((*ma, *mb), key=_key))
            total = out.get(m, 0) + ca * cb
            if total:
                out[m] = total
            else:
                out.pop(m, None)
    return out


@lru_cache(maxsize=1 << 16)
def _poly(e: Expr) -> tuple[tuple[Monomial, int], ...]:
    return tuple(_expand(e).items())


def poly(e: Expr) -> Poly:
    """The int32 expression `e` as a polynomial; what is not +, -, * stays an atom, simplified."""
    return dict(_poly(e))


def _expand(e: Expr) -> Poly:
    if isinstance(e, Const):
        return {(): int(e.value)} if e.value else {}
    if isinstance(e, Op):
        if e.name in ("add", "sub"):
            return _recombine(_add(poly(e.args[0]), poly(e.args[1]), 1 if e.name == "add" else -1))
        if e.name == "neg":
            return _add({}, poly(e.args[0]), -1)
        if e.name == "mul":
            a, b = poly(e.args[0]), poly(e.args[1])
            if len(a) * len(b) <= _MAX_TERMS:
                return _mul(a, b)
        if e.name in ("floordiv", "mod"):
            return _divide(e.name, poly(e.args[0]), poly(e.args[1]))
        if (
            e.name == "truncdiv"
            and always_nonneg(poly(e.args[0]))
            and always_nonneg(poly(e.args[1]))
        ):
            return _divide("floordiv", poly(e.args[0]), poly(e.args[1]))
        if e.name in ("min", "max"):
            return _extremum(e.name, e.args[0], e.args[1])
    atom = _atom(e)
    same = type(atom) is type(e) and getattr(atom, "name", "") == getattr(e, "name", "")
    return {(atom,): 1} if same else poly(atom)


def _atom(e: Expr) -> Expr:
    """An opaque node with its operands simplified, which may fold it."""
    if isinstance(e, Var) or not e.args:
        return e
    if isinstance(e, Reduce):
        return Reduce(e.kind, e.axes, simplify(e.body))
    return map_children(e, simplify)


def _extremum(name: str, a: Expr, b: Expr) -> Poly:
    pa, pb = poly(a), poly(b)
    difference = _add(pa, pb, -1)
    if always_nonneg(difference):
        return pa if name == "max" else pb
    if always_nonneg(_add({}, difference, -1)):
        return pb if name == "max" else pa
    return {(Op(name, (to_expr(pa), to_expr(pb)), I32),): 1}


def _divide(name: str, n: Poly, d: Poly) -> Poly:
    """`n // d` or `n % d`: terms that d divides leave it when the rest stays within [0, d)."""
    if not d or not always_nonneg(_add(d, {(): 1}, -1)):  # the divisor is not known to be positive
        return {(Op(name, (to_expr(n), to_expr(d)), I32),): 1}
    quotient, rest = _split(n, d)
    if always_nonneg(rest) and always_nonneg(_add(_add(d, {(): 1}, -1), rest, -1)):
        return quotient if name == "floordiv" else rest
    coarser = _in_grains(rest, d)
    if coarser is not None:
        grain, high, low = coarser
        part = _divide(name, high, {(): d[()] // grain})
        return _add(quotient, part) if name == "floordiv" else _add(low, part, grain)
    if name == "mod":
        inner = to_expr(rest)
        return {(Op("mod", (inner, to_expr(d)), I32),): 1}
    inner = to_expr(rest)
    if isinstance(inner, Op) and inner.name == "floordiv":  # (x // a) // b = x // (a * b)
        return _add(quotient, _divide(name, poly(inner.args[0]), _mul(poly(inner.args[1]), d)))
    return _add(quotient, {(Op("floordiv", (inner, to_expr(d)), I32),): 1})


def _in_grains(n: Poly, d: Poly) -> tuple[int, Poly, Poly] | None:
    """N = grain·high + low, 0 ≤ low < grain, for a grain that divides the number d; else None.

    What is below the grain then has no part in the division.
    """
    size = d.get((), 0) if len(d) == 1 else 0
    grains = {abs(c) for m, c in n.items() if m and size % c == 0 and 1 < abs(c) < size}
    for grain in sorted(grains, reverse=True):
        high: Poly = {}
        low: Poly = {}
        for m, c in n.items():
            q, r = divmod(c, grain) if not m else (c // grain, 0) if c % grain == 0 else (0, c)
            if q:
                high[m] = q
            if r:
                low[m] = r
        if always_nonneg(low) and always_nonneg(_add({(): grain - 1}, low, -1)):
            return grain, high, low
    return None


def _split(n: Poly, d: Poly) -> tuple[Poly, Poly]:
    """N = quotient * d + rest, taking every term of n that the single-term divisor d divides."""
    if len(d) != 1:
        for scale in (1,):
            if all(n.get(m) == c * scale for m, c in d.items()):
                return {(): scale}, _add(n, d, -scale)
        return {}, n
    ((dm, dc),) = d.items()
    quotient: Poly = {}
    rest: Poly = {}
    for m, c in n.items():
        remaining = _without(m, dm)
        if remaining is None:
            rest[m] = c
            continue
        q, r = (c // dc, c % dc) if m == dm or not always_nonneg({remaining: 1}) else divmod(c, dc)
        if q:
            quotient[remaining] = quotient.get(remaining, 0) + q
        if r:
            rest[m] = rest.get(m, 0) + r
    return quotient, rest


def _without(m: Monomial, factors: Monomial) -> Monomial | None:
    """M / factors, or None when a factor is missing."""
    left = list(m)
    for f in factors:
        if f not in left:
            return None
        left.remove(f)
    return tuple(left)


def _recombine(p: Poly) -> Poly:
    """c·k·(x // c) + k·(x % c) = k·x, the identity behind every reshape that changes nothing."""
    for m, k in list(p.items()):
        for atom in m:
            if not (isinstance(atom, Op) and atom.name == "mod"):
                continue
            x, c = atom.args
            others = _without(m, (atom,))
            assert others is not None
            base: Poly = {others: k}
            whole = _mul(_mul(base, poly(c)), _divide("floordiv", poly(x), poly(c)))
            if all(_same_sign_cover(p.get(t, 0), v) for t, v in whole.items()):
                reduced = _add(_add(_add(p, {m: k}, -1), whole, -1), _mul(base, poly(x)))
                return _recombine(reduced)
    return p


def _same_sign_cover(have: int, need: int) -> bool:
    return have != 0 and (have > 0) == (need > 0) and abs(have) >= abs(need)


# --- ranges ---------------------------------------------------------------------------------------


def always_nonneg(p: Poly) -> bool:
    """True when `p ≥ 0` is proved for all values of its variables; False says only: not proved."""
    return _prove(tuple(sorted(p.items(), key=lambda t: [_key(a) for a in t[0]])))


@lru_cache(maxsize=1 << 16)
def _prove(items: tuple[tuple[Monomial, int], ...]) -> bool:
    p = dict(items)
    for _ in range(16):
        atom = _worst_atom(p)
        if atom is None:
            break
        bound = _bounds(atom)
        if bound is None:
            return False
        replaced = _replace_extreme(p, atom, *bound)
        if replaced is None:
            return False
        p = replaced
    return _prove_over_dims(p)


def _prove_over_dims(p: Poly) -> bool:
    """`p ≥ 0` for a polynomial over Dims, each between 1 and its bound."""
    worst = _worst_constant(p)
    if worst is not None and worst >= 0:
        return True
    # with d = 1 + e, e ≥ 0, it is enough that every coefficient is ≥ 0
    for dim in {a for m in p for a in m}:
        p = _shift(p, dim)
    return all(c >= 0 for c in p.values())


def _worst_constant(p: Poly) -> int | None:
    """Each term at its own smallest: 1 for positive ones, the bound for negative ones."""
    total = 0
    for m, c in p.items():
        for dim in m if c < 0 else ():
            if not isinstance(dim, Dim) or dim.max is None:
                return None
            c *= dim.max
        total += c
    return total


def _worst_atom(p: Poly) -> Expr | None:
    """An atom that is no Dim, innermost loops first (their extents may mention other atoms)."""
    atoms = {a for m in p for a in m if not isinstance(a, Dim)}
    return max(atoms, key=lambda a: (len(list(walk(a))), _key(a)), default=None)


def _bounds(atom: Expr) -> tuple[Poly, Poly | None] | None:
    """(lower, upper) of an atom, both polynomials; upper None: unbounded. None: nothing known."""
    if isinstance(atom, Var):
        if atom.extent is None:
            return None
        return {}, _add(poly(atom.extent), {(): 1}, -1)
    if isinstance(atom, Op):
        if atom.name in ("mod", "floordiv"):
            below = _add(poly(atom.args[1]), {(): 1}, -1)
            if not always_nonneg(below):
                return None
            if atom.name == "mod":
                return {}, below
            if not always_nonneg(poly(atom.args[0])):
                return None
            divisor = poly(atom.args[1])
            top = upper_bound(poly(atom.args[0]))
            if top is None:
                return {}, None
            return {}, _divide("floordiv", top, divisor)
        if atom.name in ("min", "max"):
            return _extremum_bounds(atom)
        if atom.name == "cast" and atom.args[0].dtype == BOOL:
            return {}, {(): 1}
    return None


def _extremum_bounds(atom: Op) -> tuple[Poly, Poly | None] | None:
    a, b = (poly(x) for x in atom.args)
    if atom.name == "min":
        if not (always_nonneg(a) and always_nonneg(b)):
            return None
        constant = next((x for x in (a, b) if set(x) <= {()}), None)
        return {}, constant if constant is not None else upper_bound(a)
    # at least its constant operand, at least 0 where an operand is
    least = [v for x in (a, b) if set(x) <= {()} for v in [x.get((), 0)]]
    if any(always_nonneg(x) for x in (a, b)):
        least.append(0)
    return ({(): max(least)} if max(least) else {}, None) if least else None


def _replace_extreme(p: Poly, atom: Expr, low: Poly, high: Poly | None) -> Poly | None:
    """P with `atom` at whichever end makes p smallest; None when that is not known.

    An atom that occurs to one power with coefficients of one sign goes to one end. Where its
    coefficient mixes signs, both ends are needed, so each term takes its own worst end (a valid,
    looser bound).
    """
    out: Poly = {}
    for m, c in p.items():
        if atom not in m:
            out = _add(out, {m: c})
            continue
        power = m.count(atom)
        others = tuple(a for a in m if a is not atom)
        if others and not always_nonneg({others: 1}):
            return None
        end = low if c > 0 else high
        if end is None or (power > 1 and any(v < 0 for v in end.values())):
            return None  # squaring a negative end would turn it over
        term: Poly = {others: c}
        for _ in range(power):
            term = _mul(term, end)
        out = _add(out, term)
    return out


def _shift(p: Poly, dim: Expr) -> Poly:
    out: Poly = {}
    for m, c in p.items():
        term: Poly = {tuple(a for a in m if a is not dim): c}
        for _ in range(m.count(dim)):
            term = _mul(term, {(dim,): 1, (): 1})
        out = _add(out, term)
    return out


def upper_bound(p: Poly) -> Poly | None:
    """A polynomial over Dims alone that is never below `p`, or None."""
    negated = _add({}, p, -1)
    for _ in range(16):
        atom = _worst_atom(negated)
        if atom is None:
            return _add({}, negated, -1)
        bound = _bounds(atom)
        replaced = None if bound is None else _replace_extreme(negated, atom, *bound)
        if replaced is None:
            return None
        negated = replaced
    return None


# --- back to expressions --------------------------------------------------------------------------


def to_expr(p: Poly) -> Expr:
    """The polynomial as an expression, terms in a fixed order, the constant last."""
    total: Expr = const(0, I32)
    for m, c in sorted(p.items(), key=lambda t: (not t[0], [_key(a)[0] for a in t[0]])):
        term: Expr = const(1, I32)
        for atom in m:
            term = term * atom
        if not m:
            total = total + c if c >= 0 or is_zero(total) else total - (-c)
        elif c < 0 and not is_zero(total):
            total = total - term * (-c)
        else:
            total = total + term * c
    return total


def is_zero(e: Expr) -> bool:
    return isinstance(e, Const) and e.value == 0


def linear(e: Expr, over: Iterable[Var]) -> tuple[dict[Var, Expr], Expr] | None:
    """`e` as Σ coefficient·var + rest, coefficients free of `over`; None if it has no such form.

    Variables that do not occur have no entry.
    """
    variables = set(over)
    coefficients: dict[Var, Poly] = {}
    rest: Poly = {}
    for m, c in poly(e).items():
        inside = [a for a in m if a in variables]
        opaque = (a for a in m if a not in variables and not isinstance(a, Var))
        if len(inside) > 1 or any(variables.intersection(walk(a)) for a in opaque):
            return None
        if not inside:
            rest[m] = c
            continue
        var = inside[0]
        assert isinstance(var, Var)
        left = _without(m, (var,))
        assert left is not None
        coefficients[var] = _add(coefficients.get(var, {}), {left: c})
    return {v: to_expr(p) for v, p in coefficients.items()}, to_expr(rest)


def simplify(e: Expr) -> Expr:
    """`e` with every integer part canonical and every provable comparison decided."""
    if e.dtype == I32 and not isinstance(e, Const | Var):
        return _canonical(e)
    if not e.args:
        return e

    def visit(node: Expr) -> Expr | None:
        if node.dtype == I32 and isinstance(node, Op | Load):
            return _canonical(node)
        if isinstance(node, Op) and node.name in ("lt", "le") and node.args[0].dtype == I32:
            return _decide(node)
        if isinstance(node, Op) and node.name in ("eq", "ne") and node.args[0].dtype == I32:
            return _decide_equal(node)
        return None

    return transform(e, visit)


@lru_cache(maxsize=1 << 16)
def _canonical(e: Expr) -> Expr:
    return to_expr(poly(e))


def _decide(node: Op) -> Expr | None:
    gap = _add(poly(node.args[1]), poly(node.args[0]), -1)  # b - a
    strict: Poly = {(): 1} if node.name == "lt" else {}
    if always_nonneg(_add(gap, strict, -1)):
        return const(True, BOOL)
    reverse = _add({}, gap, -1)
    if always_nonneg(_add(reverse, {} if node.name == "lt" else {(): 1}, -1)):
        return const(False, BOOL)
    return None


def _decide_equal(node: Op) -> Expr | None:
    gap = _add(poly(node.args[0]), poly(node.args[1]), -1)
    if not gap:
        return const(node.name == "eq", BOOL)
    one: Mapping[Monomial, int] = {(): 1}
    apart = _add(gap, dict(one), -1), _add(_add({}, gap, -1), dict(one), -1)
    if any(always_nonneg(x) for x in apart):
        return const(node.name == "ne", BOOL)
    return None
