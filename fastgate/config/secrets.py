"""Secrets: `{ env = "NAME" }` and `{ file = "path" }` to their values, which no message ever shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from fastgate.config.model import Secret
from fastgate.config.problems import Path, Problems, quote

MAX_SECRET_BYTES: Final = 64 * 1024
_SUPPOSED: Final = "supposed-secret-" * 4
# The file that a value names: (name, path of the value, limit in bytes). Raises OSError.
ReadFile = Callable[[str, Path, int], bytes]


class Supposed(Mapping[str, str]):
    """The environment, each variable that is not set being supposed to hold something: for commands that look
    at a configuration where it does not run."""

    def __getitem__(self, name: str) -> str:
        return os.environ.get(name, _SUPPOSED)

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)


class SecretSource:
    """Where secrets come from. read: files of them."""

    def __init__(self, read: ReadFile, environ: Mapping[str, str] | None = None) -> None:
        self._read = read
        self._environ = os.environ if environ is None else environ

    def read(self, value: dict[str, object], path: Path, label: str, problems: Problems) -> Secret | None:
        """The secret that a table names, or None after an error."""
        if set(value) not in ({"env"}, {"file"}):
            problems.error(path, f'{label}: a secret is {{ env = "NAME" }} or {{ file = "path" }}')
            return None
        [(kind, name)] = value.items()
        here = (*path, kind)
        if not isinstance(name, str) or not name or "\0" in name:
            problems.error(here, f"{label}.{kind}: expected a string that is not empty")
            return None
        found = (
            self._from_env(name, here, label, problems)
            if kind == "env"
            else self._from_file(name, here, label, problems)
        )
        if found == "":
            problems.error(here, f"{label}: the secret from {kind} {quote(name)} is empty")
            return None
        return None if found is None else Secret(found, f"{kind} {name}")

    def _from_env(self, name: str, path: Path, label: str, problems: Problems) -> str | None:
        found = self._environ.get(name)
        if found is None:
            problems.error(path, f"{label}: environment variable {quote(name)} is not set")
        return found

    def _from_file(self, name: str, path: Path, label: str, problems: Problems) -> str | None:
        try:
            data = self._read(name, path, MAX_SECRET_BYTES + 1)
        except OSError as error:
            problems.error(path, f"{label}: cannot read {quote(name)}: {error.strerror or 'not readable'}")
            return None
        if len(data) > MAX_SECRET_BYTES:
            problems.error(path, f"{label}: {quote(name)} is larger than {MAX_SECRET_BYTES // 1024} KiB")
            return None
        try:
            # Editors and `echo` end a file with a newline that is no part of the secret.
            return data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            problems.error(path, f"{label}: {quote(name)} is not UTF-8")
            return None
