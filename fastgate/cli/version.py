"""Print the versions of fastgate and of what it runs on."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

import fastgate


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def main(args: argparse.Namespace) -> int:
    print(f"fastgate {fastgate.__version__}")
    print(f"{platform.python_implementation()} {platform.python_version()}")
    print(f"{platform.system()} {platform.release()} {platform.machine()}")
    for name in ("uvloop", "httptools"):
        try:
            print(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name} is not installed")
    return 0
