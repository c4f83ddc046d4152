"""Endpoints files: what they hold, their errors with line and column, and who reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.cli import main
from fastgate.config import ConfigError, load
from fastgate.config.endpoints_file import parse_endpoints
from fastgate.config.json_positions import JsonPositions
from fastgate.config.model import ListedEndpoint

JSON = """{"endpoints": [
  "a:1", {"address": "[::1]:2", "weight": 3, "region": "eu", "zone": "z", "state": "down"}
]}"""
TOML = 'endpoints = ["a:1", { address = "[::1]:2", weight = 3, region = "eu", zone = "z", state = "down" }]'
GATEWAY = """
[[listeners]]
bind = "127.0.0.1:8080"
[upstreams.u]
endpoints_file = "list.json"
[[routes]]
name = "r"
upstream = "u"
"""


def errors_of(text: str, suffix: str = ".json") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_endpoints(text, suffix, "f")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(("text", "suffix"), [(JSON, ".json"), (TOML, ".toml"), ("\ufeff" + JSON, ".json")])
def test_both_forms_say_the_same(text: str, suffix: str) -> None:
    assert parse_endpoints(text, suffix, "f") == (
        ListedEndpoint(address="a:1", host="a", port=1),
        ListedEndpoint(address="[::1]:2", host="::1", port=2, weight=3, region="eu", zone="z", state="down"),
    )


@pytest.mark.parametrize(("text", "suffix"), [('{"endpoints": []}', ".json"), ("endpoints = []", ".toml")])
def test_a_list_may_be_empty(text: str, suffix: str) -> None:
    assert parse_endpoints(text, suffix, "f") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1:1: JSON: expecting value"),
        ("{}", 'f:1:1: the file needs the key "endpoints"'),
        ("[]", 'f:1:1: expected { "endpoints": [ ... ] }'),
        ('{"endpoints": null}', "f:1:15: endpoints: expected an array"),
        ('{"endpoints": [\n"a:1",\n "a:1"]}', 'f:3:2: endpoints[1]: "a:1" is listed twice'),
        ('{"endpoints": [NaN]}', "f:1:16: endpoints[0]: expected a table, got the float nan"),
        ('{"endpoints":\r\n ["\ud800"]}', "f:2:3: endpoints[0]: expected"),
        ("[" * 100_000, "f:1:1: JSON: it is nested too deeply"),
        ("1" * 5000, "f:1:1: JSON: "),
    ],
)
def test_bad_json(text: str, message: str) -> None:
    first = errors_of(text)[0]
    assert first.startswith(message)
    assert first.isprintable()


@pytest.mark.parametrize("depth", range(100, 1000, 50))
def test_nesting_of_any_depth_is_an_error_with_a_place(depth: int) -> None:
    text = '{"endpoints": [], "x": ' + "[" * depth + "]" * depth + "}"
    assert errors_of(text)[0].startswith(("f:1:19: unknown key", "f:1:1: JSON: it is nested too deeply"))


def test_bad_toml() -> None:
    assert errors_of('endpoints = ["a:1",\n "b"]', ".toml")[0].startswith("f:2:2: endpoints[1]: expected")
    assert errors_of("endpoints = [", ".toml")[0].startswith("f:1:14: TOML: ")


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(values, st.sampled_from([None, 0, 1, 3]), st.booleans())
def test_every_place_of_json_is_where_its_value_stands(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    index = JsonPositions(text)
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)

    def check(value: Any, path: tuple[str | int, ...]) -> None:
        line, column = index.value(path)
        read, _ = json.JSONDecoder().raw_decode(text, starts[line - 1] + column - 1)
        assert read == value
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for part, inner in items:
            check(inner, (*path, part))
            if isinstance(value, dict):
                line, column = index.key((*path, part))
                assert json.JSONDecoder().raw_decode(text, starts[line - 1] + column - 1)[0] == part

    if isinstance(value, (dict, list)):
        check(value, ())


def test_running_leaves_the_file_to_its_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list that is broken at the moment must not keep the gateway from starting; `check` tells it."""
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text(GATEWAY)
    Path("list.json").write_text('{"endpoints": [')
    assert load("gateway.toml", strict=True).config.upstreams["u"].endpoints_file == "list.json"
    assert main(["check"]) == 1
    assert "list.json:1:16: JSON: expecting value" in capsys.readouterr().err
    Path("list.json").write_bytes(b"\xff")
    assert main(["check"]) == 1
    assert '"list.json" is not UTF-8' in capsys.readouterr().err


def test_the_number_of_errors_that_are_told_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(GATEWAY)
    (tmp_path / "list.json").write_text(json.dumps({"endpoints": list(range(1000))}))
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "gateway.toml"), read_endpoints=True)
    assert len(caught.value.problems) == 21
    assert "980 more errors" in str(caught.value)
