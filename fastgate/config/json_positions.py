"""Where each key and value of a JSON document stands, as positions.py tells it of TOML.

It goes over text that the json module has accepted, and so need only find where things begin and end.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Final

from fastgate.config.positions import Position
from fastgate.config.problems import Path

_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR: Final = re.compile(r"[^ \t\r\n,\]}]+")


class JsonPositions:
    """(line, column) of keys and values, both counted from 1 in characters, by key path."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._keys: dict[Path, int] = {}
        self._values: dict[Path, int] = {}
        self._line_starts = [0, *(m.end() for m in re.finditer("\n", text))]
        try:
            self._value(self._blanks(0), ())
        except RecursionError:
            # Deeper than this walker goes: errors in there are told with the place of what encloses them.
            return

    def key(self, path: Path) -> Position:
        """Where the key of ``path`` stands, or else the nearest thing that encloses it."""
        at = self._keys.get(path)
        return self.value(path) if at is None else self._position(at)

    def value(self, path: Path) -> Position:
        """Where the value of ``path`` begins, or what encloses it."""
        for end in range(len(path), 0, -1):
            at = self._values.get(path[:end])
            if at is not None:
                return self._position(at)
        return (1, 1)

    def _position(self, at: int) -> Position:
        line = bisect_right(self._line_starts, at)
        return line, at - self._line_starts[line - 1] + 1

    def _skip(self, pattern: re.Pattern[str], at: int) -> int:
        match = pattern.match(self._text, at)
        return match.end() if match else at

    def _blanks(self, at: int) -> int:
        return self._skip(_BLANKS, at)

    def _value(self, at: int, path: Path) -> int:
        self._values[path] = at
        first = self._text[at]
        if first not in "[{":
            return self._skip(_STRING if first == '"' else _SCALAR, at)
        index = 0
        at = self._blanks(at + 1)
        while self._text[at] not in "]}":
            part: str | int = index
            key_at = at
            if first == "{":
                end = self._skip(_STRING, at)
                part = json.loads(self._text[at:end])
                at = self._blanks(self._blanks(end) + 1)  # behind the colon
                self._keys[(*path, part)] = key_at
            at = self._blanks(self._value(at, (*path, part)))
            if self._text[at] == ",":
                at = self._blanks(at + 1)
            index += 1
        return at + 1
