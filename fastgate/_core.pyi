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

# -- core/loops.pyx

def measure_routing(
    heads: list[tuple[bytes, bytes]], rounds: int, table: RouteTable | None = None
) -> int: ...

# Where a `config` is Any, the struct of fastgate.config.model is meant, or any object with its attributes:
# the core imports no other room.

# -- addresses and sets of networks

def canonical_address(text: str) -> str | None: ...
def canonical_network(text: str) -> str | None: ...

class IpSet:
    def __init__(self, networks: Iterable[str] = ...) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    def match(self, address: str) -> int | None: ...
    def __len__(self) -> int: ...
    def __contains__(self, address: str) -> bool: ...

class IpFilterCore:
    def __init__(self, config: Any) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def report_only(self) -> bool: ...
    @property
    def allow(self) -> IpSet: ...
    @property
    def block(self) -> IpSet: ...
    @property
    def refused(self) -> int: ...
    @property
    def reported(self) -> int: ...
    def refuses_address(self, address: str) -> bool: ...

# -- core/request_key.pyx

class RequestKey:
    def __init__(self, parts: Sequence[str], *, seed: bytes = ..., ipv6_prefix: int = 64) -> None: ...
    def bind_route(self, route_index: int, captures: tuple[str, ...]) -> None: ...
    def hash_every(self, request: SampleRequest, route_index: int = -1, scope: int = -1) -> int: ...
    def hash_first(self, request: SampleRequest, route_index: int = -1) -> int | None: ...

# -- rate limit

def rate_error(count: int, per_ns: int, burst: int) -> str | None: ...
def sip_hash(key: bytes, message: bytes) -> bytes: ...

class RateResult(NamedTuple):
    limited: bool
    refused: bool
    remaining: int
    retry_after: int
    headers: bytes

