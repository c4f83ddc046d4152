"""The JMESPath library's interpreter, made exact and bounded. Import it where jmespath is installed alone.

Numbers that an expression only moves about or compares keep their text, however large or precise. Those that
it computes are integers where all it is given are integers of less than 19 digits, else decimals of 34 digits
(IEEE 754 decimal128).
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from decimal import MAX_EMAX as _MAX_EMAX
from decimal import MIN_EMIN as _MIN_EMIN
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Any, Final, Self

from jmespath.functions import Functions, signature
from jmespath.visitor import Options, TreeInterpreter
from msgspec import Raw

from fastgate.aggregation.documents import Value, encode
from fastgate.aggregation.failures import PartFailure

__all__ = ["FUNCTIONS", "MAX_ELEMENTS", "Number", "evaluate", "exact_number", "tree_of", "value_of"]

#: Of a list that an expression makes on its way.
MAX_ELEMENTS: Final = 1_000_000
#: Characters of a text that an expression makes on its way.
MAX_TEXT: Final = 1024 * 1024

_ARITHMETIC: Final = Context(
    prec=34, Emax=_MAX_EMAX, Emin=_MIN_EMIN, traps=[InvalidOperation, DivisionByZero, Overflow]
)
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)


class Number(Decimal):
    """A number that knows how it was written."""

    text: str

    def __new__(cls, text: str) -> Self:
        try:
            made = super().__new__(cls, text)
        except InvalidOperation:  # an exponent of 19 digits and more, beyond what decimal has
            mantissa, _, exponent = text.lower().partition("e")
            zero = exponent.startswith("-") or not mantissa.strip("-0.")
            made = super().__new__(cls, "0" if zero else "-Infinity" if text[0] == "-" else "Infinity")
        made.text = text
        return made


# jmespath goes by the names of types, and has no other place where one could be added.
Number.__name__ = "float"


def exact_number(text: str) -> int | Number:
    """A JSON number. int where that is written in the one way that int has, and is quick."""
    return int(text) if len(text) < 19 and text.lstrip("-").isdecimal() and text != "-0" else Number(text)


def tree_of(value: Value) -> Any:
    """dict, list, str, bool, None, int and Number, as the interpreter wants it."""
    try:
        return _TREE(encode(value).decode())
    except RecursionError:
        raise PartFailure("part-body", "the JSON is nested too deep") from None


_TREE: Final = json.JSONDecoder(parse_int=exact_number, parse_float=exact_number).decode


def value_of(tree: Any, limit: int) -> Value:
    """What the interpreter has made. limit: bytes of its JSON, about, from which on it is too large (one
    value may stand in it many times). Raises PartFailure("part-too-large")."""
    size = 0

    def made(tree: Any) -> Value:
        nonlocal size
        size += 2
        if isinstance(tree, str):
            size += len(tree)
        if size > limit:
            raise PartFailure("part-too-large", f"the expression makes more than {limit} bytes")
        if tree is None or isinstance(tree, str | bool):
            return tree
        if isinstance(tree, dict):
            size += sum(map(len, tree)) + 3 * len(tree)
            return {name: made(member) for name, member in tree.items()}
        if isinstance(tree, list):
            return [made(element) for element in tree]
        text = tree.text if isinstance(tree, Number) else str(tree)
        size += len(text)
        return Raw(text.encode())

    try:
        return made(tree)
    except RecursionError:
        raise PartFailure("part-body", "the JSON is nested too deep") from None


def _computed(number: Decimal) -> Number:
    if not number.is_finite():
        raise OverflowError("a number beyond all bounds")
    return Number(str(number))


def _bounded(size: int, most: int) -> None:
    if size > most:
        raise PartFailure("part-too-large", "the expression makes too much on its way")


class _Functions(Functions):
    """The functions that look at numbers, those whose Python differs from the specification for numbers or
    unlike types, and those that could make much of little."""

    @signature({"types": ["number"]})
    def _func_abs(self, number: int | Number) -> int | Number:
        if isinstance(number, int):
            return abs(number)
        return number if number >= 0 else Number(number.text.lstrip("-"))

    @signature({"types": ["array-number"]})
    def _func_sum(self, numbers: list[int | Number]) -> int | Number:
        if all(isinstance(number, int) for number in numbers):
            return sum(numbers)
        total = Decimal(0)
        for number in numbers:
            total = _ARITHMETIC.add(total, number)
        return _computed(total)

    @signature({"types": ["array-number"]})
    def _func_avg(self, numbers: list[int | Number]) -> int | Number | None:
        if not numbers:
            return None
        total = self._func_sum(numbers)
        if isinstance(total, int) and total % len(numbers) == 0:
            return total // len(numbers)
        return _computed(_ARITHMETIC.divide(total, len(numbers)))

    @signature({"types": ["number"]})
    def _func_ceil(self, number: int | Number) -> int | Number:
        return self._whole(number, ROUND_CEILING)

    @signature({"types": ["number"]})
    def _func_floor(self, number: int | Number) -> int | Number:
        return self._whole(number, ROUND_FLOOR)

    def _whole(self, number: int | Number, rounding: str) -> int | Number:
        # Not int(number): 1e999999999 has a billion digits.
        if isinstance(number, int) or number == number.to_integral_value():
            return number
        return exact_number(str(number.to_integral_value(rounding) or 0))

    @signature({"types": []})
    def _func_to_number(self, value: Any) -> int | Number | None:
        if isinstance(value, str):
            return exact_number(value) if _JSON_NUMBER.fullmatch(value) else None
        return value if isinstance(value, int | Number) and not isinstance(value, bool) else None

    @signature({"types": []})
    def _func_to_string(self, value: Any) -> str:
        return value if isinstance(value, str) else encode(value_of(value, MAX_TEXT)).decode()

    @signature({"types": []})
    def _func_type(self, value: Any) -> str:
        return "number" if isinstance(value, Number) else super()._func_type(value)  # type: ignore[misc]

    @signature({"types": ["array", "string"]}, {"types": []})
    def _func_contains(self, subject: list[Any] | str, search: Any) -> bool:
        if isinstance(subject, str):
            return isinstance(search, str) and search in subject
        return search in subject

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, texts: list[str]) -> str:
        _bounded(sum(map(len, texts)) + len(separator) * len(texts), MAX_TEXT)
        return separator.join(texts)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def ordered(left: Any, right: Any) -> bool | None:
        # The specification: null for what has no order, which a number and a string have not.
        return compare(left, right) if isinstance(left, str) == isinstance(right, str) else None

    return ordered


class _Interpreter(TreeInterpreter):
    COMPARATOR_FUNC = {  # noqa: RUF012  # the library's
        **TreeInterpreter.COMPARATOR_FUNC,
        "lt": _ordered(operator.lt),
        "lte": _ordered(operator.le),
        "gt": _ordered(operator.gt),
        "gte": _ordered(operator.ge),
    }

    def visit_flatten(self, node: Any, value: Any) -> Any:
        made = super().visit_flatten(node, value)
        if made is not None:
            _bounded(len(made), MAX_ELEMENTS)
        return made


_FUNCTIONS: Final = _Functions()
_INTERPRETER: Final = _Interpreter(Options(custom_functions=_FUNCTIONS))

#: What each function takes: for each argument its types, of the last perhaps "variadic".
FUNCTIONS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    name: entry["signature"] for name, entry in _FUNCTIONS.FUNCTION_TABLE.items()
}


def evaluate(node: Any, tree: Any) -> Any:
    """node: of the library's parser. Raises ValueError, TypeError and ArithmeticError for what a function is
    given and cannot take, PartFailure("part-too-large") and RecursionError."""
    return _INTERPRETER.visit(node, tree)
