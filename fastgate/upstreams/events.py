"""What an operator must know of an upstream, as lines of the log `fastgate.upstreams`: one for each
change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from fastgate.upstreams.source import EndpointSpec

__all__ = ["Events", "log"]

log: Final = logging.getLogger("fastgate.upstreams")

_SHOWN: Final = 10
_LONGEST: Final = 500


class Events:
    """The events of one upstream.

    problems: what is wrong with its sources at this moment, by the source's name. changed: called when that
    is something else than before.
    """

    def __init__(self, upstream: str, changed: Callable[[], None] = lambda: None) -> None:
        self.upstream = upstream
        self.problems: dict[str, str] = {}
        self.changed = changed

    def problem(self, source: str, text: str, kept: int) -> None:
        """What is wrong with a source, "" for nothing. kept: endpoints of it that are in use all the
        same.

        A line when trouble begins and when it ends. That its words change meanwhile, as from one name
        server's failure to another's, is kept in `problems` and not logged.
        """
        before = self.problems.get(source)
        if text:
            self.problems[source] = text
            if before is None:
                log.warning(
                    "upstream %s: %s: %s; endpoints in use: %d", self.upstream, source, _line(text), kept
                )
        elif before is not None:
            del self.problems[source]
            log.info("upstream %s: %s: in order again", self.upstream, source)
        if text != (before or ""):
            self.changed()

    def forget(self, source: str) -> None:
        """The source is not followed any more."""
        self.problems.pop(source, None)

    def endpoints(self, before: Iterable[EndpointSpec], after: Iterable[EndpointSpec]) -> None:
        """The set of endpoints has changed."""
        old = {spec.address: spec for spec in before}
        new = {spec.address: spec for spec in after}
        changes = [f"+{address}" for address in new if address not in old]
        changes += [f"-{address}" for address in old if address not in new]
        changes += [f"~{address}" for address, spec in new.items() if old.get(address, spec) != spec]
        shown = " ".join(changes[:_SHOWN])
        if len(changes) > _SHOWN:
            shown += f" and {len(changes) - _SHOWN} more"
        log.info("upstream %s: endpoints changed: %s (now %d)", self.upstream, _line(shown), len(new))

    def probed(self, address: str, up: bool, why: str) -> None:
        """Active checks have changed their mind about an endpoint."""
        if up:
            log.info("upstream %s: endpoint %s is up", self.upstream, address)
        else:
            log.warning("upstream %s: endpoint %s is down: %s", self.upstream, address, _line(why))


def _line(text: str) -> str:
    """One line of bounded length, whatever an upstream or a file put into it."""
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text[:_LONGEST])
    return shown + ("..." if len(text) > _LONGEST else "")