class RateLimiter:
    def __init__(self, config: Any, *, seed: bytes | None = None) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def report_only(self) -> bool: ...
    @property
    def per_route(self) -> bool: ...
    @property
    def burst(self) -> int: ...
    @property
    def passed(self) -> int: ...
    @property
    def limited(self) -> int: ...
    @property
    def reported(self) -> int: ...
    @property
    def keys(self) -> int: ...
    @property
    def evicted(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    def bind_route(self, route_index: int, captures: tuple[str, ...]) -> None: ...
    def check_request(self, request: SampleRequest, now_ns: int, route_index: int = 0) -> RateResult: ...
    def key_hash(self, request: SampleRequest, route_index: int = 0) -> int: ...

# -- requests and exchanges for tests and benchmarks

class SampleRequest:
    def __init__(
        self,
        client: str = "192.0.2.1",
        *,
        method: str = "GET",
        path: str = "/",
        query: str | None = None,
        host: str = "",
        headers: Iterable[tuple[str, str]] = (),
        consumer: str = "",
        captures: tuple[str, ...] = (),
    ) -> None: ...

def sample_chunked(pieces: Iterable[bytes]) -> tuple[str, bytes, bytes, int]: ...

class SampleExchange:
    def __init__(
        self,
        *,
        request_id: str | bytes | None = None,
        listener: str | bytes | None = None,
        route: str | bytes | None = None,
        upstream: str | bytes | None = None,
        endpoint: str | bytes | None = None,
        method: str | bytes | None = None,
        target: str | bytes | None = None,
        host: str | bytes | None = None,
        user_agent: str | bytes | None = None,
        tls: str | bytes | None = None,
        detail: str | bytes | None = None,
        client: str = "",
        client_port: int = 0,
        http_minor: int = 1,
        headers: Iterable[tuple[str | bytes, str | bytes]] = (),
        status: int = 0,
        reason: str = "none",
        attempts: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        start_unix_ns: int = 0,
        queue_ns: int = -1,
        connect_ns: int = -1,
        upstream_head_ns: int = -1,
        total_ns: int = -1,
        route_index: int = -1,
        upstream_index: int = -1,
    ) -> None: ...

# -- access log

ACCESS_LOG_FIELDS: tuple[str, ...]

def parse_log_format(format: str) -> list[tuple[str, str]]: ...

class LogWriter:
    def __init__(self, path: str) -> None: ...
    @property
    def dropped(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    def reopen(self) -> None: ...
    def close(self, timeout: float) -> bool: ...

class AccessLog:
    def __init__(self, config: Any) -> None: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def writer(self) -> LogWriter | None: ...
    @property
    def written(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    def log(self, exchange: SampleExchange) -> None: ...
    def line(self, exchange: SampleExchange) -> bytes: ...
    def flush(self) -> None: ...
    def reopen(self) -> None: ...
    def close(self, timeout: float) -> bool: ...

# -- balancing and counters

class SharedTable:
    def __init__(self, size: int, capacity: int) -> None: ...

def endpoint_states(capacity: int = 4096) -> SharedTable: ...
def upstream_states(capacity: int = 1024) -> SharedTable: ...

class Seat:
    def __init__(
        self,
        upstream: str,
        address: str,
        *,
        table: SharedTable,
        weight: int = 1,
        max_requests: int = 0,
        region: str = "",
        zone: str = "",
    ) -> None: ...
    @property
    def address(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def zone(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def max_requests(self) -> int: ...
    @property
    def active(self) -> int: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def observe(self, latency_ns: int, now: int) -> None: ...

class TierInfo(NamedTuple):
    total: int
    ready: int
    share: float
    panic: bool
    failed: bool

class Group:
    NONE: int
    FULL: int
    def __init__(
        self,
        table: SharedTable,
        name: str,
        seats: Iterable[Seat] = (),
        *,
        balance: str = "least-request",
        bounded_load: float = 1.25,
        region: str = "",
        zone: str = "",
        order: Sequence[str] = (),
        spill_over: float = 140,
        failback_after_ns: int = 30_000_000_000,
        panic_threshold: float = 50,
        slow_start_ns: int = 0,
    ) -> None: ...
    @property
    def seats(self) -> tuple[Seat, ...]: ...
    @property
    def balance(self) -> str: ...
    def replace(self, seats: Iterable[Seat]) -> None: ...
    def tiers_at(self, now: int) -> list[TierInfo]: ...
    def weights_at(self, now: int) -> tuple[float, ...]: ...
    def take(
        self, key: int | None = None, tried: Sequence[int] = (), random: int = 0, now: int = 0
    ) -> int: ...

def sample_endpoint_state(
    seat: Seat,
    *,
    operator: str = "none",
    weight: int = 0,
    probe: str = "unknown",
    ejected_until_ns: int = 0,
    breaker: str = "closed",
    breaker_until_ns: int = 0,
    returned_ns: int = 0,
) -> None: ...
def sample_upstream_changed(table: SharedTable, name: str) -> None: ...

GAUGES: tuple[str, ...]
UPSTREAM_COUNTS: tuple[str, ...]

def histogram_bounds() -> tuple[int, ...]: ...

class Counters:
    def __init__(self, routes: Sequence[str], upstreams: Sequence[str], workers: int = 1) -> None: ...
    @property
    def size_bytes(self) -> int: ...
    def use_worker(self, worker: int) -> None: ...
    def count(self, exchange: SampleExchange) -> None: ...
    def add(self, gauge: str, by: int) -> None: ...
    def add_upstream(self, upstream: str, count: str, by: int) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...

# -- loops for the micro-benchmarks

def loop_check(limiter: RateLimiter, requests: list[SampleRequest], now_ns: int, step_ns: int) -> int: ...
def loop_check_clients(limiter: RateLimiter, first: int, count: int, now_ns: int) -> int: ...
def loop_longest(networks: IpSet, requests: list[SampleRequest]) -> int: ...
def loop_line(log: AccessLog, exchange: SampleExchange, times: int) -> int: ...
def loop_log(log: AccessLog, exchange: SampleExchange, times: int) -> None: ...
def loop_record(counters: Counters, exchange: SampleExchange, times: int) -> None: ...
def loop_pick(group: Group, times: int, keyed: bool, busy: bool, now: int = 1) -> int: ...

# -- core/header_rules.pyx

class HeaderRules:
    def __init__(self, set: dict[str, str], add: dict[str, str], remove: tuple[str, ...]) -> None: ...

# -- proxy/heads.pyx

def measure_heads(head: bytes, rules: HeaderRules | None, rounds: int) -> int: ...

# -- proxy/snapshot.pyx: the configuration, ready to run. Nanoseconds and bytes; -1 for none.

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
    def accepted(self) -> int: ...
    def watch(self, upstreams: tuple[Upstream, ...]) -> None: ...
    def show_gauges(self) -> int: ...
    @property
    def cut(self) -> int: ...
    async def drain(self, upstreams: Iterable[Upstream], timeout: float) -> None: ...  # noqa: ASYNC109
    def close(self) -> None: ...
    def census(self) -> dict[str, int]: ...
