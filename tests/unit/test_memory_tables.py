"""Tables: which constants a run reads by the rows that its inputs name, and their shards."""

import numpy as np
import pytest

from tests.lookup_model import embedding_model
from webkiln.bundle.weights import write_shards
from webkiln.compile import compile_model
from webkiln.frontends.source import Source
from webkiln.ir.buffer import Buffer, packed
from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import Load, Var, walk
from webkiln.ir.program import Compute, Program
from webkiln.memory.tables import Table, find_tables
from webkiln.memory.weights import lay_out_weights
from webkiln.ops.gather import from_end

ROWS, WIDTH, COUNT = 24, 16, 5


def ids(name="ids", role="input"):
    return Buffer(name, I32, (COUNT,), role)


def table(name="table", **given):
    return Buffer(name, F32, (ROWS, WIDTH), "constant", **given)


def lookup(weights, named, wrap=from_end):
    """One computation: rows of `weights` that `named` holds the numbers of."""
    i, j = Var("i", COUNT), Var("j", WIDTH)
    out = Buffer("rows", F32, (COUNT, WIDTH))
    number = Load(named, (i,))
    return Compute(out, (i, j), Load(weights, (wrap(number, ROWS), j)))


def found(*programs, data=None):
    """The tables of programs that have (inputs, computes, outputs)."""
    made = []
    for inputs, computes, outputs in programs:
        read = {n.buffer for c in computes for n in _loads(c)} | set(outputs)
        constants = {
            b: np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
            for b in read
            if b.role == "constant"
        }
        made.append(Program("p", (), inputs, outputs, constants, computes))
    values = {b: v for p in made for b, v in p.constants.items()}
    weights = lay_out_weights(values, values)
    return find_tables(made, weights, least_bytes=1)


def _loads(compute):
    return [n for n in walk(compute.value) if isinstance(n, Load)]


def test_rows_that_an_input_names():
    named = ids()
    assert found(((named,), [lookup(table(), named)], ())) == (
        Table(0, ROWS, 1, 4 * WIDTH, ((0, named),)),
    )


def test_a_number_that_counts_from_the_front_alone():
    named = ids()
    [only] = found(((named,), [lookup(table(), named, wrap=lambda n, rows: n)], ()))
    assert only.named_by == ((0, named),)


def test_rows_that_lie_in_groups():
    named = ids()
    grouped = table(layout=packed((0, 1), 0, 8))
    [only] = found(((named,), [lookup(grouped, named)], ()))
    assert (only.rows, only.group, only.group_bytes) == (ROWS, 8, 8 * WIDTH * 4)
    assert only.end == ROWS * WIDTH * 4


@pytest.mark.parametrize(
    "wrap",
    [lambda n, rows: n + 1, lambda n, rows: n // 2, lambda n, rows: from_end(n, rows + 1)],
    ids=["moved", "halved", "of another size"],
)
def test_other_rows_than_named(wrap):
    named = ids()
    assert found(((named,), [lookup(table(), named, wrap)], ())) == ()


def test_numbers_that_are_computed():
    computed = ids(role="temporary")
    assert found(((), [lookup(table(), computed)], ())) == ()


def test_a_table_that_is_read_otherwise_too():
    named, weights = ids(), table()
    i, j = Var("i", ROWS), Var("j", WIDTH)
    copy = Compute(Buffer("all", F32, (ROWS, WIDTH)), (i, j), Load(weights, (i, j)))
    assert found(((named,), [lookup(weights, named), copy], ())) == ()
    assert found(((named,), [lookup(weights, named)], (weights,))) == ()


def test_equal_bytes_that_are_read_otherwise():
    named = ids()
    i, j = Var("i", ROWS), Var("j", WIDTH)
    copy = Compute(Buffer("all", F32, (ROWS, WIDTH)), (i, j), Load(table("twin"), (i, j)))
    assert found(((named,), [lookup(table(), named), copy], ())) == ()


def test_two_programs_name_rows_of_one_table():
    first, second = ids("first"), ids("second")
    [only] = found(
        ((first,), [lookup(table(), first)], ()), ((second,), [lookup(table(), second)], ())
    )
    assert only.named_by == ((0, first), (1, second))


def test_small_tables_are_none():
    named, weights = ids(), table()
    program = Program("p", (), (named,), (), {}, [lookup(weights, named)])
    space = lay_out_weights({weights: np.ones((ROWS, WIDTH), np.float32)}, [weights])
    assert find_tables([program], space) == ()
    assert find_tables([program], space, least_bytes=ROWS * WIDTH * 4)


def test_a_table_has_shards_of_its_own():
    a, b, c = (Buffer(n, F32, (100,), "constant") for n in "abc")
    space = lay_out_weights({a: np.ones(100), b: np.arange(100), c: np.zeros(100)}, [a, b, c])
    lies = Table(512, 100, 1, 4, ((0, ids()),))
    plan, files = write_shards(space, [lies], limit=256)
    spans = [(s["offset"], s["bytes"], s.get("table")) for s in plan["shards"]]
    assert spans == [
        (0, 256, None),
        (256, 256, None),
        (512, 256, 0),
        (768, 144, 0),
        (912, 256, None),
        (1168, 256, None),
    ]
    joined = b"".join(files[s["file"]] for s in plan["shards"])
    assert joined == space.data().tobytes()


@pytest.mark.parametrize("targets", [("wasm",), ("webgpu",), ("wasm", "webgpu")])
def test_a_compiled_model_says_what_it_can_do_without(targets):
    model, values = embedding_model()
    bundle = compile_model(Source(model, "lookup"), bounds={"sequence": 8}, targets=targets)
    weights = bundle.plan["weights"]
    [entry] = weights["tables"]
    assert (entry["rows"], entry["namedBy"]) == (70_000, [{"program": 0, "input": 0}])
    shards = [s for s in weights["shards"] if "table" in s]
    assert sum(s["bytes"] for s in shards) == values.nbytes
    assert len(shards) == -(-values.nbytes // (512 << 10))
    if "wasm" in targets:
        numbers = np.array([3, -1, 69_999])
        assert np.array_equal(bundle.run({"ids": numbers})["y"], values[numbers])


def test_a_head_of_the_same_matrix_has_its_own_panels():
    model, values = embedding_model(40_000, tied=True)
    bundle = compile_model(Source(model, "tied"), bounds={"sequence": 8}, targets=("wasm",))
    weights = bundle.plan["weights"]
    assert weights["bytes"] == 2 * values.nbytes
    assert sum(s["bytes"] for s in weights["shards"] if "table" in s) == values.nbytes
