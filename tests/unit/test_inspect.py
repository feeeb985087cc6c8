"""Reports on bundles and models: numbers from the plan, the graph beside the table, the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.toy_plan import plan
from webkiln.errors import InputError, InvalidModelError
from webkiln.frontends import load
from webkiln.inspect import bundle_page, bundle_report, model_page, model_report
from webkiln.inspect.rail import lay_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, plan())
    (tmp_path / "index.html").write_text("page" * 100)
    (tmp_path / "model/simd.wasm").write_bytes(b"\0asm")
    return tmp_path


def write(folder: Path, content: Any) -> None:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model/plan.json").write_text(json.dumps(content))


def test_costs_are_at_the_bounds_unless_told(folder: Path) -> None:
    program = bundle_report(folder).programs[0]
    assert [step.flops for step in program.steps] == [6400, 640, 64]
    assert program.flops == 7104
    assert [step.bytes for step in program.steps] == [512] * 3
    assert bundle_report(folder, {"n": 2}).programs[0].flops == 222


def test_steps_name_what_was_fused(folder: Path) -> None:
    first = bundle_report(folder).programs[0].steps[0]
    assert first.nodes == ["MatMul_0", "Relu_1"]
    assert (first.reads, first.writes, first.kind) == ([0, 5], [1], "contraction")


def test_lifetimes_and_live_bytes(folder: Path) -> None:
    program = bundle_report(folder).programs[0]
    spans = {buffer.name: (buffer.first, buffer.last) for buffer in program.buffers}
    assert spans == {"x": (0, 0), "a": (0, 2), "b": (1, 2), "y": (2, 2)}
    assert program.live == [2048, 2048, 3072]
    assert program.peak == 3072


def test_shapes_are_readable(folder: Path) -> None:
    program = bundle_report(folder).programs[0]
    assert program.inputs == ["x: float32[1, n]"]
    assert program.outputs == ["y: float32[n * 2]"]


def test_sizes_before_the_weights(folder: Path) -> None:
    files = bundle_report(folder).files
    assert set(files) == {"index.html", "model/plan.json", "model/simd.wasm"}
    assert files["index.html"]["bytes"] == 400
    assert files["index.html"]["gzip"] < 100


def test_what_an_adapter_must_offer_and_may(folder: Path) -> None:
    content = plan()
    variants = content["webgpu"]["variants"]
    variants[0]["limits"] = {"maxComputeInvocationsPerWorkgroup": 64}
    better = {"features": ["shader-f16"], "limits": {"maxComputeInvocationsPerWorkgroup": 256}}
    variants.insert(0, variants[0] | better)
    write(folder, content)
    assert bundle_report(folder).webgpu == {
        "features": [],
        "limits": {"maxBufferSize": 8192, "maxComputeInvocationsPerWorkgroup": 64},
        "uses": ["shader-f16"],
    }


def test_json_is_plain_and_has_totals(folder: Path) -> None:
    data = json.loads(json.dumps(bundle_report(folder).to_json()))
    assert data["programs"][0]["flops"] == 7104
    assert data["programs"][0]["peak"] == 3072
    assert data["at"] == {"n": 64}


@pytest.mark.parametrize(
    ("at", "message"), [({"m": 1}, "no dimension 'm'"), ({"n": 65}, "n=65 is out of bounds")]
)
def test_wrong_dims(folder: Path, at: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bundle_report(folder, at)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no bundle"),
        ("{", "is not JSON"),
        ('{"format": "other"}', "plan.json is not valid"),
        ('{"format": "webkiln.plan", "dims": []}', "plan.json is not valid"),
    ],
)
def test_broken_plans(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model/plan.json").write_text(content)
    with pytest.raises(InvalidModelError, match=message):
        bundle_report(tmp_path)


def test_a_chain_is_a_straight_line() -> None:
    rail = lay_out([([], ["a"]), (["a"], ["b"]), (["b"], ["c"])])
    assert rail.columns == [0, 0, 0]
    assert rail.lanes == 1


def test_a_residual_passes_by_in_a_lane_of_its_own() -> None:
    rail = lay_out([([], ["a"]), (["a"], ["b"]), (["a", "b"], ["c"])])
    skip = next(edge for edge in rail.edges if (edge.source, edge.target) == (0, 2))
    assert skip.lane != rail.columns[1]


def test_values_written_in_place_belong_to_the_latest_writer() -> None:
    rail = lay_out([([], ["a"]), (["a"], ["a"]), (["a"], [])])
    assert {(edge.source, edge.target) for edge in rail.edges} == {(0, 1), (1, 2)}


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=12))
def test_lanes_never_run_through_a_node_or_each_other(reads: list[list[int]]) -> None:
    rows = [([f"v{i}" for i in read if i < row], [f"v{row}"]) for row, read in enumerate(reads)]
    rail = lay_out(rows)
    for edge in rail.edges:
        for row in range(edge.source + 1, edge.target):
            assert rail.columns[row] != edge.lane
        for other in rail.edges:
            if other.source != edge.source and other.lane == edge.lane:
                assert other.source >= edge.target or other.target <= edge.source


def test_the_page_fetches_nothing(folder: Path) -> None:
    page = bundle_page(bundle_report(folder))
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|@import|url\(|fetch\(""", page)
    links = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert links == {"http://www.w3.org/2000/svg"}


def test_names_cannot_break_out_of_the_page(folder: Path) -> None:
    content = plan()
    content["name"] = "</script><script>alert(1)</script>"
    write(folder, content)
    page = bundle_page(bundle_report(folder))
    assert "<script>alert(1)" not in page


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = """
    <ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    toy (float[n, 4] x) => (float[n, 4] y)
    <float[4] w = {1.0, 2.0, 3.0, 4.0}>
    {
        s = Add(x, w)
        t = Add(s, s)
        y = local.Mystery(t)
    }
    """
    model = onnx.parser.parse_model(text)
    path = tmp_path / "toy.onnx"
    onnx.save(model, path)
    return path


def test_a_models_operators_are_counted(model: Path) -> None:
    report = model_report(load(model))
    counts = {(operator.domain, operator.name): operator.count for operator in report.operators}
    assert counts == {("", "Add"): 2, ("local", "Mystery"): 1}
    assert report.unsupported == ["Mystery"]
    assert (report.parameters, report.weights) == (4, 16)
    assert report.inputs == ["x: float[n, 4]"]
    assert "Mystery" in model_page(report)
