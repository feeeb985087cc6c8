"""What is shipped: public names, licence, pinned requirements, a wheel with the runtime inside."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import webkiln

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "scripts/constraints.txt").read_text()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    return normal(re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0])


def pinned() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in CONSTRAINTS.splitlines()]
    return {normal(name): version for name, version in (x.split("==") for x in lines if "==" in x)}


def test_every_module_exports_what_it_says() -> None:
    checked = 0
    for info in pkgutil.walk_packages(webkiln.__path__, "webkiln."):
        if info.name.endswith("__main__"):
            continue
        source = Path(str(importlib.util.find_spec(info.name).origin)).read_text()
        names = [
            ast.literal_eval(node.value)
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ]
        if names:
            module = importlib.import_module(info.name)
            assert sorted(set(names[0])) == sorted(names[0]), info.name
            for name in names[0]:
                assert hasattr(module, name), f"{info.name} exports {name}"
            checked += 1
    assert checked > 10


def test_public_names() -> None:
    assert set(webkiln.__all__) == {"Bundle", "WebkilnError", "__version__", "build"}
    for name in webkiln.__all__:
        assert getattr(webkiln, name) is not None
    assert set(webkiln.__all__) <= set(dir(webkiln))
    assert (ROOT / "src/webkiln/py.typed").exists()


def test_importing_is_light() -> None:
    """`webkiln --help` must not wait for the compiler's libraries."""
    program = (
        "import sys, webkiln.cli; "
        "print([m for m in ('onnx', 'onnxruntime', 'torch', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_every_requirement_is_pinned_for_make() -> None:
    groups = PROJECT["dependency-groups"]
    requirements = [*PROJECT["project"]["dependencies"]]
    for group in groups.values():
        requirements += [item for item in group if isinstance(item, str)]
    missing = {requirement_name(requirement) for requirement in requirements} - pinned().keys()
    assert not missing


def test_pins_are_within_the_declared_ranges() -> None:
    from packaging.requirements import Requirement

    versions = pinned()
    for text in PROJECT["project"]["dependencies"]:
        requirement = Requirement(text)
        version = versions[normal(requirement.name)]
        assert requirement.specifier.contains(version), f"{text} excludes {version}"


def test_the_base_install_has_no_torch() -> None:
    names = {requirement_name(item) for item in PROJECT["project"]["dependencies"]}
    assert not names & {"torch", "tensorflow", "transformers", "jax", "playwright"}
    assert "torch" not in pinned()


def test_licence_and_notices() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert set(PROJECT["project"]["license-files"]) == {"LICENSE", "NOTICE"}


def test_materials_name_exact_versions() -> None:
    lines = (ROOT / "scripts/materials.txt").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[\w-]+==[\d.]+", line), line


def test_shell_scripts_parse() -> None:
    for script, shell in ((".ci/run", "bash"), ("scripts/make_venv.sh", "sh")):
        assert subprocess.run([shell, "-n", str(ROOT / script)]).returncode == 0
        assert os.access(ROOT / script, os.X_OK)


def test_make_knows_its_targets() -> None:
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True
    ).stdout
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", shown, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.slow
def test_the_wheel_has_what_a_bundle_needs(tmp_path: Path) -> None:
    """Built from a copy, so that this works beside other tests; the runtime's build is reused."""
    if not (ROOT / "src/webkiln/runtime/dist/webkiln.js").exists():
        pytest.skip("the browser runtime is not built: make runtime")
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(
        ".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis", "results"
    )
    shutil.copytree(ROOT, source, ignore=ignore, symlinks=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    for name in (
        "webkiln/runtime/dist/webkiln.js",
        "webkiln/runtime/dist/NOTICES.txt",
        "webkiln/demo/emotion.safetensors",
        "webkiln/gallery/index.html",
        "webkiln/inspect/page.js",
        "webkiln/bench/peak.c",
        "webkiln/targets/wasm_runtime.h",
        "webkiln/py.typed",
    ):
        assert name in names, name
    assert not [name for name in names if "node_modules" in name or name.endswith(".map")]
    assert not [name for name in names if name.startswith("webkiln/runtime/src")]
    licences = [name for name in names if ".dist-info/licenses/" in name]
    assert {Path(name).name for name in licences} == {"LICENSE", "NOTICE"}
