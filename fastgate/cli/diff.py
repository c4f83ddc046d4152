"""Compare two configurations by meaning: listeners, routes, upstreams, plugins, and in which keys.

Each of the two is the number of a version that the running gateway keeps (`fastgate history`), "current" for
the one in force, or a file. Secrets are not shown.
Exit code 0: they say the same; 2: they differ; 1: one of them can't be had.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fastgate.cli.admin_client import add_admin_options, call

if TYPE_CHECKING:
    from fastgate.config import Sources


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("old", metavar="OLD", help='a version, "current" or a file')
    parser.add_argument("new", metavar="NEW", help="likewise")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    import msgspec

    from fastgate.config import ConfigError
    from fastgate.config.diff import Difference, difference, lines
    from fastgate.config.problems import report, shown

    try:
        if _is_version(args.old) and _is_version(args.new):
            # The gateway compares, and keeps what is secret to itself.
            old, new = _number(args, args.old), _number(args, args.new)
            found = msgspec.convert(call(args, "GET", "history", old, "diff", new), Difference)
        else:
            found = difference(_sources(args, args.old), _sources(args, args.new))
    except ConfigError as error:
        print(*report(error.problems), sep="\n", file=sys.stderr)
        return 1
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print("\n".join(map(shown, lines(found))) or "they say the same")
    return 2 if found else 0


def _is_version(which: str) -> bool:
    return which == "current" or (which.isascii() and which.isdigit())


def _number(args: argparse.Namespace, which: str) -> str:
    """Raises Failed."""
    if which != "current":
        return which
    versions = call(args, "GET", "history")["versions"]
    return str(next(each["version"] for each in versions if each["in_force"]))


def _sources(args: argparse.Namespace, which: str) -> Sources:
    """Raises Failed, ConfigError."""
    if _is_version(which):
        return sources_of(args, which)
    from fastgate.config.files import OnDisk
    from fastgate.config.including import read_document

    return read_document(which, OnDisk()).sources()


def sources_of(args: argparse.Namespace, which: str) -> Sources:
    """What the gateway keeps of a version. Raises Failed."""
    import msgspec

    from fastgate.config import Sources

    return msgspec.convert(call(args, "GET", "history", which), Sources)
