"""The versions of fastgate and of what it runs on."""

from __future__ import annotations

import importlib.metadata
import platform

import fastgate


def versions() -> dict[str, str]:
    """By name, fastgate first; a package that is not there is "not installed"."""
    found = {
        "fastgate": fastgate.__version__,
        platform.python_implementation(): platform.python_version(),
        platform.system(): f"{platform.release()} {platform.machine()}",
    }
    for name in ("uvloop", "httptools"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
