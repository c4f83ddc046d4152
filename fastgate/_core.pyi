"""Types of the compiled module."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

class ReasonInfo(NamedTuple):
    code: str
    status: int
    proxy_error: str
    source: str
    retryable: bool
    cause: str
    remedy: str

REASONS: tuple[ReasonInfo, ...]

# -- core/target.pyx

class TargetError(ValueError):
    reason: str
    def __init__(self, reason: str, detail: str) -> None: ...

class NormalTarget(NamedTuple):
    form: str
    scheme: str
    authority: bytes
    host: bytes
    port: int | None
    path: bytes
    query: bytes | None
    encoded_slash: bool
    copied: bool

def parse_target(target: bytes, host: bytes | None = None, method: bytes = b"GET") -> NormalTarget: ...

# -- core/conditions.pyx

class Regex(Protocol):
    def fullmatch(self, text: bytes) -> object | None: ...

def compile_regex(pattern: str) -> Regex: ...

# -- core/route_path.pyx

class PathPattern(NamedTuple):
    segments: tuple[bytes | None, ...]
    names: tuple[str, ...]
    @property
    def literal(self) -> bytes: ...

def parse_path_pattern(text: str) -> PathPattern: ...
def parse_prefix(text: str) -> bytes: ...
def parse_host_pattern(text: str) -> tuple[bool, bytes]: ...

# -- core/route_table.pyx; a route is anything that has the attributes of the configuration's Route

class RouteTable:
    work: int
    def __init__(self, routes: Iterable[tuple[int, Any]]) -> None: ...
    def find(
        self,
        method: bytes,
        host: bytes,
        path: bytes,
        query: bytes | None = None,
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> tuple[int, tuple[bytes, ...]]: ...

# -- core/rewrite.pyx

class PathRewrite:
    change: int
    def __init__(self, match: Any, path: str | None = None, prefix: str | None = None) -> None: ...
    def apply(self, path: bytes, query: bytes | None = None, captures: Sequence[bytes] = ()) -> bytes: ...

class Redirector:
    status: int
    def __init__(self, match: Any, redirect: Any) -> None: ...
    def location(
        self,
        scheme: bytes,
        host: bytes,
        path: bytes,
        query: bytes | None = None,
        captures: Sequence[bytes] = (),
        port: bytes | None = None,
    ) -> bytes: ...

def path_rewrite_of(route: Any) -> PathRewrite: ...

# -- core/measure.pyx

def measure_routing(
    heads: list[tuple[bytes, bytes]], rounds: int, table: RouteTable | None = None
) -> int: ...

# -- core/header_rules.pyx

class HeaderRules:
    def __init__(self, set: dict[str, str], add: dict[str, str], remove: tuple[str, ...]) -> None: ...

# -- proxy/snapshot.pyx: the configuration, ready to run. Durations in nanoseconds, sizes in bytes, -1 for none.

class NativeFilter:
    @property
    def name(self) -> str: ...

class RateLimitFilter(NativeFilter):
    def __init__(self, name: str, limiter: RateLimiter) -> None: ...

class IpFilter(NativeFilter):
    def __init__(self, name: str, lists: IpFilterCore) -> None: ...

class Route:
    def __init__(
        self,
        *,
        index: int,
        name: str,
        upstream: Upstream | None = None,
        redirect: Redirector | None = None,
        respond: tuple[int, bytes, bytes] | None = None,
        filters: tuple[NativeFilter, ...] = (),
        rewrite: PathRewrite | None = None,
        rewrite_host: str | None = None,
        request_rules: HeaderRules | None = None,
        response_rules: HeaderRules | None = None,
        upgrades: Iterable[str] = (),
        keep_encoded_slash: bool = False,
        body_limit: int = -2,
        total_ns: int = -1,
        tunnel_idle_ns: int,
        event_idle_ns: int,
    ) -> None: ...
    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...

class Upstream:
    def __init__(
        self,
        *,
        index: int,
        name: str,
        weights: Iterable[int],
        connect_ns: int,
        head_ns: int,
        idle_ns: int,
        header_bytes: int,
        header_count: int,
        body_limit: int,
        host: str,
    ) -> None: ...
    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    def add(self, endpoint: Endpoint) -> None: ...

class Listener:
    def __init__(
        self,
        *,
        name: str,
        table: RouteTable,
        routes: tuple[Route | None, ...],
        request_line: int,
        header_bytes: int,
        header_count: int,
        body_limit: int,
        head_ns: int,
        body_idle_ns: int,
        keep_alive_ns: int,
        write_idle_ns: int,
        body_min_rate: int,
        trusted: IpSet | None,
        proxy_protocol: bool,
        forwarded: tuple[str, ...],
        request_id: str,
        half_close: str,
    ) -> None: ...
    @property
    def name(self) -> str: ...

# -- proxy/pool.pyx

class Endpoint:
    def __init__(
        self,
        worker: Worker,
        upstream: Upstream,
        *,
        address: str,
        host: str | None,
        port: int,
        unix_path: str | None,
        resolver: Callable[[str, int], Awaitable[list[str]]] | None,
        max_open: int,
        max_idle: int,
        max_waiting: int,
        idle_ns: int,
        queue_ns: int,
    ) -> None: ...
    @property
    def address(self) -> str: ...

# -- proxy/downstream1.pyx: the protocol of a client's connection; the loop calls its methods

class Downstream1(asyncio.Protocol):
    def __init__(self, worker: Worker, listener: Listener) -> None: ...

# -- proxy/worker.pyx

class Worker:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        log: AccessLog | None,
        counters: Counters,
        *,
        max_connections: int,
        max_per_address: int,
        flush_interval: int,
    ) -> None: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def exchanges(self) -> int: ...
    @property
    def connecting(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def cut(self) -> int: ...
    async def drain(self, upstreams: Iterable[Upstream], timeout: float) -> None: ...
    def close(self) -> None: ...
    def census(self) -> dict[str, int]: ...
