"""How many files and connections a worker may have open."""

from __future__ import annotations

import resource
from typing import Final

from fastgate.config import Config

__all__ = ["limit_warnings", "raise_limit"]

# Listeners, logs, the loop, files that are read.
SPARE: Final = 256


def raise_limit() -> int:
    """The process may have as many as the system allows it: the soft limit is raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def limit_warnings(config: Config, limit: int) -> list[str]:
    """Where the limit is below what the configuration lets in: one descriptor for each client and, while it
    is served, one for its upstream."""
    clients = config.server.max_connections
    if limit >= clients + SPARE:
        return []
    return [
        f"fastgate: warning: server.max_connections = {clients} needs more than the {limit} descriptors that "
        "a process may have here (`ulimit -Hn`, LimitNOFILE= in systemd)"
    ]
