"""Types of the compiled module."""

from collections.abc import Iterable, Sequence
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
