"""List the upstreams of the running gateway: what each endpoint is, and its connections.

STATUS is what it is, all told; STATE the operator's word on it ("auto": none, health decides). OPEN counts
connections, IDLE those of them that are not in use, WAITING the requests that wait for one.
"""

from __future__ import annotations

import argparse
import json

from fastgate.cli.admin_client import add_admin_options, call, table

COLUMNS = ("address", "status", "state", "weight", "open", "idle", "waiting")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    found = call(args, "GET", "upstreams")
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [["UPSTREAM", "ENDPOINT", *(name.upper() for name in COLUMNS[1:])]]
    rows += [
        [upstream["name"], *(str(endpoint[name]) for name in COLUMNS)]
        for upstream in found["upstreams"]
        for endpoint in upstream["endpoints"]
    ]
    print(table(rows))
    return 0
