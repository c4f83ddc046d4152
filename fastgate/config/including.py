"""Reading a file and those that it includes."""

from __future__ import annotations

import os
import re
import tomllib
from typing import Any, Final

from fastgate.config.decode import describe
from fastgate.config.document import Document, Part
from fastgate.config.files import MAX_FILE_BYTES, Files, has_magic, normal_name
from fastgate.config.positions import PositionIndex
from fastgate.config.problems import ConfigError, Path, Problem, quote, shown_path
from fastgate.config.syntax import explain_syntax_error, place_after
from fastgate.config.texts import parse_include
from fastgate.config.units import BadValue

MAX_FILES: Final = 1000
MAX_DEPTH: Final = 8
MAX_BYTES: Final = 64 * 1024 * 1024  # of all files together


def read_document(name: str, files: Files) -> Document:
    """The file ``name`` with all that it includes. Raises ConfigError with everything that can't be read."""
    return parse_document(read_text(name, files), name, files)


def parse_document(text: str, name: str, files: Files) -> Document:
    """As ``read_document``, from the text of the file."""
    return _gather(Part(name, parse(text, name), text), files)


def tables_document(tables: dict[str, Any], name: str, files: Files) -> Document:
    """As ``read_document``, from what the text would be parsed to."""
    return _gather(Part(name, tables, None), files)


def _gather(root: Part, files: Files) -> Document:
    gathering = _Gathering(files)
    gathering.include(root, (os.path.normpath(root.name),))
    if not gathering.failures:
        document = Document([*gathering.parts, root], tuple(gathering.patterns))
        if not document.failures:
            return document
        gathering.failures = document.failures
    raise ConfigError(gathering.failures, (root.name, *gathering.tried))


class _Gathering:
    def __init__(self, files: Files) -> None:
        self._files = files
        self.parts: list[Part] = []
        self.patterns: list[tuple[str, str]] = []
        self.failures: list[Problem] = []
        self.tried: set[str] = set()
        self._bytes = 0

    def include(self, part: Part, way: tuple[str, ...]) -> None:
        """Adds what ``part`` includes, depth first. way: the names of the files that led here, it too."""
        patterns = part.tables.get("include", [])
        if not isinstance(patterns, list):
            if isinstance(patterns, str):
                self._fail(
                    part, ("include",), "include: expected an array", f"did you mean [{quote(patterns)}]?"
                )
            else:
                self._fail(part, ("include",), f"include: expected an array, got {describe(patterns)}")
            return
        for i, pattern in enumerate(patterns):
            if len(self.failures) >= MAX_FILES:
                return
            for name in self._names(part, ("include", i), pattern):
                self._add(part, ("include", i), name, way)

    def _names(self, part: Part, path: Path, pattern: object) -> list[str]:
        if not isinstance(pattern, str):
            self._fail(part, path, f"include: expected a string, got {describe(pattern)}")
            return []
        try:
            full = normal_name(part.name, parse_include(pattern, {}))
            if not has_magic(pattern):
                return [full]
            self.patterns.append((part.name, pattern))
            return self._files.matching(full)
        except BadValue as bad:
            self._fail(part, path, f"include: {bad}", bad.hint)
        except OSError as error:
            self._fail(part, path, f"include: {quote(pattern)}: {error.strerror or 'not readable'}")
        return []

    def _add(self, includer: Part, path: Path, name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circle = " -> ".join(quote(each) for each in (*way[way.index(name) :], name))
            itself = "a file cannot include itself" if name == way[-1] else f"a circle: {circle}"
            self._fail(includer, path, f"include: {itself}")
        elif name in self.tried:
            pass  # by two ways: once is enough
        elif len(way) > MAX_DEPTH:
            self._fail(includer, path, f"include: files include each other more than {MAX_DEPTH} deep")
        elif len(self.tried) >= MAX_FILES:
            self._fail(includer, path, f"include: more than {MAX_FILES} files")
        else:
            self.tried.add(name)
            self._read(includer, path, name, way)

    def _read(self, includer: Part, path: Path, name: str, way: tuple[str, ...]) -> None:
        try:
            text = read_text(name, self._files)
            part = Part(name, parse(text, name), text)
        except ConfigError as error:
            [problem] = error.problems
            if problem.line:
                self.failures.append(problem)
            else:
                # What can't even be read has no lines: told where it is named.
                self._fail(includer, path, f"include: {quote(name)} {problem.message}")
            return
        self._bytes += len(text)
        if self._bytes > MAX_BYTES:
            self._fail(includer, path, f"include: all files together have more than {MAX_BYTES >> 20} MiB")
            return
        self.include(part, (*way, name))
        self.parts.append(part)

    def _fail(self, part: Part, path: Path, message: str, hint: str = "") -> None:
        if part.text is None:
            self.failures.append(Problem(f"{part.name}: {shown_path(path)}", 0, 0, message, hint))
        else:
            line, column = PositionIndex(part.text).value(path)
            self.failures.append(Problem(part.name, line, column, message, hint))


def read_text(name: str, files: Files) -> str:
    """Raises ConfigError."""
    try:
        data = files.read(name)
    except OSError as error:
        raise _failure(name, f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise _failure(name.replace("\0", "\\0"), "cannot be read: a path holds no NUL") from None
    if len(data) > MAX_FILE_BYTES:
        raise _failure(name, f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, column = place_after(data[: error.start].decode())
        raise _failure(
            name, f"not UTF-8: the byte 0x{data[error.start]:02x} is out of place", line, column
        ) from None


def parse(text: str, name: str) -> dict[str, Any]:
    """Raises ConfigError."""
    nul = text.find("\0")
    if nul >= 0:
        raise _failure(name, "a NUL character: this is not a TOML file", *place_after(text[:nul]))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, column, message, hint = explain_syntax_error(str(error), text)
        raise ConfigError([Problem(name, line, column, message, hint)], (name,)) from None
    except RecursionError:
        raise _failure(name, "TOML: arrays or tables are nested too deeply", 1, 1) from None
    except ValueError as error:
        # What Python's own converters refuse, such as an integer of thousands of digits.
        digits = re.search(r"[0-9_]{4000,}", text)
        if digits:
            raise _failure(
                name, "TOML: an integer of thousands of digits", *place_after(text[: digits.start()])
            ) from None
        raise _failure(name, f"TOML: {error}", 1, 1) from None


def _failure(name: str, message: str, line: int = 0, column: int = 0) -> ConfigError:
    return ConfigError([Problem(name, line, column, message)], (name,))
