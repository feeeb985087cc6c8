"""Bad input through the whole command: one clear message, an exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

import webkiln as package
from webkiln import cli
from webkiln.errors import UnsupportedModelError, WebkilnError

RUNTIME = Path(package.__file__).parent / "runtime/dist/webkiln.js"
pytestmark = pytest.mark.skipif(not RUNTIME.exists(), reason="runtime not built: make runtime")

HEADER = '<ir_version: 10, opset_import: ["" : 21, "strange" : 1]>\n'


def save(path: Path, text: str, external: bool = False) -> Path:
    """A model from ONNX's text form, `w` a constant [64, 8]."""
    model = onnx.parser.parse_model(HEADER + text)
    if "<float[64, 8] w>" in text:
        weights = np.random.default_rng(0).standard_normal((64, 8), dtype=np.float32)
        del model.graph.value_info[:]
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(
        model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0
    )
    return path


TOY = """toy (float[1, 64] x) => (float[1, 8] y) <float[64, 8] w> {
    t = MatMul(x, w)
    y = Relu(t)
}"""


@pytest.fixture
def webkiln(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in an empty folder; gives the exit code and the error's two lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WEBKILN_DEBUG", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        errors = capfd.readouterr().err
        assert "Traceback" not in errors, errors
        message = errors[errors.index("error: ") :].strip().split("\ntry: ")
        return int(exit_.value.code or 0), message[0], message[1] if len(message) > 1 else ""

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "toy"
    package.build(save(folder.parent / "toy.onnx", TOY), output=folder, targets=["wasm"])
    return folder


def copied(bundle: Path, to: Path) -> Path:
    for path in bundle.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(bundle)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


def test_no_such_file(webkiln, tmp_path: Path) -> None:
    code, error, hint = webkiln("build", "none.onnx", "-o", "dist")
    assert code == 2
    assert "none.onnx" in error
    assert hint
    assert list(tmp_path.iterdir()) == []


def test_not_a_model(webkiln, tmp_path: Path) -> None:
    (tmp_path / "cat.onnx").write_bytes(b"meow" * 100)
    code, error, _ = webkiln("build", "cat.onnx")
    assert code == 2
    assert "cat.onnx" in error
    assert not (tmp_path / "dist").exists()


def test_truncated_model(webkiln, tmp_path: Path) -> None:
    path = save(tmp_path / "toy.onnx", TOY)
    path.write_bytes(path.read_bytes()[:-700])
    code, error, _ = webkiln("build", path)
    assert code == 2
    assert "toy.onnx" in error
    assert not (tmp_path / "dist").exists()


def test_missing_external_data(webkiln, tmp_path: Path) -> None:
    path = save(tmp_path / "toy.onnx", TOY, external=True)
    (tmp_path / "toy.onnx.data").unlink()
    code, error, hint = webkiln("build", path)
    assert code == 2
    assert "toy.onnx.data" in error
    assert hint


def test_all_unsupported_operators_are_listed_at_once(webkiln, tmp_path: Path) -> None:
    text = """odd (float[1, 4] x) => (float[1, 4] y) {
        a = strange.First(x)
        b = Relu(a)
        c = strange.Second(x)
        y = Add(b, c)
    }"""
    code, error, hint = webkiln("build", save(tmp_path / "odd.onnx", text))
    assert code == UnsupportedModelError.exit_code == 3
    assert "First" in error
    assert "Second" in error
    assert hint
    assert not (tmp_path / "dist").exists()


def test_a_symbolic_dimension_needs_a_bound(webkiln, tmp_path: Path) -> None:
    text = "free (float[1, length] x) => (float[1, length] y) { y = Relu(x) }"
    code, error, hint = webkiln("build", save(tmp_path / "free.onnx", text))
    assert code == 2
    assert "length" in error
    assert "--max length=" in hint


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--task", "chess"], "chess"),
        (["--targets", "cuda"], "cuda"),
        (["--quantize", "q1"], "q1"),
    ],
)
def test_options_that_do_not_exist(webkiln, tmp_path: Path, options: list[str], word: str) -> None:
    code, error, hint = webkiln("build", save(tmp_path / "toy.onnx", TOY), *options)
    assert code == 2
    assert word in error
    assert hint


def test_a_folder_that_holds_something_else(webkiln, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    code, error, hint = webkiln("build", save(tmp_path / "toy.onnx", TOY), "-o", "photos")
    assert code == 2
    assert "photos" in error
    assert "-o" in hint
    assert (tmp_path / "photos/cat.jpg").read_bytes() == b"cat"


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("z", np.zeros((1, 64), np.float32), ["z", "x"]),
        ("x", np.zeros((2, 64), np.float32), ["x", "64"]),
        ("x", np.array([["a"] * 64]), ["x", "float32"]),
    ],
)
def test_wrong_inputs_of_run(
    webkiln, bundle: Path, tmp_path: Path, name: str, array: np.ndarray, words: list[str]
) -> None:
    np.save(tmp_path / "in.npy", array)
    code, error, hint = webkiln("run", bundle, "--input", f"{name}={tmp_path}/in.npy")
    assert code == 2
    for word in words:
        assert word in error + hint


def test_a_file_that_holds_no_arrays(webkiln, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.npz").write_bytes(b"no arrays")
    code, error, _ = webkiln("run", bundle, "--input", tmp_path / "in.npz")
    assert code == 2
    assert "in.npz" in error


def shard(folder: Path) -> Path:
    plan = json.loads((folder / "model/plan.json").read_bytes())
    return folder / "model" / plan["weights"]["shards"][0]["file"]


def test_a_shard_that_fails_its_hash(webkiln, bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "toy")
    content = bytearray(shard(folder).read_bytes())
    content[100] ^= 1
    shard(folder).write_bytes(content)
    code, error, _ = webkiln("check", folder)
    assert code == 2
    assert shard(folder).name in error
    assert "SHA-256" in error


def test_a_missing_shard(webkiln, bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "toy")
    name = shard(folder).name
    shard(folder).unlink()
    code, error, _ = webkiln("check", folder)
    assert code == 2
    assert name in error
    assert "missing" in error


def test_a_failed_check_is_exit_code_1(bundle: Path, tmp_path: Path) -> None:
    folder = copied(bundle, tmp_path / "toy")
    plan = json.loads((folder / "model/plan.json").read_bytes())
    golden = np.fromfile(folder / "model/golden.bin", np.uint8)
    golden[plan["golden"][0]["outputs"]["y"]["offset"] :].view(np.float32)[0] = 99
    golden.tofile(folder / "model/golden.bin")
    with pytest.raises(SystemExit) as exit_:
        cli.main(["check", str(folder), "--json"])
    assert exit_.value.code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped as it begins to compile, with a cache of its own so that there is something to do."""
    model = save(tmp_path / "toy.onnx", TOY)
    environment = {**os.environ, "WEBKILN_CACHE": str(tmp_path / "cache"), "WEBKILN_DEBUG": ""}
    command = [sys.executable, "-m", "webkiln", "build", str(model), "-o", str(tmp_path / "dist")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "compile" in line or "schedule" in line:
                break
        time.sleep(0.05)
        process.send_signal(number)
        rest = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.strip().endswith("stopped")
    kept = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert kept == {"toy.onnx"}


def test_every_error_has_a_name_and_an_exit_code() -> None:
    import webkiln.errors as errors

    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, WebkilnError)
        assert kind("message", hint="hint").exit_code in {1, 2, 3}
