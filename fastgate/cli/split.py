"""Show how the running gateway splits a route, or change it.

Without ARM=WEIGHT it only shows. Weights are 0 to 10000; arms that are not named keep theirs, and what is set
holds over reloads. --clear forgets what was set for an arm, and that it was rolled back: the file's weight is
in force again.
"""

from __future__ import annotations

import argparse
from typing import Any

from fastgate.cli.admin_client import add_admin_options, call, table


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("route", metavar="ROUTE")
    parser.add_argument("weights", metavar="ARM=WEIGHT", nargs="*", type=_weight)
    parser.add_argument("--clear", metavar="ARM", help="forget what was set for this arm")


def main(args: argparse.Namespace) -> int:
    changes: list[dict[str, Any]] = []
    if args.clear is not None:
        changes.append({"clear": args.clear})
    if args.weights:
        changes.append({"weights": dict(args.weights)})
    found = None
    for change in changes:
        found = call(args, "PUT", "routes", args.route, "split", body=change)
    if found is None:
        found = call(args, "GET", "routes", args.route, "split")
    rows = [["ARM", "UPSTREAM", "WEIGHT", "CONFIGURED", "ROLLED BACK"]]
    rows += [
        [
            arm["name"],
            arm["upstream"],
            str(arm["weight"]),
            str(arm["configured"]),
            arm["rolled_back"] or "-",
        ]
        for arm in found["arms"]
    ]
    print(table(rows))
    return 0


def _weight(text: str) -> tuple[str, int]:
    arm, _, weight = text.rpartition("=")
    if not arm or not weight.isascii() or not weight.isdigit() or int(weight[:9]) > 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not ARM=WEIGHT with a weight from 0 to 10000")
    return arm, int(weight)
