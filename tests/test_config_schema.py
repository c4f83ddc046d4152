"""The JSON Schema takes what `check` takes, refuses typos, and the reference page is up to date."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from fastgate.cli import main
from fastgate.config.plugin_types import BUILT_IN
from fastgate.config.reference import PLUGIN_MARK, plugin_reference, reference, renewed, renewed_plugin
from fastgate.config.schema import config_schema

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "config"
SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
CONTRACT: dict[str, Any] = tomllib.loads((GOLDEN / "valid" / "contract.toml").read_text())


def test_it_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", sorted(path.name for path in (GOLDEN / "valid").glob("*.toml")))
def test_valid_configurations_pass(name: str) -> None:
    VALIDATOR.validate(tomllib.loads((GOLDEN / "valid" / name).read_text()))


def test_doubtful_configurations_pass() -> None:
    for path in GOLDEN.glob("warn_*.toml"):
        VALIDATOR.validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize(
    "name",
    [
        "unknown_top_level_key", "unknown_key_typo", "unknown_key_inline_table", "unknown_key_in_match",
        "unknown_key_dotted", "table_for_array", "array_for_table", "string_for_integer",
        "integer_out_of_range", "boolean_for_integer", "string_for_boolean", "string_for_array",
        "duration_without_unit", "duration_integer", "size_forms", "byte_rate", "rate_words",
        "bind_missing", "bind_port_alone", "endpoints_empty", "endpoints_missing", "endpoint_weight",
        "balance_unknown", "route_without_name", "match_path_without_slash", "redirect_status",
        "respond_values", "plugin_without_use", "plugin_unknown_use", "plugin_key_of_another",
        "rate_limit_keys", "rate_limit_without_rate", "choice_typo", "match_conditions",
        "header_rules_values", "no_listeners", "secrets", "endpoint_url", "upstream_tls_string",
    ],
)  # fmt: skip
def test_bad_configurations_fail(name: str) -> None:
    assert not VALIDATOR.is_valid(tomllib.loads((GOLDEN / f"{name}.toml").read_text()))


def tables(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path] * isinstance(value, dict) + [p for key, item in items for p in tables(item, (*path, key))]


# Tables whose keys the user chooses take any key.
FREE = {"set", "add", "headers", "query", "cookies", "upstreams", "plugins"}


@pytest.mark.parametrize("path", [p for p in tables(CONTRACT) if not (p and p[-1] in FREE)], ids=str)
def test_an_unknown_key_fails_in_every_table(path: tuple[Any, ...]) -> None:
    document = copy.deepcopy(CONTRACT)
    table = document
    for part in path:
        table = table[part]
    table["colour"] = "red"
    assert not VALIDATOR.is_valid(document)


def test_every_key_is_described() -> None:
    for name, definition in SCHEMA["$defs"].items():
        assert definition["additionalProperties"] is (name == "OtherPlugin"), name
        assert definition["description"], name
        for key, schema in definition["properties"].items():
            assert schema["description"].endswith((".", ")")), f"{name}.{key}"


def test_defaults_are_valid_themselves() -> None:
    for name, definition in SCHEMA["$defs"].items():
        for key, schema in definition["properties"].items():
            if "default" in schema:
                validator = jsonschema.Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]})
                assert validator.is_valid(schema["default"]), f"{name}.{key}"


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == renewed(page), "run python -m fastgate.config.reference"


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "plugins").glob("*.md")), ids=lambda path: path.stem)
def test_the_page_of_a_plugin_is_up_to_date(path: Path) -> None:
    page = path.read_text()
    if path.stem in BUILT_IN:
        assert page == renewed_plugin(page, path.stem), "run python -m fastgate.config.reference"
    else:
        assert PLUGIN_MARK not in page


def test_the_reference_has_every_key() -> None:
    text = reference() + "".join(
        plugin_reference(name.removeprefix("plugins."))
        for name in SCHEMA["$defs"]
        if name.removeprefix("plugins.") in BUILT_IN
    )
    for definition in SCHEMA["$defs"].values():
        for key in definition["properties"]:
            assert f"`{key}`" in text or key == "use"


def test_the_keys_of_the_plugins_that_a_configuration_uses(capsys: pytest.CaptureFixture[str]) -> None:
    file = GOLDEN / "valid" / "plugins.toml"
    assert main(["schema", "-c", str(file)]) == 0
    validator = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    document = tomllib.loads(file.read_text())
    validator.validate(document)
    document["plugins"]["one"]["colour"] = "red"
    assert not validator.is_valid(document)
    VALIDATOR.validate(document)
    assert main(["schema", "-c", str(GOLDEN / "plugin_key_unknown.toml")]) == 1
    assert 'unknown key "greetings"' in capsys.readouterr().err


@pytest.fixture
def greeter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A validator of a schema in which the tests' plugin is one of those that ship."""
    monkeypatch.setitem(BUILT_IN, "greeter", "support.plugins.greeter:Greeter")
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator({**schema["properties"]["plugins"], "$defs": schema["$defs"]})


@pytest.mark.parametrize(
    "table",
    [
        {"use": "greeter"},
        {"use": "greeter", "timeout": "1s", "on_failure": "open", "report_only": True},
        {"use": "greeter", "first": {"text": "hi"}, "more": [{"text": "a", "times": 2}], "wait": "5s"},
        {"use": "greeter", "after": "x", "token": {"env": "TOKEN"}, "by_name": {"ada": {"text": "b"}}},
        {"use": "./mine.py", "whatever": 1},
        {"use": "../mine.py:Mine", "timeout": "1s"},
        {"use": "mine.inside:Mine"},
    ],
    ids=str,
)
def test_the_schema_takes_tables_of_plugins(greeter: Any, table: dict[str, Any]) -> None:
    greeter.validate({"x": table})


@pytest.mark.parametrize(
    "table",
    [
        {"use": "greter"},
        {"use": "greeter", "first": {}},
        {"use": "greeter", "colour": "red"},
        {"use": "greeter", "token": "hunter2"},
        {"use": "greeter", "timeout": 5},
        {"use": "./mine.py", "on_failure": "closd"},
        {"use": "mine.py"},
    ],
    ids=str,
)
def test_the_schema_refuses_tables_of_plugins(greeter: Any, table: dict[str, Any]) -> None:
    assert not greeter.is_valid({"x": table})


def test_the_page_of_a_plugin_has_its_keys_and_nested_tables(greeter: Any) -> None:
    page = renewed_plugin(f"# greeter\n\n{PLUGIN_MARK}stale\n", "greeter")
    assert page.startswith(f"# greeter\n\n{PLUGIN_MARK}\n## Keys\n")
    assert '| `wait` | duration | `"0s"` | How long. |' in page
    assert "| `token` | secret | none | What opens the door. |" in page
    assert "| `volume` | number | `1.5` |  |" in page
    assert "### `first, more[], by_name.NAME`\n\nOne greeting.\n\n| key |" in page
    assert "stale" not in page
    with pytest.raises(ValueError, match="no mark"):
        renewed_plugin("# greeter\n", "greeter")
