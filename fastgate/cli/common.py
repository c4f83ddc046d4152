"""What several commands share: the configuration option, and telling what is wrong with a configuration."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgate.config import Loaded


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
    from fastgate.config.problems import report

    try:
        loaded = load(path, strict=strict, read_endpoints=read_endpoints)
    except ConfigError as error:
        print(*report(error.problems, path), sep="\n", file=sys.stderr)
        return None
    for line in report(loaded.warnings):
        print(line, file=sys.stderr)
    return loaded
