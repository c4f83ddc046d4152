"""A client's request as the aggregation sees it, without a gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from msgspec import Raw

from fastgate._core import Headers
from fastgate.aggregation.documents import MISSING, Missing, Value
from fastgate.aggregation.values import ClientValues, PartValue, Values


def values(
    *,
    captures: Mapping[str, str] | None = None,
    query: str = "",
    headers: Iterable[tuple[str, str]] = (),
    cookies: Mapping[str, str] | None = None,
    body: bytes | None = None,
    consumer: Any = None,
    parts: Mapping[str, PartValue] | None = None,
    item: Value | Missing = MISSING,
    index: int = -1,
    method: str = "GET",
    host: str = "shop.example",
    client_ip: str = "192.0.2.1",
) -> Values:
    """With the attributes of an ``ExchangeView``."""
    request = SimpleNamespace(
        method=method,
        path="/",
        raw_query=query,
        headers=Headers(headers),
        cookies=dict(cookies or {}),
        host=host,
    )
    exchange = SimpleNamespace(
        request=request, captures=dict(captures or {}), consumer=consumer, client_ip=client_ip, id="req-1"
    )
    return Values(ClientValues(exchange, body), dict(parts or {}), item, index)


def part(json: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> PartValue:
    return PartValue(Raw(json), status, dict(headers or {}))
