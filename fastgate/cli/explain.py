"""Tell what the gateway would do with one request, without starting it.

Which route wins and why, and for each other route the condition that failed or what has precedence over
it; the forwarded path, the plugins in their order, the upstream, the redirect.
Exit code 0: told, also when no route matches; 1: bad configuration; 2: a request that would
be refused.
"""

from __future__ import annotations

import argparse
import sys

from fastgate.cli.common import add_config_option, load_or_tell


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config_option(parser)
    parser.add_argument("method", metavar="METHOD", help="as in GET")
    parser.add_argument("url", metavar="URL", help='"https://host/path?query", or a path (the host by -H)')
    parser.add_argument(
        "-H",
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="a field of the request; may be repeated",
    )
    parser.add_argument("--listener", metavar="NAME", help="to which it comes (default: the first)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    headers = []
    for line in args.header:
        name, colon, value = line.partition(":")
        if not colon:
            print(f"fastgate explain: {line!r} is no header: 'Name: value'", file=sys.stderr)
            return 2
        headers.append((name, value))
    loaded = load_or_tell(args.config)
    if loaded is None:
        return 1
    from fastgate.routing.explain import ExplainError, describe, explain

    try:
        found = explain(loaded.config, args.method, args.url, headers, args.listener)
    except ExplainError as error:
        print(f"fastgate explain: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        # What only the compiled route table can see.
        print(f"{', '.join(args.config)}: {error}", file=sys.stderr)
        return 1
    if args.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(describe(found))
    return 0
