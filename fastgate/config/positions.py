"""Where each key and value of a TOML document stands.

tomllib gives values without places. This walker goes once over text that tomllib has accepted, and so may be
tolerant: it needs to find where things begin and end, never to judge them (TOML 1.0).

Theory of operation. The text is a run of statements: a header ``[a.b]`` or ``[[a.b]]``, which moves the
current table, or ``key = value``. Keys may be dotted and quoted. A header that leads through an array of
tables means that array's last element, so the number of elements met so far is kept for each array. Values
are walked recursively, since arrays and inline tables hold further keys.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Final

from fastgate.config.problems import Path

Position = tuple[int, int]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLANKS: Final = re.compile(r"[ \t]*")
_FILLER: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")
_BASIC: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL: Final = re.compile(r"'[^'\n]*'")
# Up to two quotes may stand before the closing three (TOML 1.0, "String").
_LONG_BASIC: Final = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})', re.DOTALL)
_LONG_LITERAL: Final = re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL)


class _LostError(Exception):
    """The text is not as this walker understands TOML."""


class PositionIndex:
    """(line, column) of keys and values, both counted from 1 in characters, by key path."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._keys: dict[Path, int] = {}
        self._values: dict[Path, int] = {}
        self._elements: dict[Path, int] = {}
        self._line_starts = [0, *(m.end() for m in re.finditer("\n", self._text))]
        try:
            self._walk()
        except _LostError:
            # A TOML newer than this walker: what was found stays, and errors behind it are told with the
            # place of what encloses them.
            return

    def key(self, path: Path) -> Position:
        """Where the key of ``path`` stands, or else the nearest thing that encloses it."""
        at = self._keys.get(path)
        return self._position(at) if at is not None else self.value(path)

    def value(self, path: Path) -> Position:
        """Where the value of ``path`` begins (a table with a header: its bracket), or what encloses it."""
        for end in range(len(path), 0, -1):
            at = self._values.get(path[:end])
            if at is not None:
                return self._position(at)
        return (1, 1)

    def paths(self) -> set[Path]:
        """Every path that has a value."""
        return set(self._values)

    def _position(self, at: int) -> Position:
        line = bisect_right(self._line_starts, at)
        return line, at - self._line_starts[line - 1] + 1

    def _skip(self, pattern: re.Pattern[str], at: int) -> int:
        match = pattern.match(self._text, at)
        return match.end() if match else at

    def _char(self, at: int) -> str:
        if at >= len(self._text):
            raise _LostError
        return self._text[at]

    def _walk(self) -> None:
        text, at, table = self._text, 0, ()
        current: Path = table
        while True:
            at = self._skip(_FILLER, at)
            if at >= len(text):
                return
            if text[at] == "[":
                at, current = self._header(at)
            else:
                at = self._assignment(at, current)

    def _header(self, at: int) -> tuple[int, Path]:
        array = self._text.startswith("[[", at)
        end, parts = self._parse_key(at + (2 if array else 1))
        path: Path = ()
        for depth, (name, key_at) in enumerate(parts):
            path = (*path, name)
            last = depth == len(parts) - 1
            self._keys.setdefault(path, key_at)
            self._values.setdefault(path, at)
            if array and last:
                index = self._elements.get(path, 0)
                self._elements[path] = index + 1
                path = (*path, index)
                self._keys[path] = key_at
                self._values[path] = at
            elif last:
                # A table that dotted headers implied before is really declared here.
                self._keys[path], self._values[path] = key_at, at
                path = self._last_element(path)
            else:
                path = self._last_element(path)
        return self._skip(_BLANKS, end) + (2 if array else 1), path

    def _last_element(self, path: Path) -> Path:
        count = self._elements.get(path)
        return (*path, count - 1) if count else path

    def _assignment(self, at: int, table: Path) -> int:
        at, parts = self._parse_key(at)
        path = table
        value_at = self._skip(_BLANKS, at + 1)  # at: the "="
        for depth, (name, key_at) in enumerate(parts):
            path = (*path, name)
            self._keys.setdefault(path, key_at)
            if depth < len(parts) - 1:
                self._values.setdefault(path, key_at)
        return self._value(value_at, path)

    def _parse_key(self, at: int) -> tuple[int, list[tuple[str, int]]]:
        """The parts of a dotted key, and where it ends: at "=" or "]"."""
        parts: list[tuple[str, int]] = []
        text = self._text
        while True:
            at = self._skip(_BLANKS, at)
            quote = self._char(at)
            if quote == '"':
                end = self._skip(_BASIC, at)
                raw = text[at:end]
                name = tomllib.loads("k = " + raw)["k"] if "\\" in raw else raw[1:-1]
            elif quote == "'":
                end = self._skip(_LITERAL, at)
                name = text[at + 1 : end - 1]
            else:
                end = self._skip(_BARE_KEY, at)
                name = text[at:end]
            parts.append((name, at))
            at = self._skip(_BLANKS, end)
            if self._char(at) != ".":
                return at, parts
            at += 1

    def _value(self, at: int, path: Path) -> int:
        self._values[path] = at
        text = self._text
        first = self._char(at)
        if first == "[":
            at, index = self._skip(_FILLER, at + 1), 0
            while self._char(at) != "]":
                start, at = at, self._skip(_FILLER, self._value(at, (*path, index)))
                if at == start:
                    raise _LostError
                index += 1
                if self._char(at) == ",":
                    at = self._skip(_FILLER, at + 1)
            return at + 1
        if first == "{":
            at = self._skip(_FILLER, at + 1)
            while self._char(at) != "}":
                at = self._skip(_FILLER, self._assignment(at, path))
                if self._char(at) == ",":
                    at = self._skip(_FILLER, at + 1)
            return at + 1
        if first == '"':
            return self._skip(_LONG_BASIC if text.startswith('"""', at) else _BASIC, at)
        if first == "'":
            return self._skip(_LONG_LITERAL if text.startswith("'''", at) else _LITERAL, at)
        return self._skip(_SCALAR, at)
