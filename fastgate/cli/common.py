"""What several commands share: the configuration option, and telling what is wrong with a configuration."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgate.config import Loaded, Problem


def add_config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        default="gateway.toml",
        help="the configuration (default: %(default)s)",
    )


def load_or_tell(path: str, *, strict: bool = False, read_endpoints: bool = False) -> Loaded | None:
    """The configuration, its warnings told on stderr; or None, when all that is wrong was told there.

    The caller then exits with 1. The options are those of ``load``.
    """
    from fastgate.config import ConfigError, load

    try:
        loaded = load(path, strict=strict, read_endpoints=read_endpoints)
    except ConfigError as error:
        tell(error.problems)
        print(f"{_shown(path)}: {count(error.problems)}", file=sys.stderr)
        return None
    tell(loaded.warnings)
    return loaded


def tell(problems: Iterable[Problem]) -> None:
    for problem in problems:
        print(_shown(str(problem)), file=sys.stderr)


def count(problems: Iterable[Problem]) -> str:
    """ "3 errors, 1 warning"."""
    severities = [problem.severity for problem in problems]
    errors, warnings = severities.count("error"), severities.count("warning")
    parts = [number(errors, "error")] if errors else []
    return ", ".join(parts + ([number(warnings, "warning")] if warnings else []))


def number(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _shown(text: str) -> str:
    # A file name may hold bytes that are no text, or control characters that would disturb a terminal.
    return "".join(c if c.isprintable() else "?" for c in text)
