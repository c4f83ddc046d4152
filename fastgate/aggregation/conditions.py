"""Whether a part is asked (`when`), and whether an element stays (`filter`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from fastgate.aggregation.documents import MISSING, Missing, Value, opened, scalar_text
from fastgate.aggregation.values import Values, compile_placeholder, compile_text
from fastgate.config.model import ListFilter, When
from fastgate.config.templates import Placeholder, read_template

__all__ = ["Condition", "ItemCondition", "compile_filter", "compile_when"]

Condition: TypeAlias = "Callable[[Values], bool]"
#: Of an element and its place from 0.
ItemCondition: TypeAlias = "Callable[[Values, Value, int], bool]"
_Test: TypeAlias = "Callable[[Value | Missing], bool]"


class _Written(Protocol):
    """What `when` and `filter` have in common."""

    @property
    def value(self) -> str: ...
    @property
    def equals(self) -> str | None: ...
    @property
    def not_equals(self) -> str | None: ...
    @property
    def one_of(self) -> tuple[str, ...]: ...
    @property
    def present(self) -> bool | None: ...


def compile_when(conditions: Iterable[When]) -> Condition:
    """All of them hold. The closure raises PartFailure as ``compile_placeholder`` says: a cast, or a client's
    body that is no JSON."""
    made = [_compile(one) for one in conditions]
    if len(made) == 1:
        return made[0]
    return lambda values: all(holds(values) for holds in made)


def compile_filter(condition: ListFilter) -> ItemCondition:
    """The element is `{item}`, its place `{index}`, whatever `values` has by these names."""
    holds = _compile(condition)
    return lambda values, item, index: holds(values.at(item, index))


def _compile(condition: _Written) -> Condition:
    template = read_template(condition.value)
    test = _test_of(condition)
    if len(template) == 1 and isinstance(template[0], Placeholder):
        get = compile_placeholder(template[0])
        return lambda values: test(get(values))
    text = compile_text(template, optional=True)
    return lambda values: test(text(values))


def _test_of(condition: _Written) -> _Test:
    equals, other, one_of = condition.equals, condition.not_equals, frozenset(condition.one_of)
    if equals is not None:
        return lambda value: _text(value) == equals
    if one_of:
        return lambda value: _text(value) in one_of
    if other is not None:
        return lambda value: value is not MISSING and _text(value) != other
    present = condition.present is not False
    return lambda value: (value is not MISSING) is present


def _text(value: Value | Missing) -> str | None:
    """None: it has none, and is equal to no text."""
    if type(value) is str:
        return value
    if value is MISSING:
        return None
    value = opened(value)
    if value is None:
        return "null"
    return None if isinstance(value, dict | list) else scalar_text(value)
