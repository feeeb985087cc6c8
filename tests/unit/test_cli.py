"""The command line: one message for what is wrong, exit codes, JSON where a program reads."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from webkiln import cli, server, terminal
from webkiln.errors import (
    CheckFailedError,
    InputError,
    PortInUseError,
    UnsupportedModelError,
    WebkilnError,
)


@pytest.fixture
def webkiln(capfd: pytest.CaptureFixture[str]):
    """Run the command in this process; gives (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(arguments))
        captured = capfd.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


def one_message(errors: str) -> tuple[str, str]:
    """The error and its hint, and nothing else."""
    lines = [line for line in errors.strip().splitlines() if line]
    assert len(lines) == 2, errors
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("try: ")
    return lines[0], lines[1]


def test_version_and_help(webkiln) -> None:
    code, out, _ = webkiln("--version")
    assert (code, out.split()[0]) == (0, "webkiln")
    code, out, _ = webkiln("--help")
    assert code == 0
    for command in ("build", "serve", "run", "check", "inspect", "bench", "demo"):
        assert f"  {command} " in out


@pytest.mark.parametrize("command", ["build", "serve", "run", "check", "inspect", "bench", "demo"])
def test_every_command_explains_itself(webkiln, command: str) -> None:
    code, out, _ = webkiln(command, "--help")
    assert code == 0
    assert f"webkiln {command}" in out


def test_wrong_usage_is_one_message(webkiln) -> None:
    code, out, errors = webkiln("build")
    assert (code, out) == (2, "")
    error, hint = one_message(errors)
    assert "MODEL" in error
    assert hint == "try: webkiln build --help"
    assert webkiln("--frobnicate")[0] == 2
    assert webkiln("frobnicate")[0] == 2


@pytest.mark.parametrize("pair", ["sequence", "sequence=", "=8", "sequence=many", "sequence=0"])
def test_bounds_must_be_pairs(webkiln, pair: str) -> None:
    code, _, errors = webkiln("build", "model.onnx", "--max", pair)
    assert code == 2
    assert repr(pair) in one_message(errors)[0]


def test_serving_a_missing_folder(webkiln, tmp_path: Path) -> None:
    code, _, errors = webkiln("serve", str(tmp_path / "none"))
    assert code == 2
    assert "does not exist" in one_message(errors)[0]


