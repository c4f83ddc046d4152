"""Say what an endpoint of the running gateway is to be.

auto: its health decides. ready: it is used, whatever its health. draining: no new requests, what runs may
finish. down: it is not used. The word holds over reloads, until another one is said.
"""

from __future__ import annotations

import argparse

from fastgate.cli.admin_client import add_admin_options, call


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("upstream", metavar="UPSTREAM")
    parser.add_argument("address", metavar="ADDRESS", help="as `fastgate upstreams` shows it")
    parser.add_argument("state", choices=("auto", "ready", "draining", "down"))
    parser.add_argument(
        "--weight",
        type=_weight,
        metavar="N",
        help='its weight from now on, 1 to 1000; "auto": the configured one (default: stays)',
    )


def main(args: argparse.Namespace) -> int:
    change = {"state": args.state}
    if args.weight is not None:
        change["weight"] = None if args.weight == "auto" else args.weight
    found = call(args, "PUT", "upstreams", args.upstream, "endpoints", args.address, body=change)
    print(
        f"{args.upstream} {found['address']}: {found['state']}, {found['status']}, weight {found['weight']}"
    )
    return 0


def _weight(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1000:
        raise argparse.ArgumentTypeError('a weight is a number from 1 to 1000, or "auto"')
    return int(text)
