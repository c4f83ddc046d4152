"""One bad or doubtful configuration, one expected stderr of `fastgate check`: tests/golden/config."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgate.cli import main

GOLDEN = Path(__file__).parent / "golden" / "config"
CASES = sorted(path.name for path in GOLDEN.glob("*.toml"))
VALID = sorted(path.name for path in (GOLDEN / "valid").glob("*.toml"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTGATE_TEST_NOT_SET", raising=False)
    monkeypatch.setenv("FASTGATE_TEST_EMPTY", "")
    monkeypatch.setenv("FASTGATE_TEST_LINES", "hunter2\nhunter3")
    monkeypatch.setenv("FASTGATE_TEST_TOKEN", "hunter2")


@pytest.mark.parametrize("name", CASES)
def test_check_tells_what_is_wrong(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], update_golden: bool
) -> None:
    monkeypatch.chdir(GOLDEN)
    code = main(["check", "-c", name])
    out, err = capsys.readouterr()
    expected = (GOLDEN / name).with_suffix(".expected")
    if update_golden:
        expected.write_text(err)
    assert err == expected.read_text()
    only_warnings = name.startswith("warn_")
    assert code == (0 if only_warnings else 1)
    assert bool(out) == only_warnings
    assert "hunter" not in err
    if only_warnings:
        assert main(["check", "-c", name, "--strict"]) == 1
        assert "warning: " not in capsys.readouterr().err


def test_there_are_at_least_sixty_bad_configurations() -> None:
    assert len([name for name in CASES if not name.startswith("warn_")]) >= 60


def test_every_expected_file_has_its_configuration() -> None:
    assert sorted(path.with_suffix(".toml").name for path in GOLDEN.glob("*.expected")) == CASES


@pytest.mark.parametrize("name", VALID)
def test_valid_configurations_pass_strictly(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(GOLDEN / "valid")
    code = main(["check", "--strict", "-c", name])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}: ok (")
