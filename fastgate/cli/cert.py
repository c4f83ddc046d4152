"""Make certificates for a machine on which you develop, or have the running gateway read its files anew.

dev: a small authority, and a certificate by it. Written are `authority.pem` and its key (once; later calls
use them again), and NAME.pem and NAME.key for all names together. Nobody else trusts that authority: tell
your browser or your tools to. Not for anything that others reach.

reload: certificates, keys, authorities and revocation lists, of the configuration in force, whatever its own
files say by now. All of them or none: one that does not fit changes nothing, and is told here.

Exit code 0: written, or reloaded; 1: it cannot be written, what is there is no authority, or not reloaded;
2: a name that cannot be one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from fastgate.cli.admin_client import Failed, add_admin_options, call, tell_failure
from fastgate.cli.reload import tell_changes

LOCAL: Final = ("localhost", "127.0.0.1", "::1")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=["dev", "reload"],
        metavar="dev|reload",
        help="an authority and a certificate by it; or the gateway's files are read anew",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help='host names, "*.NAME" or addresses (default: localhost, 127.0.0.1 and ::1)',
    )
    parser.add_argument("--dir", metavar="D", default="certs", help="where to write them (default: certs)")
    parser.add_argument("--days", metavar="N", type=int, default=90, help="how long it holds (default: 90)")
    add_admin_options(parser)


def main(args: argparse.Namespace) -> int:
    return _reload(args) if args.what == "reload" else _dev(args)


def _reload(args: argparse.Namespace) -> int:
    if args.names:
        print("fastgate cert reload: it takes no names", file=sys.stderr)
        return 2
    try:
        tell_changes(call(args, "POST", "certificates", "reload"))
    except Failed as failed:
        return tell_failure("cert reload", failed)
    return 0


def _dev(args: argparse.Namespace) -> int:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        print("fastgate cert: cryptography is missing (pip install fastgate[tls])", file=sys.stderr)
        return 1
    from fastgate.cli.dev_certificates import NameProblem, NoAuthority, make

    try:
        made = make(Path(args.dir), tuple(args.names) or LOCAL, args.days)
    except NameProblem as problem:
        print(f"fastgate cert: {problem}", file=sys.stderr)
        return 2
    except NoAuthority as problem:
        print(f"fastgate cert: {problem}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"fastgate cert: {error.filename or args.dir}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{made.certificate} and {made.key} are for {', '.join(made.names)}, for {args.days} days.\n")
    print("In the configuration:\n")
    print("    [listeners.tls]")
    print(f'    certificates = [{{ cert = "{made.certificate}", key = "{made.key}" }}]\n')
    print(f"Whoever is to trust it must trust {made.authority}:\n")
    print(f"    curl --cacert {made.authority} https://{_shown(made.names[0])}:8443/")
    print(f"    sudo cp {made.authority} /usr/local/share/ca-certificates/fastgate-dev.crt")
    print("    sudo update-ca-certificates        # Debian: curl, Python's default, and the like")
    print("\nFirefox and Chromium have lists of their own: import it in their settings, as an authority for")
    print("websites. Whoever has the authority's key can pretend to be any site to those who trust it.")
    return 0


def _shown(name: str) -> str:
    name = name.replace("*.", "a.")
    return f"[{name}]" if ":" in name else name
