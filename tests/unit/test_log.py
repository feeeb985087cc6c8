"""WEBKILN_DEBUG: what each level lets through."""

from __future__ import annotations

import pytest

from webkiln.log import debug, debug_level, silent, stage


@pytest.mark.parametrize(
    ("value", "level"), [(None, 0), ("", 0), ("2", 2), ("verbose", 0), ("-1", 0)]
)
def test_the_level_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, level: int
) -> None:
    monkeypatch.delenv("WEBKILN_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("WEBKILN_DEBUG", value)
    assert debug_level() == level


@pytest.mark.parametrize("level", range(5))
def test_a_level_shows_itself_and_those_below(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], level: int
) -> None:
    monkeypatch.setenv("WEBKILN_DEBUG", str(level))
    for number in range(1, 5):
        debug(number, f"message {number}")
    captured = capfd.readouterr()
    assert captured.err.splitlines() == [f"message {number}" for number in range(1, level + 1)]
    assert captured.out == ""


def test_stages_are_timed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEBKILN_DEBUG", "1")
    with stage("lower"):
        pass
    assert capfd.readouterr().err.startswith("webkiln: lower ")


def test_a_failed_stage_is_timed_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEBKILN_DEBUG", "1")
    with pytest.raises(ValueError), stage("lower"):
        raise ValueError
    assert "lower" in capfd.readouterr().err


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    silent("compile", 1, 2, "kernel")
    assert capfd.readouterr() == ("", "")
