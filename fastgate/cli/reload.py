"""Have the running gateway read its configuration anew.

It reads its own file, not that of -c. Nothing is lost: connections stay, and what is under way ends as it
began. A file with mistakes changes nothing; they are told here.
Exit code 0: reloaded; 1: not.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fastgate.cli.admin_client import add_admin_options, call

KINDS = ("listeners", "upstreams", "routes", "plugins")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)


def main(args: argparse.Namespace) -> int:
    tell_changes(call(args, "POST", "reload"))
    return 0


def tell_changes(found: dict[str, Any]) -> None:
    """A line for each thing that is another now."""
    from fastgate.config.problems import shown

    for line in found["warnings"]:
        print(line, file=sys.stderr)
    told = 0
    for kind in KINDS:
        for what in ("added", "changed", "removed"):
            for name in found[kind][what]:
                print(shown(f"{kind.removesuffix('s')} {name}: {what}"))
                told += 1
    for address, name in found["listening"]:
        print(shown(f"listening on {address} ({name})"))
    if not told:
        print("nothing changed")
