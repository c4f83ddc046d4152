"""Where in a JSON value: "owner.name", "items[0].sku", "items[].sku", 'links."self.href"'."""

from __future__ import annotations

import re
from typing import Any, Final

from fastgate.config.problems import quote
from fastgate.config.units import BadValue

__all__ = ["EACH", "MAX_STEPS", "Path", "parse_json_path", "read_path", "write_path"]

#: The step into each element of a list.
EACH: Final = None
#: A member's name, the place of an element from 0, or EACH.
Step = str | int | None
Path = tuple[Step, ...]

MAX_STEPS: Final = 32
_STEP: Final = re.compile(
    r"""(?P<dot>\.)?(?:(?P<name>[A-Za-z0-9_$@-]+)|"(?P<quoted>(?:[^"\\]|\\.)+)")|\[(?P<index>[0-9]{0,9})\]"""
)


def read_path(text: str, *, each: bool = True) -> Path:
    """The steps of a path; () for "". each: whether `[]` is allowed. Raises BadValue."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or (match["index"] is None and bool(match["dot"]) != bool(steps)):
            raise BadValue(
                f"{quote(text)} is no path in a JSON value (at character {at + 1})",
                'expected members joined by dots, as in "owner.name", "items[0].id" or '
                '"items[].sku"; a name with other characters stands in quotes',
            )
        if match["index"] is not None:
            if match["index"] == "" and not each:
                raise BadValue(f"{quote(text)}: [] stands for many values, and here is one expected")
            steps.append(int(match["index"]) if match["index"] else EACH)
        else:
            steps.append(match["name"] or re.sub(r"\\(.)", r"\1", match["quoted"]))
        at = match.end()
    if len(steps) > MAX_STEPS:
        raise BadValue(f"a path has at most {MAX_STEPS} steps, this one has {len(steps)}")
    return tuple(steps)


def write_path(path: Path) -> str:
    """The text that ``read_path`` reads."""
    text = ""
    for step in path:
        if not isinstance(step, str):
            text += "[]" if step is EACH else f"[{step}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_$@-]+", step)
            text += "." * bool(text) + (step if plain else '"' + re.sub(r'(["\\])', r"\\\1", step) + '"')
    return text


def parse_json_path(text: str, options: dict[str, Any]) -> str:
    """With a step at least; `or_root`: or "" for the whole value."""
    if not text and not options.get("or_root"):
        raise BadValue("expected a path in a JSON value that is not empty")
    read_path(text)
    return text
