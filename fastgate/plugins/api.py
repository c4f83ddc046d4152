"""The plugin API: what a plugin is, and what it may use.

A plugin is a class with a typed configuration and some of the phases below. Every phase may be ``def`` or
``async def``; those that a class does not define cost nothing. The plugins that ship in this package are
written with nothing else.

    class Hello(Plugin):
        class Config(PluginConfig):
            greeting: Annotated[str, doc("What the service is told.")] = "hello"

        config: Config

        async def on_request(self, exchange: Exchange) -> Response | None:
            exchange.request.headers["x-greeting"] = self.config.greeting
            return None
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from logging import Logger
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, ParamSpec, Protocol, TypeVar, dataclass_transform

from msgspec import Struct, StructMeta, field

from fastgate import _core
from fastgate._core import ExchangeView as Exchange
from fastgate._core import GatewayError, Response, SubResponse
from fastgate.aggregation.gather import gather_of
from fastgate.config.model.basics import MIB

_core.gather_with(gather_of)

P = ParamSpec("P")
T = TypeVar("T")


class _ConfigMeta(StructMeta):
    """Every subclass is frozen and keyword-only too, which msgspec and type checkers do not inherit."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        own = {"frozen": True, "kw_only": True, "forbid_unknown_fields": True}
        return super().__new__(mcls, name, bases, namespace, **(own | options))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
class PluginConfig(Struct, frozen=True, metaclass=_ConfigMeta):
    """The base of a plugin's configuration: a frozen msgspec struct whose fields are TOML keys.

    ``Annotated[type, doc("What it is.")]`` describes a key; ``doc(..., "duration")`` and the other forms of
    ``fastgate.config.forms`` read the textual ones. What spans several keys is checked in ``Plugin.check``.
    """


class NoConfig(PluginConfig):
    """No keys."""


class Plugin:
    """One plugin of a configuration. An instance serves every exchange of one worker, from ``provision``
    until the configuration that holds it is replaced and the last exchange that began with it is over: then
    ``close``.

    config: an instance of ``Config``. name: that of its table in the configuration.
    """

    #: Its configuration: a PluginConfig (any frozen msgspec.Struct, or a frozen dataclass).
    Config: ClassVar[type[Any]] = NoConfig
    #: How ``on_response_body`` gets the body: not at all, each piece as it comes, or whole.
    response_body: ClassVar[Literal["none", "chunks", "buffered"]] = "none"
    #: Bytes that are held at most where a body is wanted whole: of requests 413, of responses 502.
    body_limit: ClassVar[int] = MIB

    config: Any
    name: str

    def __init__(self, config: Any, name: str) -> None:
        self.config = config
        self.name = name

    @classmethod
    def check(cls, config: Any) -> Mapping[str, str]:
        """What is wrong between the keys of a configuration that is sound key by key: key -> message.
        Called when a file is checked, without I/O. "" stands for the table as a whole."""
        return {}

    @classmethod
    def identity_headers(cls, config: Any) -> tuple[str, ...]:
        """Request headers by which this plugin tells the service who the caller is. Whatever a client sends
        under these names (case, and "_" for "-", make no difference) is removed before any plugin of the
        route runs."""
        return ()

    def provision(self, host: Host) -> Awaitable[None] | None:
        """Called once before the first exchange, in the running loop. May open clients and files and start
        background work (``host.spawn``). What it raises keeps the configuration from being put in force."""
        return None

    def close(self) -> Awaitable[None] | None:
        """Called once, when no exchange can reach the plugin any more; also behind a ``provision`` that
        failed halfway."""
        return None

    # -- phases: the order is that of the listener's plugins, then the route's; answers pass in reverse order

    def on_request(self, exchange: Exchange) -> Awaitable[Response | None] | Response | None:
        """The head is read and the route is known. None: go on. A Response is the answer; no later plugin
        and no upstream is asked."""
        return None

    def on_response(
        self, exchange: Exchange, response: Response
    ) -> Awaitable[Response | None] | Response | None:
        """An answer is about to begin: an upstream's, another plugin's or the gateway's own
        (``response.source``). Called where this plugin's ``on_request`` ran or would have run. It may
        change the response; returning another one replaces it."""
        return None

    def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> Awaitable[bytes] | bytes:
        """A piece of the answer's body (all of it with ``response_body = "buffered"``); returns what goes on.
        ``end``: there is no more. Not called for answers without a body."""
        return chunk

    def on_error(
        self, exchange: Exchange, error: GatewayError
    ) -> Awaitable[Response | None] | Response | None:
        """The gateway is about to answer with an error of its own; a Response takes its place."""
        return None

    def on_log(self, exchange: Exchange) -> Awaitable[None] | None:
        """The exchange is over and logged; ``exchange`` can only be read. Nobody waits for it."""
        return None


class Host(Protocol):
    """What the gateway gives to a plugin at ``provision``."""

    #: Name of the plugin's table.
    name: str
    #: What paths in the configuration are relative to.
    folder: Path
    log: Logger
    #: Time; tests put another clock here.
    clock: Clock
    shared: Shared

    def plugin(self, name: str) -> Plugin:
        """Another plugin of the same configuration, provisioned already. Raises LookupError."""

    async def subrequest(
        self,
        upstream: str,
        *,
        method: str = "GET",
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 5.0,  # noqa: ASYNC109 - enforced by the core's timer wheel
        limit: int = MIB,
    ) -> SubResponse:
        """``Exchange.subrequest``, outside of an exchange."""

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 5.0,  # noqa: ASYNC109 - as above
        limit: int = MIB,
    ) -> SubResponse:
        """A request to an absolute URL that is no upstream of the configuration (an identity provider).
        Needs the extra ``fastgate[auth]``. Raises SubrequestError."""

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what would stop the loop in a thread of the gateway's small pool. Raises Busy when its queue
        is full."""

    async def in_process(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As ``in_thread``, in another process: for what holds the GIL. Function and arguments are
        pickled."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str = "") -> None:
        """Background work, cancelled before ``close``. What it raises is logged."""

    def count(self, what: str, by: int = 1) -> None:
        """Adds to a counter of this plugin, shown with the gateway's (``plugins.NAME.WHAT``)."""


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that only go forward."""


class Shared(Protocol):
    """Small values that are the same for all workers of this gateway (scope "host") or all replicas
    ("redis"). A plugin's keys are its own. Every method raises OSError where the values can't be reached:
    Redis is away, or a process that was stopped holds them."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """``ttl``: seconds until it is forgotten. Values are at most 1 KiB (ValueError)."""

    async def add(self, key: str, by: int, ttl: float) -> int:
        """Adds to a counter, made with 0 where there is none, and gives its new value."""

    async def set_if_absent(self, key: str, value: bytes, ttl: float) -> bool:
        """True: it was not there, and is now (once for all: replay protection, locks)."""

    async def delete(self, key: str) -> None: ...


class Busy(Exception):
    """A bounded queue is full: try again later."""


class Consumer(Struct, frozen=True, kw_only=True):
    """An authenticated caller. ``name`` is what limits, logs and splits count by; ``plan`` chooses among
    limits; ``groups``, ``scopes`` and ``claims`` are what ``acl`` decides by. ``source``: the plugin that
    vouches."""

    name: str
    plan: str = ""
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = {}
    source: str = ""


PHASES: Final = ("on_request", "on_response", "on_response_body", "on_error", "on_log")
