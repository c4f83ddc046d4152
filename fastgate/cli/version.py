"""Print the versions of fastgate and of what it runs on."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def main(args: argparse.Namespace) -> int:
    from fastgate.versions import versions

    for name, version in versions().items():
        print(f"{name} {version}")
    return 0
