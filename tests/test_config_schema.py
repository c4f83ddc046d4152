"""The JSON Schema takes what `check` takes, refuses typos, and the reference page is up to date."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from fastgate.config.reference import reference, renewed
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
        "header_rules_values", "no_listeners", "secrets",
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
        assert definition["additionalProperties"] is False, name
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
    assert page == renewed(page), "run python -m fastgate.config.reference docs/configuration.md"


def test_the_reference_has_every_key() -> None:
    text = reference()
    for definition in SCHEMA["$defs"].values():
        for key in definition["properties"]:
            assert f"`{key}`" in text or key == "use"