def test_serving_on_a_taken_port(webkiln, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("page")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = webkiln("serve", str(tmp_path), "--port", str(port))
    assert code == 2
    error, hint = one_message(errors)
    assert f"port {port} on localhost is in use" in error
    assert "--port" in hint


def test_a_demo_on_a_taken_port_builds_nothing(webkiln, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, errors = webkiln("demo", "-o", str(tmp_path / "demo"), "--port", port)
    assert code == 2
    assert "in use" in one_message(errors)[0]
    assert not (tmp_path / "demo").exists()


def test_an_unknown_app(webkiln, tmp_path: Path) -> None:
    code, _, errors = webkiln("demo", "--no-serve", "-o", str(tmp_path / "d"), "--apps", "chess")
    assert code == 2
    error, hint = one_message(errors)
    assert "chess" in error
    assert "photographs" in hint


def test_a_demo_leaves_foreign_folders_alone(webkiln, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, _, errors = webkiln("demo", "--no-serve", "-o", str(tmp_path))
    assert code == 2
    assert "holds no gallery" in one_message(errors)[0]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("command", ["check", "bench"])
def test_a_folder_that_is_no_bundle(webkiln, tmp_path: Path, command: str) -> None:
    code, _, errors = webkiln(command, str(tmp_path))
    assert code == 2
    assert str(tmp_path) in one_message(errors)[0]


def test_running_what_is_no_bundle(webkiln, tmp_path: Path) -> None:
    code, _, errors = webkiln("run", str(tmp_path), "--input", "x.png")
    assert code == 2
    assert "holds no bundle" in one_message(errors)[0]


def test_inspecting_what_does_not_exist(webkiln) -> None:
    code, _, errors = webkiln("inspect", "no/such/model.onnx")
    assert code == 2
    assert "no/such/model.onnx" in one_message(errors)[0]


def write_plan(folder: Path) -> None:
    step = {
        "label": "Add_0",
        "kind": "reduction",
        "reads": [0],
        "writes": [1],
        "flops": 4,
        "bytes": 32,
    }
    port = {"dtype": "float32", "shape": [4]}
    buffer = {"dtype": "float32", "bytes": 16, "webgpu": None}
    variant = {"file": "simd.wasm", "sha256": "0" * 64, "bytes": 4, "features": ["simd"]}
    plan = {
        "format": "webkiln.plan", "version": 1, "generator": "webkiln", "name": "toy", "dims": [],
        "programs": [{"name": "main", "steps": {"wasm": [step]},
                      "inputs": [port | {"name": "x", "buffer": 0}],
                      "outputs": [port | {"name": "y", "buffer": 1}]}],
        "kernels": [],
        "buffers": [buffer | {"name": "x", "role": "input", "wasm": 65536},
                    buffer | {"name": "y", "role": "output", "wasm": 65552}],
        "weights": {"bytes": 0, "pieceBytes": 4, "shards": []}, "webgpu": None,
        "wasm": {"variants": [variant], "maxThreads": 1,
                 "memory": {"bytes": 131072, "dims": 64, "weights": 131072,
                            "stacks": {"offset": 65536, "bytes": 65536}}},
        "golden": [], "task": {"name": "generic"},
    }  # fmt: skip
    (folder / "model").mkdir()
    (folder / "model/plan.json").write_text(json.dumps(plan))


def test_inspect_prints_json_alone(webkiln, tmp_path: Path) -> None:
    write_plan(tmp_path)
    code, out, _ = webkiln("inspect", str(tmp_path), "--json")
    assert code == 0
    assert json.loads(out)["programs"][0]["flops"] == 4


def test_inspect_prints_a_table(webkiln, tmp_path: Path) -> None:
    write_plan(tmp_path)
    code, out, _ = webkiln("inspect", str(tmp_path))
    assert code == 0
    assert "Add_0" in out
    assert "100.0%" in out


def test_inspect_writes_a_page(webkiln, tmp_path: Path) -> None:
    write_plan(tmp_path)
    page = tmp_path / "reports/toy.html"
    code, out, errors = webkiln("inspect", str(tmp_path), "--html", str(page))
    assert (code, out) == (0, "")
    assert str(page) in errors
    assert "<title>toy" in page.read_text()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("bad", hint="good"), 2),
        (PortInUseError("taken", hint="another"), 2),
        (UnsupportedModelError("no such operator", hint="another"), 3),
        (CheckFailedError("off", hint="look"), 1),
        (FileNotFoundError(2, "No such file or directory", "x"), 1),
    ],
)
def test_exit_codes(error: Exception, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert terminal.fail(error) == code
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_shows_where(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="odd") as caught:
        raise ValueError("[bold] odd")
    assert terminal.fail(caught.value) == 1
    shown = capfd.readouterr().err
    assert "Traceback" in shown
    assert "error: a fault in webkiln: ValueError: [bold] odd" in shown


def test_debugging_shows_tracebacks_of_expected_errors(
    webkiln, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBKILN_DEBUG", "1")
    _, _, errors = webkiln("inspect", "no/such/model.onnx")
    assert "Traceback" in errors
    assert "error: " in errors


def test_interrupting_is_no_error(webkiln, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve", interrupt)
    code, _, errors = webkiln("serve", ".")
    assert (code, errors.strip()) == (130, "stopped")


def test_serve_prints_its_address_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("page")
    command = [sys.executable, "-m", "webkiln", "serve", str(tmp_path), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://localhost:" in line
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def test_errors_show_their_hint() -> None:
    assert str(WebkilnError("no such thing", hint="another")) == "no such thing\ntry: another"
    assert str(WebkilnError("no such thing")) == "no such thing"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.50 KiB"),
        (24 << 20, "24.0 MiB"),
        (1 << 40, "1.00 TiB"),
    ],
)
def test_sizes_for_people(value: int, text: str) -> None:
    assert terminal.size(value) == text


def test_progress_off_a_terminal_is_a_line_a_stage(capfd: pytest.CaptureFixture[str]) -> None:
    with terminal.Bars() as bars:
        for done in range(3):
            bars("compile", done, 3, f"kernel {done}")
        bars("pack", 0, 1)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == "compile …\npack …\n"
