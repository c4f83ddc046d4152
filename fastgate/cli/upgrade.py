"""Start the program of the running gateway anew: a new version of it, or with another server.workers.

The new one begins beside the old with the configuration in force and the same sockets; when it serves, the
old one takes nothing new and ends when what runs there has ended. If it does not start, nothing has happened.
Exit code 0: the new one serves; 1: not.
"""

from __future__ import annotations

import argparse

from fastgate.cli.admin_client import add_admin_options, call


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)


def main(args: argparse.Namespace) -> int:
    found = call(args, "POST", "upgrade")
    print(f"the program with pid {found['pid']} serves")
    return 0
