"""What an operator may see and do while the gateway runs, whoever asks: the admin API, or another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

from msgspec import UNSET, Meta, Struct, UnsetType

from fastgate.config import Config, Problem
from fastgate.telemetry.trail import ExchangeTrace

__all__ = [
    "ArmView",
    "Changes",
    "EndpointChange",
    "EndpointView",
    "Operations",
    "OperatorState",
    "ReloadError",
    "ReloadResult",
    "SplitView",
    "UnknownName",
    "UpstreamView",
    "result_of",
]

# "auto": health and outliers decide.
OperatorState = Literal["auto", "ready", "draining", "down"]


class UnknownName(LookupError):
    """There is no such upstream, endpoint, route or arm. ``str()`` says which."""


class ReloadError(Exception):
    """The configuration can't be put in force, and nothing has changed. ``str()`` is what `fastgate check`
    says of the file, or why it could not be done; ``problems`` what the file's text is to blame for."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class EndpointView(Struct, frozen=True, kw_only=True):
    """One endpoint. The numbers of connections and requests are of this worker."""

    address: str
    region: str
    zone: str
    status: Literal["ready", "draining", "down", "ejected"]  # what it is, all told
    state: OperatorState  # the operator's word
    probe: Literal["unknown", "up", "down"]  # what active checks say
    breaker: Literal["closed", "open", "half-open"]
    ejected_for: float  # seconds to go; 0: it is not
    weight: int  # in force
    active: int  # requests under way
    open: int  # connections made
    idle: int  # those of them that are not in use
    waiting: int  # requests that wait for one


class UpstreamView(Struct, frozen=True, kw_only=True):
    """problem: why nothing is known of its endpoints, "" where something is. limit: of its concurrency, 0 for
    none; queued: requests that wait for a place in it. load: over all workers, `requests` and `retries` under
    way, `pending` (requests that wait for a connection) and `connections`."""

    name: str
    balance: str
    breaker: Literal["closed", "open", "half-open"]
    problem: str
    limit: int
    queued: int
    load: dict[str, int] = {}
    endpoints: tuple[EndpointView, ...]


class EndpointChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator's word on an endpoint. What is not given stays. weight None: the configured one."""

    state: OperatorState | UnsetType = UNSET
    weight: Annotated[int, Meta(ge=1, le=1000)] | UnsetType | None = UNSET


class ArmView(Struct, frozen=True, kw_only=True):
    """One target of a split. weight: in force; configured: the file's."""

    name: str
    upstream: str
    weight: int
    configured: int
    rolled_back: str | None = None  # the numbers that sent it to weight 0


class SplitView(Struct, frozen=True, kw_only=True):
    route: str
    arms: tuple[ArmView, ...]


class Changes(Struct, frozen=True, kw_only=True):
    """Names of one kind of thing that a reload added, changed, removed, and how many stayed as they were."""

    kept: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class ReloadResult(Struct, frozen=True, kw_only=True):
    """What a reload changed. listening: (address, name) of each listener that was opened."""

    listeners: Changes
    upstreams: Changes
    routes: Changes
    plugins: Changes
    listening: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """ "routes: 1 added, 2 changed; upstreams: 1 removed", or "nothing changed"."""
        parts = []
        for kind in ("listeners", "upstreams", "routes", "plugins"):
            change: Changes = getattr(self, kind)
            words = [
                f"{len(names)} {word}"
                for word, names in (
                    ("added", change.added),
                    ("changed", change.changed),
                    ("removed", change.removed),
                )
                if names
            ]
            if words:
                parts.append(f"{kind}: {', '.join(words)}")
        return "; ".join(parts) or "nothing changed"


class Operations(Protocol):
    """Of one process, or of several workers together; then each may have to wait for them. Each raises
    UnknownName for a name that is not there."""

    async def upstreams(self) -> list[UpstreamView]:
        """In the order of the file."""

    async def set_endpoint(self, upstream: str, address: str, change: EndpointChange) -> EndpointView:
        """Puts an operator's word in force, over reloads, and returns what is then."""

    async def split(self, route: str) -> SplitView:
        """The arms of a route's split."""

    async def set_split(self, route: str, weights: Mapping[str, int]) -> SplitView:
        """Puts weights of arms in force; arms that are not named keep theirs. ValueError: they can't be."""

    async def clear_split(self, route: str, arm: str) -> SplitView:
        """Forgets that an arm was rolled back, and any weight that was set: the file's is in force again.
        ValueError: then no arm would have a weight."""

    async def count(self) -> dict[str, Any]:
        """The counters; see docs/access-log.md."""

    async def why(self, request_id: str) -> ExchangeTrace:
        """What is kept of the last request with that id."""

    async def failures(self, limit: int) -> list[ExchangeTrace]:
        """The last answers that were errors or refusals, the latest first."""

    async def reload(self, config: Config | None = None) -> ReloadResult:
        """Puts a configuration in force; None: that of the file, read anew. Raises ReloadError."""


def result_of(
    before: Config, after: Config, listening: list[tuple[str, str]], warnings: list[str]
) -> ReloadResult:
    """What there is to tell when one configuration has taken the place of another."""
    return ReloadResult(
        listeners=_changes(*({each.name: each for each in c.listeners} for c in (before, after))),
        upstreams=_changes(before.upstreams, after.upstreams),
        routes=_changes(*({each.name: each for each in c.routes} for c in (before, after))),
        plugins=_changes(before.plugins, after.plugins),
        listening=tuple(listening),
        warnings=tuple(warnings),
    )


def _changes(before: Mapping[str, object], after: Mapping[str, object]) -> Changes:
    return Changes(
        kept=sum(name in before and before[name] == after[name] for name in after),
        added=tuple(name for name in after if name not in before),
        changed=tuple(name for name in after if name in before and before[name] != after[name]),
        removed=tuple(name for name in before if name not in after),
    )
