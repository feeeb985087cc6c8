"""Output folders appear whole or not at all, and foreign ones are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from webkiln.errors import OutputFolderError
from webkiln.output import atomic_folder, ensure_replaceable, is_bundle

PLAN = '{"format": "webkiln.plan", "version": 1}'


def write_bundle(folder: Path, text: str = "old") -> None:
    (folder / "model").mkdir(parents=True)
    (folder / "model/plan.json").write_text(PLAN)
    (folder / "index.html").write_text(text)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "a/b/dist"
    with atomic_folder(target) as folder:
        (folder / "index.html").write_text("new")
        assert not target.exists()
    assert (target / "index.html").read_text() == "new"
    assert leftovers(target.parent) == ["dist"]
    assert target.stat().st_mode & 0o777 == 0o777 & ~_umask()


def test_an_older_bundle_is_replaced_whole(tmp_path: Path) -> None:
    write_bundle(tmp_path / "dist")
    with atomic_folder(tmp_path / "dist") as folder:
        (folder / "new.txt").write_text("new")
        assert (tmp_path / "dist/index.html").read_text() == "old"
    assert leftovers(tmp_path / "dist") == ["new.txt"]
    assert leftovers(tmp_path) == ["dist"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_build_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    write_bundle(tmp_path / "dist")
    with pytest.raises(error), atomic_folder(tmp_path / "dist") as folder:
        (folder / "half").write_text("half")
        raise error
    assert (tmp_path / "dist/index.html").read_text() == "old"
    assert leftovers(tmp_path) == ["dist"]


def test_a_failed_build_leaves_nothing_new(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a/b/dist"):
        raise RuntimeError
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import sys, time\nfrom webkiln.output import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'half').write_text('half')\n    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "dist")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        process.wait(timeout=10)
    assert process.returncode != 0
    assert leftovers(tmp_path) == []


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    with atomic_folder(tmp_path / "dist") as folder:
        (folder / "index.html").write_text("new")
    assert leftovers(tmp_path / "dist") == ["index.html"]


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    with (
        pytest.raises(OutputFolderError, match="photos is not empty"),
        atomic_folder(tmp_path / "photos"),
    ):
        pytest.fail("must not be entered")
    assert leftovers(tmp_path / "photos") == ["cat.jpg"]


def test_a_folder_filled_meanwhile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError), atomic_folder(tmp_path / "dist"):
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist/other").write_text("other")
    assert leftovers(tmp_path) == ["dist"]
    assert leftovers(tmp_path / "dist") == ["other"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dist").write_text("file")
    with pytest.raises(OutputFolderError, match="is a file"):
        ensure_replaceable(tmp_path / "dist")


def test_the_working_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputFolderError, match="will not write"):
        ensure_replaceable(".")


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("file")
    with pytest.raises(OutputFolderError, match="cannot write in"):
        ensure_replaceable(tmp_path / "file/dist")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputFolderError, match="cannot write in"):
        ensure_replaceable(tmp_path / "locked/dist")


@pytest.mark.parametrize("plan", ["", "{", "[]", '{"format": "other"}'])
def test_what_is_no_bundle(tmp_path: Path, plan: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/plan.json").write_text(plan)
    assert not is_bundle(tmp_path)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
