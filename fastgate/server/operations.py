"""What an operator may see and do while the gateway runs, whoever asks: the admin API, or another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from msgspec import UNSET, Meta, Struct, UnsetType

from fastgate.config import Config, Problem, Sources
from fastgate.config.diff import Difference
from fastgate.server.acme.views import AcmeView
from fastgate.telemetry.trail import ExchangeTrace

__all__ = [
    "ArmView",
    "Cause",
    "Changes",
    "EndpointChange",
    "EndpointView",
    "Health",
    "InForce",
    "ListenerView",
    "LogLevel",
    "Operations",
    "OperatorState",
    "Outdated",
    "ReloadError",
    "ReloadResult",
    "SplitView",
    "Unavailable",
    "UnknownName",
    "UpstreamView",
    "VersionView",
    "WhyNot",
    "WorkerView",
    "no_room",
    "result_of",
]

# "auto": health and outliers decide.
#: What put a configuration in force.
Cause = Literal["start", "signal", "watch", "admin", "rollback", "program"]
OperatorState = Literal["auto", "ready", "draining", "down"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]


class UnknownName(LookupError):
    """There is no such upstream, endpoint, route or arm. ``str()`` says which."""


class ReloadError(Exception):
    """The configuration can't be put in force, and nothing has changed. ``str()`` is what `fastgate check`
    says of the file, or why it could not be done; ``problems`` what the file's text is to blame for."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class Outdated(Exception):
    """Another configuration is in force than the one that the caller has seen; nothing has changed."""


class Unavailable(Exception):
    """What was asked for can't be done as things are. ``str()`` says why."""


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
    version: int = 0

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


class WhyNot(Struct, frozen=True, kw_only=True):
    """What a gateway that is not ready waits for."""

    code: Literal["starting", "no-configuration", "draining", "no-worker"]
    detail: str


class Health(Struct, frozen=True, kw_only=True):
    """Whether requests should be sent to it: it is ready, or there are reasons."""

    ready: bool
    reasons: tuple[WhyNot, ...] = ()


class WorkerView(Struct, frozen=True, kw_only=True):
    """A process that serves. id: its seat, from 1; another may sit there with it for a while.
    started: seconds since the epoch."""

    id: int
    pid: int
    started: float
    state: Literal["starting", "serving", "hung", "draining"]


class ListenerView(Struct, frozen=True, kw_only=True):
    """addresses: as in "127.0.0.1:8080", with the port that a bind to port 0 got."""

    name: str
    bind: str
    addresses: tuple[str, ...]
    proxy_protocol: bool
    plugins: tuple[str, ...]


class VersionView(Struct, frozen=True, kw_only=True):
    """A configuration that was in force. time: since when, seconds since the epoch. of: the version that a
    rollback went back to; 0: it was none. changes: against the one before it, in a few words. as_files: the
    files say what it says, as far as they have been read."""

    version: int
    digest: str
    time: float
    cause: Cause
    of: int
    changes: str
    in_force: bool
    as_files: bool


class InForce(NamedTuple):
    """The configuration in force. version: 1, 2, 3 ... since the start; etag: of this version, in quotes, no
    other gateway or start has the same; applied: seconds since the epoch."""

    config: Config
    version: int
    etag: str
    applied: float


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

    async def metrics(self, openmetrics: bool) -> bytes:
        """All that docs/metrics.md lists, as OpenMetrics or Prometheus text."""

    async def why(self, request_id: str) -> ExchangeTrace:
        """What is kept of the last request with that id."""

    async def failures(self, limit: int) -> list[ExchangeTrace]:
        """The last answers that were errors or refusals, the latest first."""

    async def reload(
        self, config: Config | None = None, *, cause: Cause = "program", expected: str | None = None
    ) -> ReloadResult:
        """Puts a configuration in force; None: that of the file, read anew. cause: who asks.

        expected: the etag of the one that it is to take the place of. Raises ReloadError, Outdated."""

    async def reload_certificates(self, *, expected: str | None = None) -> ReloadResult:
        """Reads the files of certificates, keys, authorities and revocation lists anew, for the configuration
        in force, which stays the same version. Raises as ``reload``."""

    async def history(self) -> list[VersionView]:
        """The versions that are kept, oldest first."""

    async def sources(self, version: int | None = None) -> Sources:
        """What the files said of a version; None: of the one in force. Their text is as it was written."""

    async def diff(self, old: int, new: int) -> Difference:
        """What changed between two versions, by meaning."""

    async def rollback(self, version: int | None = None, *, expected: str | None = None) -> ReloadResult:
        """Puts an earlier version in force, as a new one; None: the last one that said something else. Raises
        ReloadError, Outdated."""

    async def in_force(self) -> InForce:
        """What runs."""

    async def health(self) -> Health:
        """Whether requests should be sent to it."""

    async def workers(self) -> list[WorkerView]:
        """The processes that serve, in the order of their numbers."""

    async def listeners(self) -> list[ListenerView]:
        """In the order of the file."""

    async def acme(self) -> list[AcmeView]:
        """What each `[acme.NAME]` is about, and how its certificates stand."""

    async def upgrade(self) -> int:
        """Starts the program anew beside the one that runs, with the configuration in force; its process id
        once it serves. The one that runs then drains. Raises Unavailable where that is not ours to do, and
        ReloadError; then nothing has changed."""

    async def begin_drain(self) -> None:
        """Begins what SIGTERM begins, and returns at once; again, it does nothing. Raises Unavailable where
        the program that embeds the gateway decides on that."""

    async def log_level(self) -> LogLevel:
        """From which level on the `fastgate` loggers say anything."""

    async def set_log_level(self, level: LogLevel) -> LogLevel:
        """In all processes, until they end. Returns what is then."""


def no_room(error: Exception) -> ReloadError:
    """For ``_core.SlotsFull``."""
    return ReloadError(f"no room to count all routes and upstreams ({error}); a restart makes room")


def result_of(
    before: Config,
    after: Config,
    listening: list[tuple[str, str]],
    warnings: list[str],
    version: int = 0,
) -> ReloadResult:
    """What there is to tell when one configuration has taken the place of another."""
    return ReloadResult(
        listeners=_changes(*({each.name: each for each in c.listeners} for c in (before, after))),
        upstreams=_changes(before.upstreams, after.upstreams),
        routes=_changes(*({each.name: each for each in c.routes} for c in (before, after))),
        plugins=_changes(before.plugins, after.plugins),
        listening=tuple(listening),
        warnings=tuple(warnings),
        version=version,
    )


def _changes(before: Mapping[str, object], after: Mapping[str, object]) -> Changes:
    return Changes(
        kept=sum(name in before and before[name] == after[name] for name in after),
        added=tuple(name for name in after if name not in before),
        changed=tuple(name for name in after if name in before and before[name] != after[name]),
        removed=tuple(name for name in before if name not in after),
    )
