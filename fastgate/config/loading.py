"""Reading a configuration: file to text to document to model, each step with its own errors."""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final, NamedTuple

import msgspec

from fastgate.config.decode import BAD
from fastgate.config.decode_plugin import ConfigDecoder
from fastgate.config.model import Config
from fastgate.config.plugin_types import PluginSource
from fastgate.config.positions import PositionIndex
from fastgate.config.problems import ConfigError, Problem, Problems
from fastgate.config.rules import check_rules
from fastgate.config.secrets import SecretSource
from fastgate.config.syntax import explain_syntax_error, place_after

MAX_FILE_BYTES: Final = 16 * 1024 * 1024


class Loaded(NamedTuple):
    """A configuration that can be used, and what is doubtful in it."""

    config: Config
    warnings: tuple[Problem, ...]


def load(
    path: str,
    *,
    strict: bool = False,
    read_endpoints: bool = False,
    plugins: Mapping[str, type[Any]] = {},  # not changed
) -> Loaded:
    """Reads the TOML file ``path``. Raises ConfigError with every problem.

    ``strict``: warnings count as errors. ``read_endpoints``: endpoints files are read and checked as well.
    Whoever runs the gateway leaves that to its watcher, so that one bad list never keeps all from starting.
    ``plugins``: classes that ``use`` may name besides those of ``PluginSource``.
    """
    return loads(_read(path), path, strict=strict, read_endpoints=read_endpoints, plugins=plugins)


def loads(
    text: str,
    name: str = "<string>",
    *,
    strict: bool = False,
    read_endpoints: bool = False,
    plugins: Mapping[str, type[Any]] = {},  # not changed
) -> Loaded:
    """As ``load``, from text; files that it names are relative to the directory of ``name``."""
    text = text.removeprefix("\ufeff")
    problems = Problems(name)
    config = _decode(_parse(text, name), name, problems, read_endpoints, plugins)
    return _judge(config, problems.place(functools.partial(PositionIndex, text)), strict)


def load_tables(
    tables: Mapping[str, object],
    name: str = "<tables>",
    *,
    strict: bool = False,
    plugins: Mapping[str, type[Any]] = {},  # not changed
) -> Loaded:
    """As ``loads``, from what the text would be parsed to. Problems tell the key in place of a line."""
    problems = Problems(name)
    config = _decode(_plain(tables), name, problems, False, plugins)
    return _judge(config, problems.by_key(), strict)


def _plain(value: object) -> Any:
    """Tables and arrays as the TOML parser makes them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _decode(
    document: dict[str, Any],
    name: str,
    problems: Problems,
    read_endpoints: bool,
    plugins: Mapping[str, type[Any]],
) -> Any:
    base = FilePath(name).parent
    decoder = ConfigDecoder(problems, SecretSource(base), PluginSource(base, plugins))
    config = decoder.table(Config, document, ())
    if config is not BAD:
        config = check_rules(
            msgspec.structs.replace(config, source=name),
            document,
            base,
            problems,
            read_endpoints=read_endpoints,
        )
    return config


def _judge(config: Config, found: list[Problem], strict: bool) -> Loaded:
    if strict:
        found = [problem._replace(severity="error") for problem in found]
    if any(problem.severity == "error" for problem in found):
        raise ConfigError(found)
    return Loaded(config, tuple(found))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            # A FIFO or a device says nothing of its size: never read more than is allowed.
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _failure(path, f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise _failure(path.replace("\0", "\\0"), "cannot be read: a path holds no NUL") from None
    if len(data) > MAX_FILE_BYTES:
        raise _failure(path, f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line, column = place_after(data[: error.start].decode())
        raise _failure(
            path, f"not UTF-8: the byte 0x{data[error.start]:02x} is out of place", line, column
        ) from None


def _failure(path: str, message: str, line: int = 0, column: int = 0) -> ConfigError:
    return ConfigError([Problem(os.fspath(path), line, column, message)])


def _parse(text: str, name: str) -> dict[str, object]:
    nul = text.find("\0")
    if nul >= 0:
        raise _failure(name, "a NUL character: this is not a TOML file", *place_after(text[:nul]))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, column, message, hint = explain_syntax_error(str(error), text)
        raise ConfigError([Problem(name, line, column, message, hint)]) from None
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
