"""What a configuration wants of ACME."""

from __future__ import annotations

from typing import NamedTuple

from fastgate.config.model import Acme, Config

__all__ = ["Wanted", "wanted"]


class Wanted(NamedTuple):
    """One `[acme.NAME]` and the names that listeners want of it."""

    config: Acme
    domains: tuple[str, ...]


def wanted(config: Config) -> dict[str, Wanted]:
    """By name. An `[acme.NAME]` that no listener names is of no use."""
    domains: dict[str, dict[str, None]] = {}
    for listener in config.listeners:
        if listener.tls is not None and listener.tls.acme:
            domains.setdefault(listener.tls.acme, {}).update(dict.fromkeys(listener.tls.domains))
    return {name: Wanted(config.acme[name], tuple(names)) for name, names in domains.items()}
