"""A file and all that it includes, as one document of which each part knows where it was written.

An included file's tables count as if they stood in the place of the `include`. Listeners and routes of all
files come together; every other table, each upstream and each plugin is written once. Names of files are
relative to the file in which they stand.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Any, Final, NamedTuple

from fastgate.config.decode import describe
from fastgate.config.model import Sources
from fastgate.config.positions import PositionIndex
from fastgate.config.problems import Path, Problem, quote, shown_path

_ARRAYS: Final = ("listeners", "routes")
_NAMED: Final = ("upstreams", "plugins", "acme")


class Part(NamedTuple):
    """One file. text: None where tables came from a program, and have no lines."""

    name: str
    tables: dict[str, Any]
    text: str | None


class _Home(NamedTuple):
    """Where something is written: in which part, and its path there."""

    part: int
    path: Path


class Document:
    """tables: those of all ``parts``, of which the last is the file that includes the others. ``failures``:
    what does not go together."""

    def __init__(self, parts: list[Part], patterns: tuple[tuple[str, str], ...] = ()) -> None:
        self.parts: Final = parts
        self.root: Final = parts[-1]
        self.tables: Final[dict[str, Any]] = {}
        self.failures: Final[list[Problem]] = []
        self.attached: Final[dict[str, str]] = {}
        self._patterns = patterns
        self._homes: dict[Path, _Home] = {}
        if len(parts) == 1:
            self.tables.update(self.root.tables)
            return
        for number, part in enumerate(parts):
            for key, value in part.tables.items():
                self._add(number, key, value)

    # -- making one of many

    def _add(self, number: int, key: str, value: object) -> None:
        home = _Home(number, (key,))
        if key == "include":
            if self.parts[number] is self.root:
                self._keep((key,), home, value)
        elif key in _ARRAYS:
            if isinstance(value, list):
                self._keep((key,), home, [], again=True)
                for i, item in enumerate(value):
                    self._homes[key, len(self.tables[key])] = _Home(number, (key, i))
                    self.tables[key].append(item)
            else:
                told = f"{key} is an array of tables, got {describe(value)}"
                self._fail(home, told, f"write [[{key}]]")
        elif key in _NAMED:
            if isinstance(value, dict):
                self._keep((key,), home, {}, again=True)
                for name, item in value.items():
                    if self._keep((key, name), _Home(number, (key, name)), item):
                        self.tables[key][name] = item
            else:
                told = f"{key}: expected a table, got {describe(value)}"
                self._fail(home, told, f"write [{key}.NAME]")
        else:
            self._keep((key,), home, value)

    def _keep(self, path: Path, home: _Home, value: object, *, again: bool = False) -> bool:
        """Whether this is the first of its name. again: further ones are no failure."""
        first = self._homes.setdefault(path, home)
        if first is home:
            if len(path) == 1:
                self.tables[str(path[0])] = value
            return True
        if not again:
            noun = path[0] if len(path) == 1 else f"{str(path[0]).removesuffix('s')} {quote(str(path[1]))}"
            shown = f"[{noun}]" if len(path) == 1 else noun
            self._fail(home, f"{shown} is written twice", f"the other stands at {self._told(first)}")
        return False

    def _fail(self, home: _Home, message: str, hint: str = "") -> None:
        name, line, column = self._place(home, at_key=True)
        self.failures.append(Problem(name, line, column, message, hint))

    # -- where things are

    def find(self, path: Path, at_key: bool = False) -> tuple[int, str, int, int]:
        """Where the key or value of ``path`` is written: number and name of the file, line, column.

        Line 0: it has no lines, and the name tells the key as well."""
        home = self._home(path)
        return (home.part, *self._place(home, at_key))

    def where(self, path: Path) -> str:
        """``gateway.toml:3:1``."""
        return self._told(self._home(path))

    def included(self, path: Path) -> bool:
        """Whether it is written in an included file."""
        return self.parts[self._home(path).part] is not self.root

    def file(self, path: Path) -> str:
        return self.parts[self._home(path).part].name

    def folder(self, path: Path) -> FilePath:
        """What names of files are relative to that stand at ``path``."""
        return FilePath(self.file(path)).parent

    def read(self, name: str, path: Path, limit: int) -> bytes:
        """Of the file that the value at ``path`` names, at most ``limit`` bytes. Raises OSError."""
        place = os.path.join(self.folder(path), name)
        self.attached.setdefault(place, "")
        with open(place, "rb") as file:
            data = file.read(limit)
        self.attached[place] = hashlib.sha256(data).hexdigest()
        return data

    def files(self) -> list[str]:
        """All that were read."""
        return [*(part.name for part in self.parts if part.text is not None), *self.attached]

    def sources(self) -> Sources:
        texts = {part.name: part.text for part in self.parts if part.text is not None}
        roots = () if self.root.text is None else (self.root.name,)
        tables = None
        if self.root.text is None:
            with suppress(TypeError):  # what no file could say, and the decoder refuses
                tables = (self.root.name, json.dumps(self.root.tables))
        return Sources(
            roots=roots,
            tables=tables,
            texts=texts,
            patterns=self._patterns,
            directory=os.getcwd(),
            attached=dict(self.attached),
        )

    def _home(self, path: Path) -> _Home:
        for end in (2, 1):
            home = self._homes.get(path[:end])
            if home is not None and len(path) >= end:
                return _Home(home.part, (*home.path, *path[end:]))
        return _Home(len(self.parts) - 1, path)

    def _place(self, home: _Home, at_key: bool) -> tuple[str, int, int]:
        part = self.parts[home.part]
        if part.text is None:
            return (f"{part.name}: {shown_path(home.path)}" if home.path else part.name), 0, 0
        index = self._index(home.part)
        line, column = index.key(home.path) if at_key else index.value(home.path)
        return part.name, line, column

    def _told(self, home: _Home) -> str:
        name, line, column = self._place(home, at_key=isinstance(home.path[-1], str))
        return f"{name}:{line}:{column}" if line else name

    @functools.cached_property
    def _indexes(self) -> dict[int, PositionIndex]:
        return {}

    def _index(self, number: int) -> PositionIndex:
        if number not in self._indexes:
            self._indexes[number] = PositionIndex(self.parts[number].text or "")
        return self._indexes[number]
