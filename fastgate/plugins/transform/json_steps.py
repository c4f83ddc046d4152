"""Steps on a JSON document by JSON Pointer (RFC 6901)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from fastgate.plugins import PluginConfig, doc
from fastgate.plugins.transform.templates import Template, TemplateError

_ABSENT: Final = object()
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
# Levels of a document: what is deeper is refused, and never reaches the recursion of a parser.
MAX_DEPTH: Final = 200


class JsonStep(PluginConfig):
    """One change. A step whose place is not there, or lies in something that is no object or array, does
    nothing; ``set`` and ``default`` make the objects on the way."""

    op: Annotated[
        Literal["set", "default", "remove", "rename"],
        doc("`default` sets what is not there; `rename` moves the value to the path `to`."),
    ]
    path: Annotated[str, doc("JSON Pointer (RFC 6901), such as `/user/name` or `/tags/-`.")]
    value: Annotated[str | None, doc("Text to set. It may hold `{consumer}` and other placeholders.")] = None
    json: Annotated[str | None, doc("What to set instead, as JSON, such as `true` or `[1, 2]`.")] = None
    to: Annotated[str, doc("Where `rename` moves the value: a JSON Pointer.")] = ""


class JsonDocumentError(ValueError):
    """A body that is no JSON document, or too deep."""


def check_step(step: JsonStep) -> tuple[str, str] | None:
    """(key, what is wrong with it)."""
    sets = step.op in ("set", "default")
    for key, pointer in (("path", step.path), ("to", step.to)):
        if (key == "path" or step.op == "rename") and not _is_pointer(pointer):
            return (
                key,
                'expected a JSON Pointer that begins with "/", in which ~ is ~0 and / is ~1 (RFC 6901)',
            )
    if sets and (step.value is None) == (step.json is None):
        return "op", f"{step.op} needs either value or json"
    if not sets and (step.value is not None or step.json is not None):
        return "op", f"{step.op} takes no value"
    if step.op != "rename" and step.to:
        return "to", "only of rename"
    if step.op == "rename" and (step.to + "/").startswith(step.path + "/"):
        return "to", "a value can't be moved into itself"
    try:
        if step.json is not None:
            json.loads(step.json)
        if step.value is not None:
            Template(step.value)
    except TemplateError as error:
        return "value", str(error)
    except (ValueError, RecursionError) as error:
        return "json", f"no JSON: {error}"
    return None


def change_json(body: bytes, steps: tuple[JsonStep, ...], values: Mapping[str, str]) -> bytes:
    """The document after all steps. values: what each template gave. Raises JsonDocumentError."""
    root = parse(body)
    for step in steps:
        _apply(root, step, values)
    return json.dumps(root, separators=(",", ":")).encode()


def parse(body: bytes) -> Any:
    """As RFC 8259, with exact integers; without NaN. Raises JsonDocumentError."""
    try:
        root = json.loads(body.decode(), parse_constant=_no_constant, parse_float=_finite)
    except JsonDocumentError:
        raise
    except RecursionError:
        raise JsonDocumentError("too deep") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise JsonDocumentError(getattr(error, "msg", "no JSON in UTF-8")) from None
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return root
    raise JsonDocumentError("too deep")


def _no_constant(text: str) -> None:
    raise JsonDocumentError(f"{text} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonDocumentError("a number that is out of range")
    return value


def _children(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _is_pointer(text: str) -> bool:
    return text.startswith("/") and re.search(r"~(?![01])", text) is None


def _tokens(pointer: str) -> list[str]:
    # ~1 first: "~01" is "~1", not "/" (RFC 6901 4).
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _apply(root: Any, step: JsonStep, values: Mapping[str, str]) -> None:
    if step.op == "remove":
        _take(root, step.path)
    elif step.op == "rename":
        if (value := _take(root, step.path)) is not _ABSENT:
            _put(root, step.to, value)
    else:
        value = json.loads(step.json) if step.json is not None else values[step.value or ""]
        _put(root, step.path, value, only_absent=step.op == "default")


def _child(node: Any, token: str) -> Any:
    if isinstance(node, dict):
        return node.get(token, _ABSENT)
    if isinstance(node, list) and _INDEX.fullmatch(token) and int(token) < len(node):
        return node[int(token)]
    return _ABSENT


def _take(root: Any, pointer: str) -> Any:
    *way, last = _tokens(pointer)
    node = root
    for token in way:
        node = _child(node, token)
    value = _child(node, last)
    if value is not _ABSENT:
        del node[last if isinstance(node, dict) else int(last)]
    return value


def _put(root: Any, pointer: str, value: Any, *, only_absent: bool = False) -> None:
    *way, last = _tokens(pointer)
    node = root
    for token in way:
        child = _child(node, token)
        if child is _ABSENT:
            if not isinstance(node, dict):
                return
            child = node[token] = {}
        node = child
    if only_absent and _child(node, last) is not _ABSENT:
        return
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list):
        if last == "-":
            node.append(value)
        elif _child(node, last) is not _ABSENT:
            node[int(last)] = value
