"""Files of endpoints, JSON or TOML, that upstreams name and that change while the gateway runs."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, Final

from fastgate.config.decode import Decoder
from fastgate.config.json_positions import JsonPositions
from fastgate.config.model import EndpointsFile, ListedEndpoint
from fastgate.config.positions import PositionIndex
from fastgate.config.problems import ConfigError, Path, Places, Problem, Problems, quote
from fastgate.config.secrets import SecretSource
from fastgate.config.syntax import explain_syntax_error

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_TOLD: Final = 20


def parse_endpoints(text: str, suffix: str, path: str) -> tuple[ListedEndpoint, ...]:
    """The endpoints of a file's ``text``; there may be none.

    suffix: ".json" or ".toml". path: how errors call the file. Raises ConfigError, each of its problems with
    line and column.
    """
    text = text.removeprefix("\ufeff")
    document = _parse_json(text, path) if suffix == ".json" else _parse_toml(text, path)
    problems = Problems(path)
    decoded = Decoder(problems, SecretSource(_no_files)).table(EndpointsFile, document, ())
    if isinstance(decoded, EndpointsFile) and not problems.failed(()):
        _check(decoded, document, problems)
    index: Callable[[str], Places] = JsonPositions if suffix == ".json" else PositionIndex
    places = functools.partial(index, text)
    errors = [problem for problem in problems.place(places) if problem.severity == "error"]
    if errors:
        raise ConfigError(errors)
    assert isinstance(decoded, EndpointsFile)
    return decoded.endpoints


def _no_files(name: str, path: Path, limit: int) -> bytes:
    raise PermissionError(0, "a list of endpoints reads no other files")


def _check(decoded: EndpointsFile, document: Any, problems: Problems) -> None:
    seen: set[str] = set()
    for i, endpoint in enumerate(decoded.endpoints):
        here: Path = ("endpoints", i)
        if endpoint.srv:
            problems.error(
                here,
                f"endpoints[{i}]: {quote(endpoint.address)}: SRV names stand in the configuration alone",
            )
        elif endpoint.asgi:
            # Whoever writes such a list is not always one who may choose the code that runs here.
            problems.error(
                here,
                f"endpoints[{i}]: {quote(endpoint.address)}: applications stand in the configuration alone",
            )
        elif endpoint.scheme:
            problems.error(
                here,
                f"endpoints[{i}]: whether TLS is spoken says the configuration, for all of an upstream",
                f"did you mean {quote(endpoint.address)}?",
            )
        elif endpoint.address in seen:
            problems.error(here, f"endpoints[{i}]: {quote(endpoint.address)} is listed twice")
        seen.add(endpoint.address)


def _parse_toml(text: str, path: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, column, message, hint = explain_syntax_error(str(error), text)
        raise ConfigError([Problem(path, line, column, message, hint)]) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError([Problem(path, 1, 1, f"TOML: {_reason(error)}")]) from None


def _parse_json(text: str, path: str) -> Any:
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        message = f"JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise ConfigError([Problem(path, error.lineno, error.colno, message)]) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError([Problem(path, 1, 1, f"JSON: {_reason(error)}")]) from None
    if not isinstance(document, dict):
        raise ConfigError([Problem(path, 1, 1, 'expected { "endpoints": [ ... ] }')])
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {quote(key)} stands twice in one object")
        found[key] = value
    return found


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def check_endpoints_file(
    base: FilePath, name: str, path: Path, problems: Problems
) -> tuple[ListedEndpoint, ...]:
    """Reads the file once. Its errors are told with its own lines; that it is missing is a warning."""
    shown = str(base / name) if str(base) != "." else name
    try:
        with open(base / name, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        problems.warning(path, f"endpoints_file: there is no {quote(name)} yet")
        return ()
    except OSError as error:
        problems.error(path, f"endpoints_file: cannot read {quote(name)}: {error.strerror or 'not readable'}")
        return ()
    if len(data) > MAX_BYTES:
        problems.error(path, f"endpoints_file: {quote(name)} is larger than {MAX_BYTES // 2**20} MiB")
        return ()
    try:
        return parse_endpoints(data.decode(), FilePath(name).suffix, shown)
    except UnicodeDecodeError:
        problems.error(path, f"endpoints_file: {quote(name)} is not UTF-8")
    except ConfigError as error:
        for problem in error.problems[:MAX_TOLD]:
            problems.elsewhere(path, problem)
        if len(error.problems) > MAX_TOLD:
            more = len(error.problems) - MAX_TOLD
            problems.error(path, f"endpoints_file: {quote(name)} has {more} more errors")
    return ()
