"""A small bundle with hand-written kernels: assembled, run, checked, saved, damaged, loaded."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from webkiln.bundle import (
    Bundle,
    DispatchRecord,
    GoldenSample,
    KernelRecord,
    ProgramRecord,
    Shader,
    assemble,
)
from webkiln.bundle.weights import PIECE_BYTES, piece_hashes, write_shards
from webkiln.errors import (
    InputError,
    InvalidModelError,
    OutputFolderError,
    ShardError,
    UnsupportedModelError,
)
from webkiln.ir.buffer import Buffer, packed, row_major
from webkiln.ir.dtypes import F32, I32
from webkiln.ir.expr import Dim, ceildiv
from webkiln.ir.program import Kernel, Program, Step
from webkiln.memory import StepIO, plan
from webkiln.memory.weights import lay_out_weights
from webkiln.targets.toolchain import VARIANTS, compile_variants

W = np.arange(12, dtype=np.float64).reshape(4, 3) / 8
SOURCE = """
#include "wasm_runtime.h"
/* y[n, 3] = x[n, 4] @ w[4, 3], w in panels of 2 columns; one task a row */
static void product(const float *x, const float *w, float *y, int begin, int end) {
  for (int i = begin; i < end; i++)
    for (int j = 0; j < 3; j++) {
      float sum = 0;
      for (int k = 0; k < 4; k++) sum += x[i * 4 + k] * w[(j / 2) * 8 + k * 2 + j % 2];
      y[i * 3 + j] = sum;
    }
}
static void larger(const float *y, const int *ids, int *flags, int n) {
  for (int i = 0; i < n; i++) flags[i] = y[i * 3] > (float)ids[i] ? 7 : 0;
}
static void doubled(const int *ids, int *out, int n) {
  for (int i = 0; i < n; i++) out[i] = 2 * ids[i];
}
int webkiln_steps(int program) { return program == 0 ? 3 : 0; }
unsigned webkiln_weights(int program, int step, int index, unsigned *bytes) { return 0; }
int webkiln_step(int program, int step, int thread, int threads) {
  int n = webkiln_dim(0);
  if (step == 0) product(X, W, Y, n * thread / threads, n * (thread + 1) / threads);
  if (thread) return 1;
  if (step == 1) larger(Y, IDS, FLAGS, n);
  if (step == 2) doubled(IDS, OUT, n);
  return 1;
}
"""

SHADERS = [
    Shader(
        "kernels.f16.wgsl",
        "// in float16",
        ("shader-f16",),
        {"maxComputeInvocationsPerWorkgroup": 32},
    ),
    Shader("kernels.wgsl", "// wgsl", limits={"maxComputeInvocationsPerWorkgroup": 64}),
]


def reference(x, ids):
    y = (x @ W).astype(np.float32)
    return {"flags": y[:, 0] > ids, "out": 2 * ids}


def make(webgpu=True, variants=VARIANTS, golden=True, cache=None, **parts):
    n = Dim("n", 6)
    x = Buffer("x", F32, (n, 4), "input")
    ids = Buffer("ids", I32, (n,), "input", model_dtype="int64")
    w = Buffer("w", F32, (4, 3), "constant", packed((0, 1), 1, 2))
    y = Buffer("y", F32, (n, 3))
    flags = Buffer("flags", I32, (n,), "output", model_dtype="bool")
    out = Buffer("out", I32, (n,), "output", model_dtype="int64")
    program = Program("main", (n,), (x, ids), (flags, out), {w: W})
    ios = [StepIO((x, w), (y,)), StepIO((y, ids), (flags,)), StepIO((ids,), (out,))]
    targets = ("wasm", "webgpu") if webgpu else ("wasm",)
    memory = plan([program], {target: [ios] for target in targets})
    at = {"X": x, "W": w, "Y": y, "IDS": ids, "FLAGS": flags, "OUT": out}
    defines = "\n".join(f"#define {k} ((void *){memory.wasm[b]})" for k, b in at.items())
    modules = compile_variants(defines + SOURCE, memory.total_bytes, variants, cache=cache)
    groups = (ceildiv(n, 64), n // n, n // n)
    calls = [
        step("MatMul_0", "contraction", (x, w, y), n * 24, n * 28 + 64),
        step("Greater_1", "elementwise", (y, ids, flags), n, n * 20),
        step("Mul_2", "elementwise", (ids, out), n, n * 8),
    ]
    names = ("product", "larger", "doubled")
    kernels = [
        KernelRecord(name, call.kernel.access, 1, call.kernel.kind)
        for name, call in zip(names, calls, strict=True)
    ]
    dispatches = [DispatchRecord(call, k, groups) for k, call in enumerate(calls)]
    record = ProgramRecord("main", program, calls, dispatches if webgpu else None)
    inputs = sample(3)
    samples = [GoldenSample(inputs, reference(**inputs))] if golden else []
    return assemble(
        [record],
        kernels if webgpu else [],
        memory,
        name="small",
        task={"name": "generic"},
        wasm=modules,
        shaders=SHADERS if webgpu else [],
        golden=samples,
        **parts,
    )


def step(label, kind, buffers, flops, size):
    """All but the last buffer are read."""
    access = ("read",) * (len(buffers) - 1) + ("write",)
    kernel = Kernel("", kind, buffers, access, (Dim("n", 6),), (), ())
    return Step(label, kernel, flops, size)


def sample(n):
    rng = np.random.default_rng(n)
    return {"x": rng.standard_normal((n, 4), np.float32), "ids": rng.integers(-2, 3, n)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bundle(cache):
    return make(
        cache=cache,
        assets={"labels.json": b"[]"},
        app=lambda plan: {"index.html": plan["name"].encode()},
    )


@pytest.fixture
def folder(bundle, tmp_path):
    return bundle.save(tmp_path / "dist")


@pytest.mark.parametrize("n", [1, 3, 6, 2])
def test_one_bundle_runs_every_length(bundle, n):
    inputs = sample(n)
    outputs = bundle.run(inputs)
    expected = reference(**inputs)
    assert list(outputs) == ["flags", "out"]
    for name, value in expected.items():
        assert outputs[name].dtype == value.dtype
        np.testing.assert_array_equal(outputs[name], value)


def test_outputs_are_copies(bundle):
    first = bundle.run({"x": np.zeros((1, 4), np.float32), "ids": [5]})["out"]
    bundle.run({"x": np.zeros((1, 4), np.float32), "ids": [9]})
    assert first.tolist() == [10]


def test_check_replays_the_samples(bundle):
    checks = bundle.check()
    assert [(c.sample, c.output, c.ok) for c in checks] == [(0, "flags", True), (0, "out", True)]
    assert all(c.max_abs_error == 0 for c in checks)


def test_check_fails_when_the_weights_are_others(bundle):
    files = dict(bundle.files)
    golden = bytearray(files["model/golden.bin"])
    offset = bundle.plan["golden"][0]["outputs"]["out"]["offset"]
    golden[offset] ^= 1
    flags, out = Bundle(files | {"model/golden.bin": bytes(golden)}).check()
    assert flags.ok
    assert not out.ok
    assert out.max_abs_error == 1


def test_profile_times_every_step(bundle):
    steps = bundle.profile(sample(6), repeats=2)
    assert [s.label for s in steps] == ["MatMul_0", "Greater_1", "Mul_2"]
    assert [s.flops for s in steps] == [144, 6, 6]
    assert all(s.seconds > 0 for s in steps)
    assert bundle.profile(repeats=1)[0].flops == 72  # on the golden sample, n = 3


def test_plan_says_what_docs_plan_md_promises(bundle):
    plan = bundle.plan
    assert plan["dims"] == [{"name": "n", "min": 1, "max": 6}]
    assert plan["programs"][0]["steps"]["webgpu"][0]["workgroups"] == [["ceildiv", "n", 64], 1, 1]
    assert plan["programs"][0]["inputs"][1] == {
        "name": "ids", "dtype": "int64", "shape": ["n"], "buffer": 1,
    }  # fmt: skip
    assert [v["features"] for v in plan["wasm"]["variants"]] == [list(v.features) for v in VARIANTS]
    assert plan["wasm"]["memory"]["stacks"] == {"offset": 65536, "bytes": 65536}
    assert plan["webgpu"]["limits"] == {
        "maxStorageBufferBindingSize": 96,
        "maxBufferSize": 96,
        "maxStorageBuffersPerShaderStage": 3,
    }
    variants = plan["webgpu"]["variants"]
    assert [v["file"] for v in variants] == [s.file for s in SHADERS]
    assert [v["features"] for v in variants] == [["shader-f16"], []]
    assert [v["limits"] for v in variants] == [s.limits for s in SHADERS]
    assert bundle.files["model/kernels.f16.wgsl"] == b"// in float16"
    assert plan["webgpu"]["slots"][0] == {"bytes": 64, "weights": 0}
    assert len(plan["weights"]["shards"]) == 1
    assert bundle.files["model/labels.json"] == b"[]"
    assert bundle.files["index.html"] == b"small"


def test_saved_and_loaded_it_runs_the_same(folder, bundle):
    loaded = Bundle.load(folder)
    assert loaded.plan == bundle.plan
    assert sorted(loaded.files) == sorted(bundle.files)
    assert len(loaded.files) == len(bundle.files)
    np.testing.assert_array_equal(loaded.run(sample(4))["out"], bundle.run(sample(4))["out"])
    assert all(c.ok for c in loaded.check())
    again = loaded.save(folder)  # over itself
    assert Bundle.load(again).plan == bundle.plan


def test_save_leaves_other_folders_alone(bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(OutputFolderError, match="left alone"):
        bundle.save(tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": None}, "'ids' is missing"),
        ({"z": 1}, "no input 'z'"),
        ({"x": np.zeros((3, 4))}, r"'x' is float64, expected float32 \[n, 4\]"),
        ({"ids": np.zeros(3, np.int32)}, r"'ids' is int32, expected int64 \[n\]"),
        ({"x": np.zeros((3, 5), np.float32)}, r"shape \[3, 5\], expected float32 \[n, 4\], which"),
        ({"x": np.zeros(12, np.float32)}, r"shape \[12\], expected float32 \[n, 4\]"),
        ({"ids": np.zeros(2, int)}, r"shape \[2\], expected int64 \[n\], and elsewhere 'n' is 3"),
        ({"x": np.zeros((7, 4), np.float32), "ids": np.zeros(7, int)}, "'n' is 7; .* 1 to 6"),
        ({"x": np.zeros((0, 4), np.float32), "ids": np.zeros(0, int)}, "'n' is 0; .* 1 to 6"),
        ({"ids": np.full(3, 2**40)}, "'ids' holds 1099511627776, which does not fit"),
        ({"ids": ["a", "b", "c"]}, "'ids' can't be made int64"),
        ({"ids": [1.5, 2, 3]}, "'ids' can't be made int64"),
        ({"x": [[1, 2], [3]]}, "'x' can't be made float32"),
    ],
)
def test_wrong_inputs_are_named(bundle, change, message):
    inputs = {k: v for k, v in (sample(3) | change).items() if v is not None}
    with pytest.raises(InputError, match=message):
        bundle.run(inputs)


def test_dims_and_programs_by_name(bundle):
    assert bundle.run(sample(3), program="main", dims={"n": 3})["out"].shape == (3,)
    with pytest.raises(InputError, match="no dimension 'm'"):
        bundle.run(sample(3), dims={"m": 3})
    with pytest.raises(InputError, match="elsewhere 'n' is 2"):
        bundle.run(sample(3), dims={"n": 2})
    with pytest.raises(InputError, match="no program 'decode'"):
        bundle.run(sample(3), program="decode")


def files_of(folder):
    plan = json.loads((folder / "model/plan.json").read_bytes())
    return {
        "shard": plan["weights"]["shards"][0]["file"],
        "module": "simd.wasm",
        "shader": "kernels.wgsl",
    }


@pytest.mark.parametrize("kind", ["shard", "module", "shader"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "is missing"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "bytes, the plan says"),
        (lambda p: p.write_bytes(b"?" + p.read_bytes()[1:]), "SHA-256"),
    ],
    ids=["missing", "truncated", "damaged"],
)
def test_damaged_files_are_named(folder, kind, damage, message):
    path = folder / "model" / files_of(folder)[kind]
    damage(path)
    with pytest.raises(ShardError, match=message) as caught:
        Bundle.load(folder)
    assert str(path) in caught.value.message
    assert "copy" in caught.value.hint


def test_golden_file_missing_or_short(folder):
    golden = folder / "model/golden.bin"
    golden.write_bytes(golden.read_bytes()[:70])
    with pytest.raises(ShardError, match=r"golden\.bin is truncated"):
        Bundle.load(folder).check()
    golden.unlink()
    with pytest.raises(ShardError, match=r"golden\.bin is missing"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model/plan.json").unlink(), "there is no model/plan.json"),
        (lambda f: (f / "model/plan.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "model/plan.json").write_text("[]"), "the document"),
        (shutil.rmtree, "there is no model/plan.json"),
    ],
)
def test_no_bundle(folder, change, message):
    change(folder)
    with pytest.raises(InvalidModelError, match=message) as caught:
        Bundle.load(folder)
    assert str(folder) in caught.value.message


def test_bundle_for_wasm_alone(cache):
    bundle = make(webgpu=False, variants=VARIANTS[-1:], cache=cache)
    assert bundle.plan["webgpu"] is None
    assert bundle.plan["buffers"][0]["webgpu"] is None
    assert all(c.ok for c in bundle.check())


def test_bundle_without_wasm_says_what_to_do(bundle):
    document = json.loads(bundle.files["model/plan.json"])
    document["wasm"] = None
    only_gpu = Bundle({"model/plan.json": json.dumps(document).encode()})
    with pytest.raises(UnsupportedModelError, match="no WebAssembly build"):
        only_gpu.run(sample(1))


def test_without_golden_samples(cache):
    bundle = make(golden=False, cache=cache)
    assert "model/golden.bin" not in bundle.files
    assert bundle.check() == []
    with pytest.raises(InputError, match="no golden sample"):
        bundle.profile()


def test_dimensions_get_names_that_are_identifiers():
    dims = tuple(Dim(n, 8) for n in ("batch size", "batch_size", "2n", "past + 1"))
    x = Buffer("x", F32, dims, "input")
    y = Buffer("y", F32, (dims[0] * 2, dims[3]), "output")
    program = Program("main", dims, (x,), (y,))
    memory = plan([program], {"webgpu": [[StepIO((x,), (y,))]]})
    kernel = Kernel("", "elementwise", (x, y), ("read", "write"), (dims[2],), (), ())
    call = Step("Copy", kernel, dims[1] + 0, dims[1] + 0)
    made = assemble(
        [ProgramRecord("main", program, None, [DispatchRecord(call, 0, dims[:3])])],
        [KernelRecord("copy", ("read", "write"), 1, "elementwise")],
        memory,
        name="m", task={"name": "generic"}, wasm=None, shaders=SHADERS[1:],
    ).plan  # fmt: skip
    names = ["batch_size_", "batch_size", "dim_2n", "past_1"]
    assert [d["name"] for d in made["dims"]] == names
    assert made["programs"][0]["inputs"][0]["shape"] == names
    assert made["programs"][0]["outputs"][0]["shape"] == [["*", "batch_size_", 2], "past_1"]
    assert made["programs"][0]["steps"]["webgpu"][0]["params"] == ["dim_2n"]


def test_edges_must_be_row_major(cache):
    x = Buffer("x", F32, (2, 3), "input", row_major((1, 0)))
    y = Buffer("y", F32, (2, 3), "output")
    program = Program("main", (), (x,), (y,))
    memory = plan([program], {"wasm": [[StepIO((x,), (y,))]]})
    record = ProgramRecord("main", program, [], None)
    with pytest.raises(ValueError, match="x is at the model's edge"):
        assemble([record], [], memory, name="m", task={"name": "generic"}, wasm=None, shaders=[])


def test_pieces_are_hashed_one_by_one_and_the_last_may_be_short():
    hashes = [hashlib.sha256(data).hexdigest() for data in (b"abcd", b"efgh", b"ij")]
    assert piece_hashes(b"abcdefghij", 4) == hashes


def test_shards_tile_the_weights_and_are_named_by_their_hash():
    c = Buffer("c", F32, (100,), "constant")
    d = Buffer("d", F32, (30,), "constant")
    values = {c: np.arange(100), d: np.ones(30)}
    space = lay_out_weights(values, [c, d])
    plan, files = write_shards(space, limit=256)
    assert [(s["offset"], s["bytes"]) for s in plan["shards"]] == [(0, 256), (256, 256), (512, 120)]
    assert plan["bytes"] == 632
    for shard in plan["shards"]:
        data = files[shard["file"]]
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
        assert shard["file"] == shard["sha256"] + ".bin"
        assert shard["pieces"] == [shard["sha256"]]  # the whole of it, being small
    assert plan["pieceBytes"] == PIECE_BYTES
    joined = b"".join(files[s["file"]] for s in plan["shards"])
    assert np.frombuffer(joined[:400], np.float32).tolist() == list(range(100))
    assert np.frombuffer(joined[512:], np.float32).tolist() == [1.0] * 30
