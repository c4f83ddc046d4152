"""JMESPath (https://jmespath.org/specification.html) over exact values, for what the other keys do not reach.

An expression is checked when the configuration is: its syntax, the names of its functions, how many arguments
each takes. What remains is whether the values are of the types that its functions want.
"""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from typing import Any, Final

from fastgate.aggregation.documents import Value, encode
from fastgate.aggregation.failures import PartFailure
from fastgate.config.problems import did_you_mean, either, quote
from fastgate.config.units import BadValue

__all__ = ["MAX_LENGTH", "Expression", "check"]

#: Characters of an expression.
MAX_LENGTH: Final = 4096
#: Levels of its syntax tree.
MAX_DEPTH: Final = 64


def check(text: str) -> str | None:
    """What is wrong with it, or with what is installed; None for nothing."""
    try:
        Expression(text)
    except BadValue as error:
        return f"{error} ({error.hint})" if error.hint else str(error)
    return None


class Expression:
    """One expression. Raises BadValue for one that is none, and where jmespath is not installed."""

    __slots__ = ("_evaluate", "_node", "_tree_of", "_value_of", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._node = _parsed(text)
        from fastgate.aggregation import interpreting

        self._tree_of = interpreting.tree_of
        self._evaluate = interpreting.evaluate
        self._value_of = interpreting.value_of

    def search(self, value: Value, limit: int) -> Value:
        """What it finds or makes; None for nothing. limit: bytes of that, about.

        Raises PartFailure: "part-type" (a function is given what it does not take, or a sum is beyond all
        bounds), "part-too-large", "part-body" (nested too deep).
        """
        try:
            return self._value_of(self._evaluate(self._node, self._tree_of(value)), limit)
        except (ValueError, TypeError, ArithmeticError) as error:
            # jmespath's own errors are ValueErrors; max_by over numbers and strings is a TypeError of Python.
            raise PartFailure("part-type", f"jmespath: {_shown(error)}") from None
        except RecursionError:
            raise PartFailure("part-body", "the JSON is nested too deep") from None


def _shown(error: Exception) -> str:
    """Without the values, which the library's own message has."""
    if name := getattr(error, "function_name", ""):
        wanted = either(sorted(error.expected_types))  # type: ignore[attr-defined]  # of JMESPathTypeError
        return f"{name}() takes {wanted}, and is given {quote(str(error.actual_type))}"  # type: ignore[attr-defined]
    return str(error)[:200] or type(error).__name__


def _parsed(text: str) -> Any:
    if importlib.util.find_spec("jmespath") is None:
        raise BadValue("JMESPath needs what is not installed here", "pip install 'fastgate[aggregate]'")
    from jmespath.exceptions import EmptyExpressionError, IncompleteExpressionError, LexerError, ParseError
    from jmespath.parser import Parser

    if len(text) > MAX_LENGTH:
        raise BadValue(f"an expression has at most {MAX_LENGTH} characters, this one has {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `text` for `"text"`, which many guides have
            node = Parser().parse(text).parsed
    except EmptyExpressionError:
        raise BadValue("a JMESPath expression must not be empty") from None
    except LexerError as error:
        raise _wrong(text, error.lexer_position, str(error.message)) from None
    except IncompleteExpressionError:
        raise _wrong(text, len(text), "more is expected at its end") from None
    except ParseError as error:
        raise _wrong(text, error.lex_position, f"{quote(str(error.token_value))} is not expected") from None
    except RecursionError:
        raise BadValue("the expression is nested too deep") from None
    except (ValueError, IndexError) as error:  # a number of 5,000 digits; an end within brackets
        raise _wrong(text, len(text), str(error)) from None
    return _checked(node, text, 0)


def _wrong(text: str, at: int, why: str) -> BadValue:
    return BadValue(f"{quote(text)} is no JMESPath expression: {why} (at character {at + 1})")


def _checked(node: Any, text: str, depth: int, *, argument: bool = False) -> Any:
    """A copy of the tree (the library keeps its own in a cache) whose literals are exact."""
    from fastgate.aggregation.interpreting import FUNCTIONS

    if depth > MAX_DEPTH:
        raise BadValue("the expression is nested too deep")
    if not isinstance(node, dict):  # the numbers of a slice
        return node
    kind = node["type"]
    try:
        encode(str(node.get("value", "")))
    except UnicodeEncodeError:
        raise _wrong(text, text.find("\\"), "half a surrogate pair") from None
    if kind == "literal":
        return {**node, "value": _exact(node["value"], text)}
    if kind == "slice" and node["children"][2] == 0:
        raise _wrong(text, text.find("["), "a slice has no step of 0")
    if kind == "expref" and not argument:
        raise _wrong(text, text.find("&"), '"&" stands before an argument of a function that takes one')
    wants: list[bool] = []
    if kind == "function_expression":
        name, given = node["value"], node["children"]
        found = re.search(rf"\b{re.escape(name)}\s*\(", text)
        at = found.start() if found else 0
        if name not in FUNCTIONS:
            error = _wrong(text, at, f"there is no function {name}()")
            error.hint = did_you_mean(name, FUNCTIONS)
            raise error
        takes = FUNCTIONS[name]
        least = len(takes)
        if len(given) < least or (len(given) > least and not takes[-1].get("variadic")):
            count = f"{least} argument{'s' * (least != 1)}" + " or more" * bool(takes[-1].get("variadic"))
            raise _wrong(text, at, f"{name}() takes {count}, not {len(given)}")
        wants = ["expref" in one["types"] for one in takes]
        for i, (one, want) in enumerate(zip(given, wants, strict=False)):
            if want and one["type"] != "expref":
                raise _wrong(text, at, f'{name}() takes an expression as its argument {i + 1}: "&price"')
    children = [
        _checked(child, text, depth + 1, argument=i < len(wants) and wants[i])
        for i, child in enumerate(node["children"])
    ]
    return {**node, "children": children}


def _exact(value: Any, text: str) -> Any:
    """A literal as the library has read it: with numbers of double precision, and what JSON has not."""
    from fastgate.aggregation.interpreting import exact_number

    if isinstance(value, float):
        if not math.isfinite(value):
            raise _wrong(text, text.find("`"), f"{either(('NaN', 'Infinity'))} is no JSON (RFC 8259 6)")
        return exact_number(repr(value))
    if isinstance(value, list):
        return [_exact(element, text) for element in value]
    if isinstance(value, dict):
        return {name: _exact(member, text) for name, member in value.items()}
    return value
