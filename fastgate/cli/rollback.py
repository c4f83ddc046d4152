"""Put an earlier configuration in force again, in the running gateway.

It becomes a new version. Files are not changed: what they say stays out of force until they are read again,
by a reload, a restart, or (where the gateway watches them) when one of them changes. Certificates, keys,
code of plugins and lists of networks are not kept, and count as they are now.
Exit code 0: in force; 1: not, and nothing has changed.
"""

from __future__ import annotations

import argparse

from fastgate.cli.admin_client import add_admin_options, call
from fastgate.cli.reload import tell_changes


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument(
        "version",
        metavar="VERSION",
        type=int,
        nargs="?",
        help="which one (`fastgate history`; default: the last that said something else)",
    )


def main(args: argparse.Namespace) -> int:
    body = {} if args.version is None else {"version": args.version}
    found = call(args, "POST", "rollback", body=body)
    tell_changes(found)
    print(f"version {found['version']} is in force")
    return 0
