"""Types of the compiled module."""

import asyncio
import ssl
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from fastgate.aggregation.gather import Gather, Policy
from fastgate.aggregation.part_cache import PartCache

class ReasonInfo(NamedTuple):
    code: str
    status: int
    proxy_error: str
    source: str
    retryable: bool
    cause: str
    remedy: str

REASONS: tuple[ReasonInfo, ...]

# -- core/client_hello.pyx

def server_name(data: bytes) -> str | None:
    """The name in small letters that a ClientHello asks for, "" if it names none. None: it is not whole here,
    or not plain."""

# -- core/openssl.pyx

TICKET_KEYS_LENGTH: int

def set_ciphersuites(context: ssl.SSLContext, suites: str) -> bool:
    """Those of TLS 1.3, colons between them, the preferred first (SSL_CTX_set_ciphersuites). False: nothing
    has changed, OpenSSL being out of reach or not knowing one of them."""

def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> bool:
    """What it makes and reads session tickets with (RFC 5077 4): ``TICKET_KEYS_LENGTH`` bytes, of which the
    first 16 are the name. From then on it keeps no sessions itself: a client without tickets would find them
    in one worker alone. False: nothing has changed, OpenSSL being out of reach."""

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
    def counts(self) -> dict[str, int]:
        """What became of requests, in this process, by a word each."""
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
    def hash_every(self, request: SampleRequest, scope: int = 0) -> int: ...
    def hash_first(self, request: SampleRequest) -> int | None: ...

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
    def counts(self) -> dict[str, int]:
        """What became of requests, in this process, by a word each."""
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
    def check_request(self, request: SampleRequest, now_ns: int, route: str = "") -> RateResult: ...
    def charge_request(self, request: SampleRequest, tokens: int, now_ns: int, route: str = "") -> None: ...
    def key_hash(self, request: SampleRequest, route: str = "") -> int: ...

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
        captures: Mapping[str, str] = {},
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
        consumer: str | bytes | None = None,
        trace_id: str | bytes | None = None,
        tls: str | bytes | None = None,
        tls_cipher: str | bytes | None = None,
        sni: str | bytes | None = None,
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
    def path(self) -> str: ...
    @property
    def dropped(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    def reopen(self) -> None: ...
    def close(self, timeout: float) -> bool: ...

class AccessLog:
    def __init__(self, config: Any, previous: AccessLog | None = None) -> None: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def writer(self) -> LogWriter | None: ...
    @property
    def written(self) -> int: ...
    @property
    def unwritten(self) -> int: ...
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
        health: UpstreamHealth | None = None,
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

class Slot:
    def __init__(self, index: int) -> None: ...
    @property
    def index(self) -> int: ...

class SlotsFull(Exception): ...

class SlotTable:
    def __init__(self, room: int) -> None: ...
    @property
    def room(self) -> int: ...
    @property
    def names(self) -> list[str]: ...
    def take(self, names: Iterable[str], elsewhere: Iterable[int] = ()) -> tuple[list[Slot], list[int]]: ...
    def follow(self, places: Mapping[str, int]) -> list[Slot]: ...

class Counters:
    def __init__(
        self,
        routes: Sequence[str],
        upstreams: Sequence[str],
        workers: int = 1,
        *,
        spare_routes: int = 0,
        spare_upstreams: int = 0,
    ) -> None: ...
    @property
    def size_bytes(self) -> int: ...
    def assign(
        self,
        routes: Sequence[str],
        upstreams: Sequence[str],
        held: tuple[Iterable[int], Iterable[int]] = ((), ()),
    ) -> tuple[list[Slot], list[Slot]]: ...
    def follow(
        self, routes: Mapping[str, int], upstreams: Mapping[str, int]
    ) -> tuple[list[Slot], list[Slot]]: ...
    @property
    def held(self) -> tuple[list[int], list[int]]: ...
    def use_worker(self, worker: int) -> None: ...
    def count(self, exchange: SampleExchange) -> None: ...
    def add(self, gauge: str, by: int) -> None: ...
    def add_endpoint(self, upstream: str, seat: Seat, head_ns: int) -> Tally: ...
    def add_upstream(self, upstream: str, count: str, by: int) -> None: ...
    def part(self, route: str, part: str) -> PartTally: ...
    def add_plugin(self, plugin: str, what: str, by: int) -> None: ...
    def sum_gauges(self, live: Container[int]) -> dict[str, int]: ...
    def snapshot(self) -> dict[str, Any]: ...

METHOD_CLASSES: tuple[str, ...]
METRIC_BOUNDS: tuple[int, ...]
METRIC_FAMILIES: tuple[str, ...]

class Tally: ...

class MetricsText:
    def __init__(self, counters: Counters, names: Mapping[str, str]) -> None: ...
    def begin(self, *, openmetrics: bool, live: Container[int] | None = None) -> None: ...
    def join(self, parts: Sequence[bytes | str]) -> bytes: ...
    def has(self, family: str) -> bool: ...
    def add_routes(self, names: Iterable[str]) -> None: ...
    def add_no_route(self) -> None: ...
    def add_upstreams(self, upstreams: Iterable[tuple[str, UpstreamLoad, UpstreamHealth]]) -> None: ...
    def add_endpoints(self, states: SharedTable, now: int, first: int, last: int) -> bool: ...
    def add_parts(self) -> None: ...
    def add_plugins(self) -> None: ...

# -- health: times are monotonic, in nanoseconds
# -- core/shared_table.pyx

def leases(capacity: int = 64) -> SharedTable: ...

ENDPOINT_STATUSES: tuple[str, ...]
OPERATOR_STATES: tuple[str, ...]
OUTCOMES: tuple[str, ...]

def endpoint_report(seat: Seat, now: int) -> dict[str, Any]: ...

class OutlierRule:
    def __init__(
        self,
        *,
        consecutive_errors: int = 5,
        consecutive_gateway_errors: int = 5,
        success_rate: bool = True,
        success_rate_stdev: float = 1.9,
        min_endpoints: int = 5,
        min_requests: int = 100,
        interval: int = 10_000_000_000,
        base_ejection: int = 30_000_000_000,
        max_ejection: int = 300_000_000_000,
        max_ejected: float = 50,
    ) -> None: ...
    @property
    def consecutive_errors(self) -> int: ...
    @property
    def consecutive_gateway_errors(self) -> int: ...
    @property
    def success_rate(self) -> bool: ...
    @property
    def success_rate_stdev(self) -> float: ...
    @property
    def min_endpoints(self) -> int: ...
    @property
    def min_requests(self) -> int: ...
    @property
    def interval(self) -> int: ...
    @property
    def base_ejection(self) -> int: ...
    @property
    def max_ejection(self) -> int: ...
    @property
    def max_ejected(self) -> float: ...

class BreakerRule:
    def __init__(
        self,
        *,
        error_percent: float = 0,
        min_requests: int = 20,
        window: int = 10_000_000_000,
        open_time: int = 5_000_000_000,
        trials: int = 3,
    ) -> None: ...
    @property
    def error_percent(self) -> float: ...
    @property
    def min_requests(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def open_time(self) -> int: ...
    @property
    def trials(self) -> int: ...

class UpstreamHealth:
    def __init__(
        self,
        name: str,
        *,
        table: SharedTable,
        outlier: OutlierRule | None = None,
        breaker: BreakerRule | None = None,
        per: str = "both",
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def outlier(self) -> OutlierRule | None: ...
    @property
    def breaker(self) -> BreakerRule | None: ...
    @property
    def generation(self) -> int: ...
    @property
    def breaker_state(self) -> Literal["closed", "open", "half-open"]: ...
    def admits(self, now: int) -> bool: ...
    def admits_seat(self, seat: Seat, now: int) -> bool: ...
    def report(self, seat: Seat, seats: tuple[Seat, ...], outcome: str, now: int) -> None: ...
    def probe(self, seat: Seat, ok: bool, rise: int, fall: int, now: int) -> bool: ...
    def set_operator(self, seat: Seat, state: str, now: int) -> None: ...
    def set_weight(self, seat: Seat, weight: int | None) -> None: ...
    def joined(self, seat: Seat, now: int) -> None: ...
    def take_lock(self, now: int) -> None: ...

class Lease:
    def __init__(self, name: str, *, table: SharedTable) -> None: ...
    @property
    def name(self) -> str: ...
    def hold(self, id: int, now: int, ttl_ns: int) -> bool: ...
    def release(self, id: int) -> None: ...
    def holder(self, now: int) -> int | None: ...

# -- core/random.pyx, core/http_date.pyx

class RandomSource:
    def __init__(self, words: tuple[int, int, int, int] | None = None) -> None: ...
    def bits(self) -> int: ...
    def below(self, limit: int) -> int: ...

def http_date(text: bytes, wall_s: int) -> int | None: ...

# -- core/retry.pyx, core/upstream_load.pyx: retries, their budget, the limits of the breaker

class RetryPolicy:
    def __init__(
        self,
        *,
        attempts: int = 2,
        on: Iterable[str] = ("connect-failure", "reset"),
        statuses: Iterable[int] = (502, 503, 504),
        per_try_timeout_ns: int = -1,
        backoff_base_ns: int = 25_000_000,
        backoff_max_ns: int = 250_000_000,
        budget_percent: float = 20,
        budget_min: int = 3,
        body_limit: int = 65536,
        retry_after_max_ns: int = 1_000_000_000,
        unsafe: str = "never",
    ) -> None: ...
    @property
    def attempts(self) -> int: ...
    @property
    def per_try_ns(self) -> int: ...
    @property
    def body_limit(self) -> int: ...
    @property
    def retry_after_max_ns(self) -> int: ...
    def wants_retry(self, reason: str, status: int = 0) -> bool: ...
    def allows_request(self, request: SampleRequest, undelivered: bool = False) -> bool: ...
    def pause_ns(
        self, retry: int, random: int, retry_after: bytes | None = None, wall_s: int = 0
    ) -> int | None: ...

def retry_after_seconds(value: bytes, wall_s: int) -> int | None: ...
def undelivered(reason: str) -> bool: ...

class UpstreamLoad:
    def __init__(
        self,
        upstream: str,
        *,
        table: SharedTable,
        worker: int = 0,
        workers: int = 1,
        max_connections: int = 0,
        max_pending: int = 0,
        max_requests: int = 0,
        max_retries: int = 0,
    ) -> None: ...
    @property
    def workers(self) -> int: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def max_pending(self) -> int: ...
    @property
    def max_requests(self) -> int: ...
    @property
    def max_retries(self) -> int: ...
    def enter_request(self) -> bool: ...
    def leave_request(self) -> None: ...
    def enter_pending(self) -> bool: ...
    def leave_pending(self) -> None: ...
    def enter_connection(self) -> bool: ...
    def leave_connection(self) -> None: ...
    def take_retry(self, policy: RetryPolicy) -> bool: ...
    def give_retry(self) -> None: ...
    def reset(self, worker: int | None = None) -> None: ...
    @property
    def requests(self) -> int: ...
    @property
    def retries(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def retries_refused(self) -> int: ...

def load_states(capacity: int = 4096) -> SharedTable: ...

# -- core/latency.pyx, core/hedge.pyx

class LatencyWindow:
    def __init__(self, *, half_ns: int = 30_000_000_000) -> None: ...
    def observe(self, ns: int, now: int) -> None: ...
    def quantile(self, q: float, now: int) -> int: ...
    @property
    def weight(self) -> float: ...

class HedgePolicy:
    def __init__(
        self,
        *,
        quantile: float = 95,
        min_delay_ns: int = 10_000_000,
        max_percent: float = 10,
        latency: LatencyWindow | None = None,
    ) -> None: ...
    @property
    def min_delay_ns(self) -> int: ...
    @property
    def latency(self) -> LatencyWindow: ...
    def delay(self, now: int) -> int: ...
    def take(self) -> bool: ...
    def give(self) -> None: ...

# -- core/gradient.pyx, core/admission.pyx: concurrency limits and the queue before them

class GradientLimit:
    def __init__(self, *, min_limit: int = 4, max_limit: int = 1000, begin: int = 0) -> None: ...
    @property
    def min_limit(self) -> int: ...
    @property
    def max_limit(self) -> int: ...
    @property
    def estimate(self) -> float: ...
    @property
    def probing(self) -> bool: ...
    @property
    def baseline_ns(self) -> int: ...
    def observe(self, latency_ns: int, active: int, now: int) -> int: ...
    def limit(self) -> int: ...
    @property
    def samples(self) -> int: ...

PRIORITY_NAMES: tuple[str, ...]

class Admission:
    def __init__(
        self,
        *,
        limit: int = 0,
        adaptive: bool = False,
        min_limit: int = 4,
        max_limit: int = 1000,
        queue: int = 128,
        queue_timeout_ns: int = 500_000_000,
        order: str = "adaptive",
    ) -> None: ...
    @property
    def queue(self) -> int: ...
    @property
    def queue_timeout_ns(self) -> int: ...
    @property
    def active(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def gradient(self) -> GradientLimit | None: ...
    @property
    def waiting(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def evicted(self) -> int: ...
    def enter(self, priority: int, now: int) -> bool: ...
    def offer(self, who: object, priority: int, now: int) -> Any: ...
    def wait_ns(self, priority: int, now: int) -> int: ...
    def withdraw(self, who: object) -> int: ...
    def leave(self, latency_ns: int, ok: bool, now: int) -> Any: ...
    def next(self, now: int) -> Any: ...

# -- core/fault.pyx

class FaultRule:
    def __init__(
        self,
        *,
        delay_ns: int = 0,
        delay_percent: float = 100,
        abort_status: int = 0,
        abort_percent: float = 100,
        header: str = "",
    ) -> None: ...
    @property
    def delay_ns(self) -> int: ...
    @property
    def abort_status(self) -> int: ...
    def decide(self, request: SampleRequest, random: int) -> tuple[int, int]: ...

# -- core/split_state.pyx, core/rollback.pyx, core/split.pyx

ROLLBACK_RULES: tuple[str, ...]

class RollbackVerdict(NamedTuple):
    route: str
    arm: str
    baseline: str
    rule: str
    margin: float
    chance: float
    window_s: float
    samples: int
    error_percent: float
    p99_ms: float
    baseline_samples: int
    baseline_error_percent: float
    baseline_p99_ms: float

def split_states(capacity: int = 1024) -> SharedTable: ...
def rollback_windows(capacity: int = 256) -> SharedTable: ...
def chance_of(hits: int, samples: int, other_hits: int, other_samples: int) -> float: ...

class RollbackWatch:
    # Made by a Splitter alone.
    def evaluate(self, now: int) -> list[RollbackVerdict]: ...
    def observe_request(
        self, arm: str, *, failed: bool = False, latency_ns: int = 0, now: int = 0, times: int = 1
    ) -> None: ...
    def status(self, arm: str, now: int) -> dict[str, Any] | None: ...

class Splitter:
    def __init__(self, route: str, config: Any, *, states: SharedTable, windows: SharedTable) -> None: ...
    @property
    def route(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def upstreams(self) -> tuple[str, ...]: ...
    @property
    def rollback(self) -> RollbackWatch | None: ...
    def choose_for(self, request: SampleRequest, key: int | None = None, random: int = 0) -> str: ...
    def weights(self) -> dict[str, int]: ...
    def set_weights(self, weights: Mapping[str, int | None]) -> None: ...
    def clear(self, arm: str) -> bool: ...
    def status(self, now: int) -> dict[str, Any]: ...

# -- loops for the micro-benchmarks

def loop_check(limiter: RateLimiter, requests: list[SampleRequest], now_ns: int, step_ns: int) -> int: ...
def loop_count(counters: Counters, exchange: SampleExchange, count: int) -> None: ...
def loop_check_clients(limiter: RateLimiter, first: int, count: int, now_ns: int) -> int: ...
def loop_longest(networks: IpSet, requests: list[SampleRequest]) -> int: ...
def loop_line(log: AccessLog, exchange: SampleExchange, times: int) -> int: ...
def loop_log(log: AccessLog, exchange: SampleExchange, times: int) -> None: ...
def loop_record(counters: Counters, exchange: SampleExchange, times: int) -> None: ...
def loop_report(
    health: UpstreamHealth, seats: tuple[Seat, ...], outcome: int, now_ns: int, times: int
) -> None: ...
def loop_choose(
    splitter: Splitter, request: SampleRequest, first: int, times: int, keyed: bool = True
) -> int: ...
def loop_set_weights(splitter: Splitter, times: int) -> None: ...
def loop_observe(watch: RollbackWatch, arm: int, times: int, now_ns: int, step_ns: int) -> None: ...
def loop_random(source: RandomSource, times: int) -> int: ...
def loop_load(load: UpstreamLoad, times: int) -> int: ...
def loop_load_race(load: UpstreamLoad, witness: SharedTable, times: int) -> int: ...
def loop_retry(
    policy: RetryPolicy, load: UpstreamLoad, request: SampleRequest, status: int, times: int
) -> int: ...
def loop_hedge(policy: HedgePolicy, now: int, step_ns: int, times: int) -> int: ...
def loop_admission(admission: Admission, now: int, step_ns: int, times: int) -> int: ...
def loop_queue(admission: Admission, who: list[Any], now: int) -> int: ...
def loop_fault(rule: FaultRule, request: SampleRequest, source: RandomSource, times: int) -> int: ...
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
    @property
    def in_chain(self) -> bool: ...

class RateLimitFilter(NativeFilter):
    def __init__(self, name: str, limiter: RateLimiter) -> None: ...

class IpFilter(NativeFilter):
    def __init__(self, name: str, lists: IpFilterCore) -> None: ...
    def counts(self) -> dict[str, int]: ...

class Route:
    def __init__(
        self,
        *,
        slot: Slot | None,
        name: str,
        upstream: Upstream | None = None,
        split: Splitter | None = None,
        split_upstreams: tuple[Upstream, ...] = (),
        split_key: RequestKey | None = None,
        aggregate: Any = None,
        priority: int = 1,
        retry: RetryPolicy | None = None,
        fallback: Fallback | None = None,
        fault: FaultRule | None = None,
        mirror: Mirror | None = None,
        captures: tuple[str, ...] = (),
        redirect: Redirector | None = None,
        respond: tuple[int, bytes, bytes] | None = None,
        filters: tuple[NativeFilter, ...] = (),
        chain: PluginChain | None = None,
        rewrite: PathRewrite | None = None,
        rewrite_host: str | None = None,
        request_rules: HeaderRules | None = None,
        response_rules: HeaderRules | None = None,
        upgrades: Iterable[str] = (),
        trace_sample: float = -1,
        keep_encoded_slash: bool = False,
        body_limit: int = -2,
        total_ns: int = -1,
        tunnel_idle_ns: int,
        event_idle_ns: int,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def mirror(self) -> Mirror | None: ...

class Upstream:
    def __init__(
        self,
        *,
        slot: Slot,
        name: str,
        group: Group,
        health: UpstreamHealth,
        hash_key: RequestKey | None = None,
        sticky: Sticky | None = None,
        hedge: HedgePolicy | None = None,
        load: UpstreamLoad,
        admission: Admission | None = None,
        retry: RetryPolicy | None = None,
        connect_ns: int,
        head_ns: int,
        idle_ns: int,
        header_bytes: int,
        header_count: int,
        body_limit: int,
        host: str,
        tls: ssl.SSLContext | None = None,
        tls_name: str = "",
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def group(self) -> Group: ...
    @property
    def health(self) -> UpstreamHealth: ...
    @property
    def load(self) -> UpstreamLoad: ...
    @property
    def admission(self) -> Admission | None: ...
    @property
    def hedge(self) -> HedgePolicy | None: ...
    @property
    def known(self) -> bool: ...
    @property
    def problem(self) -> str | None: ...
    def endpoints_found(
        self, endpoints: tuple[Endpoint, ...], problem: str | None = None, unresolved: bool = False
    ) -> None: ...

class Fallback:
    def __init__(
        self,
        when: RetryPolicy,
        *,
        on_no_endpoint: bool,
        on_overload: bool,
        upstream: Upstream | None = None,
        respond: tuple[int, bytes, bytes] | None = None,
    ) -> None: ...

class Sticky:
    def __init__(
        self,
        upstream: str,
        *,
        cookie: str,
        secret: bytes,
        ttl_ns: int = 0,
        path: str = "/",
        domain: str = "",
        secure: bool = False,
        http_only: bool = True,
        same_site: str = "lax",
    ) -> None: ...

class _Certificates(Protocol):
    def begin(self, connection: Any, hello: bytes, name: str | None, /) -> ssl.SSLContext: ...

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
        tls: _Certificates | None = None,
        handshake_ns: int = 0,
        handshake_rate: float = 0,
        tracing: TracePolicy | None = None,
        strict_host: bool = False,
        hsts: str = "",
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def certificates(self) -> _Certificates | None: ...
    @property
    def routes(self) -> tuple[Route | None, ...]: ...

def accepted(worker: Worker, slot: ListenerSlot) -> asyncio.Protocol: ...

class ListenerSlot:
    def __init__(self, listener: Listener) -> None: ...
    def follow(self, listener: Listener) -> None: ...

# -- proxy/pool.pyx

class Endpoint(Seat):
    def __init__(
        self,
        worker: Worker,
        upstream: Upstream,
        *,
        address: str,
        hosts: tuple[str, ...],
        port: int,
        unix_path: str | None,
        tls_name: str = "",
        app: Any = None,
        table: SharedTable,
        weight: int = 1,
        max_requests: int = 0,
        region: str = "",
        zone: str = "",
        max_open: int,
        max_idle: int,
        max_waiting: int,
        idle_ns: int,
        queue_ns: int,
    ) -> None: ...
    @property
    def hosts(self) -> tuple[str, ...]: ...
    @property
    def port(self) -> int: ...
    @property
    def unix_path(self) -> str | None: ...
    def retire(self) -> None: ...
    def numbers(self) -> dict[str, int]: ...

# -- proxy/asgi.pyx

class AsgiSide:
    # Made by an Endpoint with an `app` alone.
    @property
    def gone(self) -> bool: ...
    @property
    def stopped(self) -> bool: ...
    def body_piece(self) -> tuple[bytes, bool] | None: ...
    def respond(self, status: int, lines: bytes, body: bytes, end: bool) -> str | None: ...
    def send(self, body: bytes, end: bool) -> str | None: ...
    def fail(self, detail: str) -> None: ...
    def refuse(self, detail: str) -> None: ...

# -- proxy/inner.pyx

class Mirror:
    def __init__(self, upstream: Upstream, *, percent: float, max_active: int, body_limit: int) -> None: ...
    @property
    def active(self) -> int: ...

class PartTally:
    def ok(self) -> None: ...
    def failed(self) -> None: ...
    def skipped(self) -> None: ...
    def cached(self) -> None: ...
    def coalesced(self) -> None: ...
    def took(self, ns: int) -> None: ...

# -- proxy/gather.pyx

class PartAnswer:
    @property
    def call(self) -> Any: ...
    @property
    def status(self) -> int: ...
    @property
    def fields(self) -> list[tuple[str, str]]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str | None: ...
    @property
    def upstream(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def began(self) -> int: ...
    @property
    def took(self) -> int: ...
    def forget(self) -> None: ...

class PartSide:
    @property
    def call(self) -> Any: ...

class Gathering:
    @property
    def gone(self) -> bool: ...
    @property
    def traced(self) -> bool: ...
    @property
    def age_ns(self) -> int: ...
    @property
    def told(self) -> bytes: ...
    def charge(self, size: int) -> bool: ...
    def ask(
        self,
        call: object,
        upstream: Upstream,
        method: str,
        target: bytes,
        lines: bytes,
        body: bytes,
        timeout_ns: int,
        limit: int,
        retry: RetryPolicy | None = None,
    ) -> PartSide: ...
    def deliver(self, answer: Any) -> None: ...
    def give_up(self, side: PartSide) -> None: ...
    def note(
        self,
        name: str,
        began: int,
        took: int,
        status: int,
        reason: str,
        upstream: str,
        endpoint: str,
        attempts: int,
    ) -> None: ...
    def respond(
        self, status: int, lines: bytes, body: bytes, reason: str, detail: str | None = None
    ) -> None: ...
    def begin_stream(self, status: int, lines: bytes, body: bytes) -> None: ...
    def write(self, piece: bytes) -> None: ...
    def end_stream(self, piece: bytes, reason: str, detail: str | None = None) -> None: ...
    def fail(self, reason: str, status: int, detail: str, members: dict[str, Any]) -> None: ...

class SubrequestError(Exception):
    def __init__(self, reason: str, detail: str | None = None) -> None: ...
    reason: str

def ask_endpoint(
    endpoint: Endpoint, head: bytes, timeout_ns: int, body_limit: int
) -> asyncio.Future[SubResponse]: ...

# -- proxy/downstream1.pyx: the protocol of a client's connection; the loop calls its methods

class Downstream1(asyncio.Protocol):
    def __init__(self, worker: Worker, slot: ListenerSlot) -> None: ...

# -- proxy/worker.pyx

def sample_time(worker: Worker, ahead_ns: int) -> None: ...
def skip_time(worker: Worker, ns: int) -> None: ...
def restore_time() -> None: ...
def monotonic_ns() -> int: ...
def time_ns() -> int: ...
def sample_chance(worker: Worker, seed: int) -> None: ...

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
    def counters(self) -> Counters: ...
    @property
    def exchanges(self) -> int: ...
    @property
    def connecting(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    def limit(self, max_connections: int, max_per_address: int) -> None: ...
    def log_to(self, log: AccessLog | None, flush_interval: int, dropped: int) -> None: ...
    def trail_to(self, trails: Trails | None) -> None: ...
    def watch(self, upstreams: tuple[Upstream, ...]) -> None: ...
    def serve_inner(self, listener: Listener, route: Route) -> None: ...
    def answer_challenges(self, challenges: dict[bytes, bytes] | None) -> None: ...
    def close_listener(self, slot: ListenerSlot) -> None: ...
    def connections(self, upstream: Upstream) -> list[tuple[str, int, int, int]]: ...
    def show_gauges(self) -> int: ...
    @property
    def cut(self) -> int: ...
    async def drain(self, timeout: float, grace: float = 0) -> None: ...  # noqa: ASYNC109
    def close(self) -> None: ...
    def census(self) -> dict[str, int]: ...

# -- plugins: the host (proxy/plugin_host.pyx)

def ask(
    worker: Worker,
    upstream: Upstream,
    method: str,
    path: str,
    headers: Mapping[str, str] | None,
    body: bytes,
    timeout: float,
    limit: int,
) -> asyncio.Future[SubResponse]: ...

class PluginSlot:
    def __init__(
        self,
        name: str,
        plugin: Any,
        phases: dict[str, Any],
        *,
        body_mode: str = "none",
        body_limit: int = 1048576,
        open: bool = False,
        report_only: bool = False,
        timeout_ns: int,
        shared: Any = None,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def plugin(self) -> Any: ...
    @property
    def counts(self) -> dict[str, int]: ...

class PluginSet:
    def __init__(self, upstreams: dict[str, Upstream]) -> None: ...
    @property
    def active(self) -> int: ...
    def find_upstream(self, name: str) -> Upstream: ...
    def retire(self, idle: Callable[[], None]) -> None: ...

class PluginChain:
    def __init__(
        self, plugins: PluginSet, steps: tuple[PluginSlot | NativeFilter, ...], identity: tuple[str, ...] = ()
    ) -> None: ...

class Ticket:
    @property
    def key(self) -> bytes: ...
    @property
    def cost(self) -> int: ...
    @property
    def cancelled(self) -> bool: ...
    def settle(self, refused: bool, code: str = "", lines: bytes = b"") -> None: ...

class PendingFilter(NativeFilter):
    def __init__(
        self,
        name: str,
        key: RequestKey,
        begin: Callable[[bytes, Ticket], None],
        *,
        cost: int = 1,
        per_route: bool = False,
        charge: Callable[[bytes, int], None] | None = None,
        cost_header: str = "",
        timeout_ns: int = 1_000_000_000,
    ) -> None: ...

class OnlyFor(NativeFilter):
    def __init__(self, inner: NativeFilter, consumers: Iterable[str] = (), plan: str = "") -> None: ...

# -- plugins: the objects that plugins in Python work with. After the end of an exchange all but what
# `on_log` may
# -- read raises RuntimeError.

class Headers:
    """Fields of one head, in their order, names in any case. Immutable until something is changed; then
    they are copied once. Values are str (latin-1). A name or value that is none (RFC 9110 5.1, 5.5), and
    fields by which the gateway itself speaks to the next hop (Host, Content-Length, Transfer-Encoding,
    Connection, ...) raise ValueError when they are set."""

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None: ...
    def __getitem__(self, name: str) -> str:
        """The first of that name. KeyError."""
    def __setitem__(self, name: str, value: str) -> None:
        """Replaces all of that name by one."""
    def __delitem__(self, name: str) -> None:
        """Removes all of that name; no error where there is none."""
    def __contains__(self, name: object) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]:
        """Names, lower case, each once."""
    def get(self, name: str, default: str | None = None) -> str | None: ...
    def get_all(self, name: str) -> list[str]: ...
    def add(self, name: str, value: str) -> None:
        """One more field beside those of that name."""
    def items(self) -> list[tuple[str, str]]:
        """Every field, names lower case."""

class Request:
    @property
    def method(self) -> str: ...
    @method.setter
    def method(self, method: str) -> None: ...
    @property
    def path(self) -> str:
        """In normal form, percent-encoded, without the query. Setting it takes the place of the route's
        rewrite; the route is not matched again."""
    @path.setter
    def path(self, path: str) -> None: ...
    @property
    def raw_query(self) -> str:
        """Without "?"; "" where there is none."""
    @raw_query.setter
    def raw_query(self, query: str) -> None: ...
    @property
    def query(self) -> list[tuple[str, str]]:
        """Decoded parameters, in their order."""
    @property
    def target(self) -> str:
        """The request target as received."""
    @property
    def host(self) -> str:
        """Lower case, without port."""
    @property
    def authority(self) -> str:
        """Host as received, with its port."""
    @property
    def scheme(self) -> str: ...
    @property
    def http_version(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def cookies(self) -> dict[str, str]:
        """By name; of several with one name the first."""
    @property
    def content_type(self) -> str:
        """Media type in lower case without parameters; "" where there is none."""
    @property
    def has_body(self) -> bool: ...
    @property
    def content_length(self) -> int | None: ...
    async def read(self, limit: int = -1) -> bytes:
        """The whole body, which is held from then on. limit: bytes, by default the plugin's ``body_limit``;
        beyond it the client gets 413 ``body-too-large`` (the coroutine is cancelled)."""
    async def json(self) -> Any:
        """The body, by orjson. ValueError where it is no JSON."""
    @property
    def body(self) -> bytes:
        """The body once it was read or set; RuntimeError before."""
    @body.setter
    def body(self, body: bytes) -> None:
        """Another body. Of a request that has one, only after ``read``."""

class Response:
    def __init__(
        self,
        status: int = 200,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes | str = b"",
        json: Any = ...,
        content_type: str = "",
    ) -> None:
        """A plugin's own answer. json: the body, by orjson. str bodies are UTF-8 (text/plain unless said
        otherwise)."""
    @property
    def status(self) -> int: ...
    @status.setter
    def status(self, status: int) -> None: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def source(self) -> str:
        """ "upstream", "plugin" or "gateway"."""
    @property
    def code(self) -> str:
        """The reason code of an answer that the gateway or a plugin made; "" of others."""
    @property
    def body(self) -> bytes:
        """Of an answer that a plugin or the gateway made; RuntimeError for one that streams from an
        upstream."""
    @body.setter
    def body(self, body: bytes) -> None:
        """Another body; what an upstream may still send is dropped."""

class SubResponse:
    """What an upstream answered to a request of the gateway's own."""

    def __init__(
        self, status: int, headers: Iterable[tuple[str, str]], body: bytes, truncated: bool = False
    ) -> None: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def body(self) -> bytes: ...
    @property
    def truncated(self) -> bool:
        """The body was longer than ``limit``."""
    def json(self) -> Any: ...

class Refusal(Exception):
    """Raised by a hook (not by ``on_response_body``) in place of the answer that it would return."""

    def answer(self, exchange: ExchangeView) -> Response: ...

def gather_with(make: Callable[..., Gather]) -> None:
    """``make(exchange, **options)`` is what ``ExchangeView.gather`` gives."""

class GatewayError:
    code: str
    status: int
    source: str  # "downstream", "upstream" or "gateway"
    retryable: bool
    detail: str

class TlsInfo:
    """What a client's handshake has agreed on."""

    @property
    def version(self) -> str:
        """ "TLSv1.2" or "TLSv1.3"."""
    @property
    def cipher(self) -> str:
        """OpenSSL's name of the cipher suite."""
    @property
    def server_name(self) -> str:
        """Whom the client has asked for (SNI), in lower case; "" for nobody."""
    @property
    def certificate(self) -> bytes:
        """The client's certificate in DER, verified as the listener's `client_auth` says; empty without
        one."""

class ExchangeView:
    @property
    def request(self) -> Request: ...
    @property
    def response(self) -> Response | None:
        """The answer, from ``on_response`` on."""
    @property
    def context(self) -> dict[str, Any]:
        """What plugins leave for one another during this exchange."""
    @property
    def consumer(self) -> Any:
        """A Consumer, or None while nobody vouched for the caller."""
    @consumer.setter
    def consumer(self, consumer: Any) -> None: ...
    @property
    def id(self) -> str:
        """The request's id, as in the log and X-Request-ID."""
    @property
    def listener(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def captures(self) -> dict[str, str]:
        """Values of the {name} segments, percent-encoded as they came."""
    @property
    def upstream(self) -> str:
        """Name of the upstream that will be asked; "" where none is chosen yet."""
    @upstream.setter
    def upstream(self, name: str) -> None:
        """Another one. LookupError where the configuration has none of that name; RuntimeError on a route
        whose action asks no upstream."""
    @property
    def client_ip(self) -> str:
        """After trusted proxies; "" for the peer of a Unix socket."""
    @property
    def client_port(self) -> int: ...
    @property
    def peer_trusted(self) -> bool:
        """The peer is one of the listener's trusted_proxies."""
    @property
    def tls(self) -> TlsInfo | None:
        """Of the client's connection; None without TLS."""
    @property
    def shared(self) -> Any:
        """``Host.shared`` of the plugin that runs."""
    def refuse(
        self,
        status: int,
        code: str,
        detail: str = "",
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> Response:
        """An error answer as the gateway's own: problem+json with ``code``, which also stands in log,
        metric and Proxy-Status. code: one of docs/reasons.md, or the plugin's own (then it is counted as
        ``plugin-refused``). ``detail`` goes into the log alone."""
    async def subrequest(
        self,
        upstream: str,
        *,
        method: str = "GET",
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 5.0,  # noqa: ASYNC109 - enforced by the core's timer wheel
        limit: int = 1048576,
    ) -> SubResponse:
        """Asks an upstream of the configuration on the gateway's own pools, with its balancing, breakers and
        limits. It carries this exchange's X-Request-ID and trace context; X-Forwarded-* and Forwarded
        only where ``headers`` has them. Raises SubrequestError."""
    def _ask(
        self,
        upstream: str,
        method: str,
        path: str,
        headers: Mapping[str, str] | None,
        body: bytes,
        timeout: float,
        limit: int,
        retry: RetryPolicy | None,
    ) -> asyncio.Future[SubResponse]: ...
    def _part_cache(self, make: Callable[[], PartCache]) -> PartCache: ...
    def gather(
        self,
        *,
        timeout: float = 10.0,
        policy: Policy = "required",
        quorum: int = 1,
        max_parts: int = 64,
        max_memory: int = 16777216,
    ) -> Gather:
        """Asks for several parts together, in a block: ``async with exchange.gather() as g``. timeout:
        seconds, never more than what is left of the hook's and the exchange's. See
        docs/aggregation-python.md."""
    @property
    def time_left(self) -> float:
        """Seconds until the gateway ends the hook that runs, or the exchange."""
    # -- at the end: for on_log
    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def duration(self) -> float:
        """Seconds since the head came, until now or until the end."""

# -- traces: core/trace_context.pyx, proxy/trails.pyx

def parse_traceparent(value: bytes) -> tuple[str, str, int] | None:
    """trace-id, parent-id and flags of a traceparent field; None: it is malformed."""

def format_traceparent(value: bytes) -> bytes:
    """What is sent on in place of a sound traceparent, by somebody who records nothing. ValueError for a
    malformed one."""

def sound_tracestate(values: list[bytes]) -> bool:
    """Whether these tracestate lines are well-formed, together. At most 16 of them (ValueError)."""

def samples_trace(trace_id: str, share: float) -> bool:
    """Whether a trace that begins here with this id is sampled, of a share of 0 to 1 (ValueError)."""

HOOK_VERDICTS: tuple[str, ...]

def measure_trace(worker: Worker, listener: Listener, head: bytes, rounds: int) -> int:
    """For the micro-benchmarks: begins a trace and writes its traceparent, `rounds` times."""

class TracePolicy:
    """Which requests of a listener are traced."""

    def __init__(
        self,
        *,
        propagate: bool,
        trust: str,
        sample: float,
        keep: float,
        asked: Callable[[bytes, bytes, bytes, bytes], bool] | None = None,
    ) -> None: ...

class Trails:
    """What is kept of exchanges that have ended, in this worker."""

    spans_exported: int
    spans_lost: int
    def __init__(self, lines: AccessLog, room: int, span_room: int) -> None: ...
    def follow(self, lines: AccessLog, room: int, span_room: int) -> None: ...
    def take_spans(self) -> list[bytes]: ...
    def find(self, request_id: str) -> bytes | None: ...
    def failures(self, limit: int) -> list[bytes]: ...
    @property
    def spans_sampled(self) -> int: ...
    @property
    def spans_dropped(self) -> int: ...
    @property
    def bytes_held(self) -> int: ...
