"""Parts of an aggregation from the keys that a test is about, and what they make of a body."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastgate.aggregation.documents import Missing, Value, find, opened, scalar_text
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.shape import Condition, compile_shape
from fastgate.config import loads
from fastgate.config.model import Aggregate, Part
from fastgate.config.model.aggregate import ListFilter
from fastgate.config.templates import Placeholder, read_template
from support.gateway import to_toml


def aggregate(keys: Mapping[str, Any]) -> Aggregate:
    """From keys of `aggregate`, checked as a configuration is. Each part without an upstream asks one, and
    under a condition: what collides for certain is refused there already."""
    doubtful = {"upstream": "shop", "when": {"value": "{query.asked}"}}
    parts = {name: {**doubtful, **part} for name, part in keys["parts"].items()}
    tables = {
        "listeners": [{"name": "main", "bind": "127.0.0.1:0"}],
        "upstreams": {"shop": {"endpoints": ["127.0.0.1:9001"]}},
        "routes": [{"name": "page", "aggregate": {**keys, "parts": parts}}],
    }
    made = loads(to_toml(tables)).config.routes[0].aggregate
    assert made is not None
    return made


def part(**keys: Any) -> Part:
    # With a group, which any value may have.
    return aggregate({"parts": {"only": {"group": "only", **keys}}}).parts["only"]


def shaped(value: Value, **keys: Any) -> Value:
    shape = compile_shape(part(**keys), condition)
    return value if shape is None else shape(value, None)


def reason(call: Callable[[], object]) -> str:
    """Why it fails; "" if it does not."""
    try:
        call()
    except PartFailure as failure:
        return failure.reason
    return ""


def condition(one: ListFilter) -> Condition:
    """Conditions on {item...} and {index} alone, so that lists can be filtered without a request."""
    [piece] = read_template(one.value)
    assert isinstance(piece, Placeholder)

    def holds(values: Any, item: Value, index: int) -> bool:
        found = find(item, piece.path) if piece.source == "item" else str(index)
        text = None if isinstance(found, Missing) or opened(found) is None else scalar_text(found)
        if one.equals is not None:
            return text == one.equals
        if one.not_equals is not None:
            return text is not None and text != one.not_equals
        if one.one_of:
            return text in one.one_of
        return (text is not None) is (one.present is not False)

    return holds


def exact(text: str | bytes) -> Any:
    """JSON with its numbers as they are written and its members in their order, to be compared."""
    return json.loads(text, parse_int=Written, parse_float=Written, object_pairs_hook=_members)


class Written(str):
    """A number's text, which equals no string of the document."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def _members(pairs: list[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple(pairs)
