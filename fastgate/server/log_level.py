"""From which level on the `fastgate` loggers of this process say anything."""

from __future__ import annotations

import logging
from typing import Final, cast

from fastgate.server.operations import LogLevel

__all__ = ["log_from", "logged_from"]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def logged_from() -> LogLevel:
    """The next one up, where a program has set another number."""
    level = logging.getLogger("fastgate").getEffectiveLevel()
    return cast(LogLevel, next((name for name, number in _LEVELS.items() if number >= level), "critical"))


def log_from(level: LogLevel) -> None:
    """Until the process ends."""
    logging.getLogger("fastgate").setLevel(_LEVELS[level])
