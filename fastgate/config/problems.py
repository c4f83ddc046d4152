"""What is wrong with a configuration: every problem with its place, gathered, and told all at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

# A place in the parsed document: table keys and array indexes, from the root.
Path = tuple[str | int, ...]


class Places(Protocol):
    """Where keys and values stand: (line, column), both counted from 1 in characters."""

    def key(self, path: Path) -> tuple[int, int]: ...
    def value(self, path: Path) -> tuple[int, int]: ...


class Documents(Protocol):
    """Where keys and values of several files stand: number of the file, its name, line (0: none), column."""

    def find(self, path: Path, at_key: bool = False) -> tuple[int, str, int, int]: ...


class Problem(NamedTuple):
    """One thing wrong. ``line`` and ``column`` count from 1, in characters; line 0: the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        label = "warning: " if self.severity == "warning" else ""
        return f"{place}: {label}{self.message}" + (f"; {self.hint}" if self.hint else "")


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` holds all that was found, warnings too; ``files`` are
    those that were read, or should have been."""

    def __init__(self, problems: Iterable[Problem], files: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        self.files = tuple(files)
        super().__init__("\n".join(map(str, self.problems)))


def report(problems: Sequence[Problem], path: str = "") -> list[str]:
    """What is told of them, a line each; with ``path`` (of the file), another that counts them."""
    lines = [shown(str(problem)) for problem in problems]
    return [*lines, f"{shown(path)}: {count(problems)}"] if path else lines


def count(problems: Iterable[Problem]) -> str:
    """ "3 errors, 1 warning"."""
    severities = [problem.severity for problem in problems]
    errors, warnings = severities.count("error"), severities.count("warning")
    parts = [number(errors, "error")] if errors else []
    return ", ".join(parts + ([number(warnings, "warning")] if warnings else []))


def number(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def shown(text: str) -> str:
    """For a terminal: a file name may hold bytes that are no text, or control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


class Problems:
    """Gathers problems by key path while a document is checked; places are looked up at the end, if ever."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[tuple[Path, bool, Problem]] = []
        self._placed: list[Problem] = []
        self._failed: set[Path] = set()

    def error(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self._found.append((path, at_key, Problem(self.file, 0, 0, message, hint)))
        self.mark(path)

    def warning(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self._found.append((path, at_key, Problem(self.file, 0, 0, message, hint, "warning")))

    def elsewhere(self, path: Path, problem: Problem) -> None:
        """A problem in another file, which the value at ``path`` names."""
        self._placed.append(problem)
        self.mark(path)

    def mark(self, path: Path) -> None:
        """Counts the value at ``path`` among the failed ones, its problem being told at another place."""
        for end in range(len(path) + 1):
            self._failed.add(path[:end])

    def failed(self, path: Path) -> bool:
        """Whether an error stands at ``path`` or below: what hangs on that value need not be checked."""
        return path in self._failed

    def place(self, index: Callable[[], Places]) -> list[Problem]:
        """All problems with their places, in file order; ``index`` is asked only if there is one."""
        if not self._found and not self._placed:
            return []
        positions = index()
        placed = []
        for path, at_key, problem in self._found:
            line, column = positions.key(path) if at_key else positions.value(path)
            placed.append(problem._replace(line=line, column=column))
        placed.sort(key=lambda p: (p.line, p.column))
        return placed + self._placed

    def place_in(self, document: Documents) -> list[Problem]:
        """As ``place``, over all files of a document; those without lines keep the order in which they were
        found."""
        found = [(document.find(path, at_key), problem) for path, at_key, problem in self._found]
        found.sort(key=lambda one: (one[0][0], *one[0][2:]))
        return [
            problem._replace(file=name, line=line, column=column)
            for (_, name, line, column), problem in found
        ] + self._placed


def shown_path(path: Path) -> str:
    """``routes[0].match.host``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def quote(value: str, limit: int = 60) -> str:
    """``value`` in double quotes, shortened, with all that could disturb a terminal or a line escaped."""
    if len(value) > limit:
        value = value[: limit - 3] + "..."
    out = []
    for char in value:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            code = ord(char)
            short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
            out.append(short or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"))
    return '"' + "".join(out) + '"'


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``did you mean "x"?`` where a known word is near, else nothing."""
    words = list(known)
    folded = {word.lower(): word for word in words}
    near = difflib.get_close_matches(given.lower(), list(folded), n=1, cutoff=0.6)
    if not near:
        plain = given.lower().replace("-", "").replace("_", "")
        near = [word for word in folded if word.replace("-", "").replace("_", "") == plain][:1]
    return f"did you mean {quote(folded[near[0]])}?" if near else ""


def either(words: Iterable[object], last: str = "or") -> str:
    """``"a", "b" or "c"``."""
    texts = [quote(word) if isinstance(word, str) else str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"
