"""List the configurations that were in force in the running gateway, oldest first.

Exit code 0: told; 1: the gateway can't be asked.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from fastgate.cli.admin_client import add_admin_options, call, table


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    found = call(args, "GET", "history")
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    versions: list[dict[str, Any]] = found["versions"]
    print(table([["VERSION", "SINCE", "BY", "CHANGES", ""], *map(_row, versions)]))
    current = next((each for each in versions if each["in_force"]), None)
    if current is not None and not current["as_files"]:
        print(f"the files say something else than version {current['version']}, and are not in force")
    return 0


def _row(each: dict[str, Any]) -> list[str]:
    by = f"rollback to {each['of']}" if each["of"] else str(each["cause"])
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["time"]))
    return [str(each["version"]), since, by, each["changes"], "in force" if each["in_force"] else ""]
