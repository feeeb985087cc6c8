"""Documentation that cannot drift: blocks run, links lead somewhere, help is as printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from playwright.sync_api import Playwright

import webkiln
from webkiln.browser import chromium_flags, find_chromium
from webkiln.server import Server

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    found = re.findall(
        rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, f"{page.name} has no {language} block"
    return found


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the small model that the README's examples speak of."""
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    toy (float[1, 64] x) => (float[1, 8] y) { t = MatMul(x, w) y = Relu(t) }
    """
    model = onnx.parser.parse_model(
        text.replace("(float[1, 8] y)", "(float[1, 8] y) <float[64, 8] w>")
    )
    weights = np.random.default_rng(0).standard_normal((64, 8), dtype=np.float32)
    del model.graph.value_info[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs_runtime() -> None:
    if not (ROOT / "src/webkiln/runtime/dist/webkiln.js").exists():
        pytest.skip("the browser runtime is not built: make runtime")


def test_python_blocks_of_the_readme_run(workshop: Path) -> None:
    needs_runtime()
    names: dict[str, object] = {}
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), names)
    outputs = names["outputs"]
    assert isinstance(outputs, dict)
    assert outputs["y"].shape == (1, 8)
    assert (workshop / "dist/index.html").exists()


@pytest.mark.browser
def test_the_script_of_the_readme_runs_in_a_page(workshop: Path, playwright: Playwright) -> None:
    needs_runtime()
    if find_chromium() is None:
        pytest.skip("no Chromium: make browser")
    webkiln.build("model.onnx", output="dist")
    (script,) = blocks(ROOT / "README.md", "js")
    page_html = f'<script type="module">{script}\nwindow.shape = y.shape;</script>'
    (workshop / "dist/readme.html").write_text(page_html)
    with Server(workshop / "dist", port=0) as server:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=chromium_flags())
        page = browser.new_page()
        page.goto(f"{server.url}readme.html")
        page.wait_for_function("() => window.shape !== undefined", timeout=60_000)
        assert page.evaluate("[...window.shape]") == [1, 8]
        browser.close()


def test_webkiln_commands_of_the_readme_run(workshop: Path) -> None:
    needs_runtime()
    text = "".join(blocks(ROOT / "README.md", "sh"))
    text += "\n".join(re.findall(r"`(webkiln [^`]+)`", (ROOT / "README.md").read_text()))
    commands = [line.split("#")[0] for line in text.splitlines() if line.startswith("webkiln ")]
    ran = []
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "serve" or len(words) < 2:
            continue  # serves until Ctrl-C; test_cli.py has it
        environment = {**os.environ, "WEBKILN_CACHE": str(workshop / "cache")}
        result = subprocess.run(
            [sys.executable, "-m", "webkiln", *words],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        ran.append(words[0])
    assert set(ran) >= {"build", "check", "inspect"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_and_paths_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    for line in re.findall(r"`make ([^`]+)`|^make (?:-C \S+ )?([^\n#]+)", text, re.MULTILINE):
        for word in shlex.split("".join(line)):
            if re.fullmatch(r"[a-z-]+", word):
                assert re.search(rf"^{word}:", MAKEFILE, re.MULTILINE), f"make {word}"
    for path in re.findall(r"`((?:src|tests|docs|scripts|examples)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or path.endswith("/"), f"{page.name} speaks of {path}"


def test_the_command_line_reference_is_what_help_prints() -> None:
    command = [sys.executable, str(ROOT / "scripts/cli_docs.py"), "--check"]
    result = subprocess.run(command, cwd=ROOT)
    assert result.returncode == 0, "run python scripts/cli_docs.py"


def test_debug_levels_are_documented() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    for level in range(1, 5):
        assert re.search(rf"^\| {level} \| ", text, re.MULTILINE)


def test_every_command_is_in_the_reference() -> None:
    from webkiln.cli import app

    text = (ROOT / "docs/cli.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"## webkiln {command.callback.__name__}\n" in text


def test_the_layers_in_contributing_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = " ".join(contracts["contracts"][0]["layers"])
    line = next(
        line
        for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines()
        if line.startswith("ir ←")
    )
    for name in re.findall(r"\w+", line):
        assert f"webkiln.{name}" in layers, name


def test_the_changelog_has_this_version() -> None:
    assert webkiln.__version__ in (ROOT / "CHANGELOG.md").read_text()
