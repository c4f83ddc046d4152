"""Documents into plain values: files that we trust, and bodies that we do not."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final

import orjson

MAX_FILE: Final = 16 * 1024 * 1024
# Digits of one number: nobody means more, and arithmetic on them is not linear.
MAX_NUMBER: Final = 400


class BadDocumentError(ValueError):
    """What a client sent is no document that could be checked; ``str()`` quotes nothing of it."""


def load_file(path: Path) -> Any:
    """JSON, or YAML 1.2 as far as JSON goes where the name ends in .yaml or .yml. Raises OSError,
    ValueError."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ValueError(f"{path.name} is over {MAX_FILE} bytes")
    if path.suffix not in (".yaml", ".yml"):
        return orjson.loads(data)
    import yaml

    class Loader(yaml.SafeLoader):
        """Without YAML 1.1's dates, and its yes, no, on and off."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, regex) for tag, regex in resolvers if not tag.endswith((":timestamp", ":bool"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
    try:
        document = yaml.load(data, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: {error}") from None
    # Keys such as 200 (a status) become strings, as they are in JSON.
    return orjson.loads(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))


def parse_json(body: bytes, max_depth: int) -> Any:
    """A body that every reader takes for the same document: RFC 8259 in UTF-8, no duplicate names, no numbers
    out of range, at most ``max_depth`` levels. Raises BadDocumentError."""
    try:
        # The strict one first: UTF-8, lone surrogates, NaN, trailing text.
        orjson.loads(body)
        root = json.loads(
            body, object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
    except BadDocumentError:
        raise
    except RecursionError:
        raise BadDocumentError("too deep") from None
    except orjson.JSONDecodeError as error:
        raise BadDocumentError(f"no JSON: at character {error.pos + 1}") from None
    except ValueError:
        raise BadDocumentError("no JSON in UTF-8") from None
    level = [root]
    for _ in range(max_depth):
        level = [child for node in level for child in _children(node)]
        if not level:
            return root
    raise BadDocumentError(f"more than {max_depth} levels deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # One reader takes the first, another the last (RFC 8259 4).
        raise BadDocumentError("an object has two members of one name")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise BadDocumentError(f"a number of more than {MAX_NUMBER} characters")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if len(text) > MAX_NUMBER or not math.isfinite(value):
        raise BadDocumentError("a number that is out of range")
    return value


def _constant(text: str) -> None:
    raise BadDocumentError(f"{text} is no JSON")


def _children(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()
