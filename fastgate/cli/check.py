"""Check a configuration file, without starting anything.

Every error and warning goes to stderr, one a line, as FILE:LINE:COLUMN: MESSAGE.
Exit code 0: it can be used; 1: it cannot, or with --strict something in it is doubtful.
"""

from __future__ import annotations

import argparse

from fastgate.cli.common import add_config_option, load_or_tell


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config_option(parser)
    parser.add_argument("--strict", action="store_true", help="take warnings for errors")


def main(args: argparse.Namespace) -> int:
    from fastgate.config.problems import count, number

    loaded = load_or_tell(args.config, strict=args.strict, read_endpoints=True)
    if loaded is None:
        return 1
    config = loaded.config
    parts = ", ".join(
        number(len(items), noun)
        for items, noun in (
            (config.listeners, "listener"),
            (config.routes, "route"),
            (config.upstreams, "upstream"),
            (config.plugins, "plugin"),
        )
    )
    doubts = f"; {count(loaded.warnings)}" if loaded.warnings else ""
    print(f"{', '.join(args.config)}: ok ({parts}){doubts}")
    return 0
