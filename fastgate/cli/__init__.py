"""The ``fastgate`` command.

Each command is a module of this package ("-" being "_") with two functions, and is imported only when it is
called, so that ``fastgate --help`` answers at once:

- ``arguments(parser: argparse.ArgumentParser) -> None`` adds its options;
- ``main(args: argparse.Namespace) -> int`` does the work and gives the exit code; ``common.Failed``, which it
  may raise, is told here.

Exit codes: 0 done; 1 bad configuration, or what a command says of itself; 2 usage.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from fastgate.cli.common import Failed

COMMANDS: Final = {
    "run": "start the gateway",
    "check": "check a configuration file and tell all that is wrong with it",
    "top": "show routes and upstreams of the running gateway by rate, errors and latency",
    "upstreams": "list the upstreams of the running gateway, and the state of their endpoints",
    "endpoint": "drain an endpoint of the running gateway, take it out or back in, or weigh it anew",
    "split": "show or change how the running gateway splits a route",
    "plan": "tell what a configuration would change in the running gateway",
    "reload": "have the running gateway read its configuration anew",
    "why": "tell why the running gateway answered a request as it did",
    "history": "list the configurations that were in force",
    "diff": "compare two of them, or files, by meaning",
    "rollback": "put an earlier configuration in force again",
    "replay": "decide the requests of an access log anew, and show which would go another way",
    "upgrade": "start the program of the running gateway anew, without a pause",
    "explain": "tell which route a request would take, and why the others lost",
    "cert": "make an authority and a certificate for a machine on which you develop",
    "new-plugin": "write a package with a plugin of your own, and its test",
    "schema": "print the JSON Schema of the configuration file",
    "demo": "start the gateway before two small services of its own",
    "version": "print the versions of fastgate and of what it runs on",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; ``argv`` without the program's name, by default that of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except BrokenPipeError:
        # The reader of a pipe went away (`fastgate schema | head`). Nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: list[str]) -> int:
    parser = _top_parser()
    # Only the words before the command are the top parser's: it must not import the command to know its
    # options.
    args = parser.parse_args(arguments[:1])
    if args.version:
        args.command = "version"
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    if args.command not in COMMANDS:
        parser.error(f'no command "{_printable(args.command)}"{_near(args.command)}')
    module = importlib.import_module(f"fastgate.cli.{args.command.replace('-', '_')}")
    sub = argparse.ArgumentParser(
        prog=f"fastgate {args.command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(sub)
    # Options may stand between names, as everywhere else.
    try:
        code = int(module.main(sub.parse_intermixed_args(arguments[1:])))
    except Failed as failed:
        code = _tell(args.command, failed)
    sys.stdout.flush()
    return code


def _tell(command: str, failed: Failed) -> int:
    from fastgate.config.problems import shown

    for line in str(failed).splitlines():
        print(f"fastgate {command}: {shown(line)}", file=sys.stderr)
    return 1


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="fastgate",
        usage="fastgate [-h | --version] COMMAND ...",
        description="An API gateway with a compiled hot path, programmable in plain async Python.",
        epilog=f"commands:\n{commands}\n\n`fastgate COMMAND --help` tells more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="the same as the command `version`")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def _near(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return f', did you mean "{near[0]}"?' if near else f"; there are {', '.join(COMMANDS)}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:60])
