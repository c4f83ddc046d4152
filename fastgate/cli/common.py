"""What commands share: how one fails, the configuration option, and telling what is wrong with a
configuration."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgate.config import Loaded, Sources


class Failed(Exception):
    """A command can't do what it is for; the command then exits with 1. ``str()``: why, for stderr; may have
    several lines."""


class _OneOrMore(argparse.Action):
    """The first takes the place of the default."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, *_: object) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [values] if before is self.default else [*before, values])


def add_config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        default=["gateway.toml"],
        action=_OneOrMore,
        help="the configuration (default: gateway.toml); several: that many gateways in one process,"
        " each with its own listeners, routes and plugins",
    )


def load_or_tell(
    paths: Sequence[str],
    *,
    strict: bool = False,
    read_endpoints: bool = False,
    look: bool = False,
    sources: Sources | None = None,
) -> Loaded | None:
    """The configuration, its warnings told on stderr; or None, when all that is wrong was told there.

    The caller then exits with 1. The options are those of ``load``. look: it is only looked at: secrets
    from variables that are not set here are supposed to be something, and warnings are not told. sources:
    taken in place of what the files say now.
    """
    from fastgate.config import ConfigError, load, load_sources
    from fastgate.config.problems import report
    from fastgate.config.secrets import Supposed

    try:
        environ = Supposed() if look else None
        if sources is not None:
            loaded = load_sources(sources, strict=strict)
        else:
            loaded = load(*paths, strict=strict, read_endpoints=read_endpoints, environ=environ)
    except ConfigError as error:
        print(*report(error.problems, ", ".join(paths)), sep="\n", file=sys.stderr)
        return None
    for line in () if look else report(loaded.warnings):
        print(line, file=sys.stderr)
    return loaded
