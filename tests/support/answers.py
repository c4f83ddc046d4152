"""What an answer of the gateway itself has to look like: the reason code in the body, in Proxy-Status and in
the log."""

from __future__ import annotations

import re
from typing import Any

from fastgate import _core
from support.gateway import Gateway
from support.upstream import Mark, Upstream
from support.wire import Response

REASONS = {reason.code: reason for reason in _core.REASONS}


def refused(response: Response, *reasons: str, method: str = "GET") -> str:
    """Checks a whole error answer and returns its reason code, which must be one of `reasons`."""
    code = reason_of(response)
    assert code in reasons, f"reason {code}, not {' or '.join(reasons)}: {response.status} {response.body!r}"
    info = REASONS[code]
    assert response.status == info.status, f"{code} came with {response.status}, not {info.status}"
    errors = proxy_errors(response)
    assert errors == [info.proxy_error], f"Proxy-Status of {code}: {response.all('proxy-status')}"
    if method != "HEAD":
        problem = response.json()
        assert response.get("content-type") == "application/problem+json", response.fields
        assert problem["status"] == response.status
        assert isinstance(problem["title"], str)
        assert problem["title"]
    return code


def reason_of(response: Response) -> str:
    """The reason code of an answer of the gateway: from its body, and the same from Proxy-Status."""
    stated = proxy_details(response)
    assert len(stated) == 1, (
        f"no reason in Proxy-Status: {response.status} {response.fields} {response.body[:300]!r}"
    )
    if response.get("content-type") == "application/problem+json" and response.body:
        body = response.json()["code"]
        assert body == stated[0], f"the body says {body}, Proxy-Status {stated[0]}"
    return stated[0]


_PARAMETER = re.compile(r';\s*([a-z_-]+)=(?:"([^"]*)"|([A-Za-z0-9_*/.:-]+))')  # RFC 8941 3.1.2


def _parameters(response: Response) -> list[dict[str, str]]:
    return [
        {name: quoted or token for name, quoted, token in _PARAMETER.findall(value)}
        for value in response.all("proxy-status")
        if value.startswith("fastgate")
    ]


def proxy_errors(response: Response) -> list[str]:
    """The `error` parameters of fastgate's Proxy-Status members (RFC 9209 2.1.1)."""
    return [parameters["error"] for parameters in _parameters(response) if "error" in parameters]


def proxy_details(response: Response) -> list[str]:
    """The `details` parameters: fastgate puts its reason code there (RFC 9209 2.1.5)."""
    return [parameters["details"] for parameters in _parameters(response) if "details" in parameters]


def logged(record: dict[str, Any], *, status: int | None = None, reason: str | None = None) -> dict[str, Any]:
    """Checks fields of an access log record."""
    if status is not None:
        assert record["status"] == status, record
    if reason is not None:
        assert record["reason"] == reason, record
    return record


# Refusals that leave no doubt about where the request ends: its connection may stay.
FRAMED = {
    "target-syntax",
    "encoded-slash",
    "host-syntax",
    "method-not-implemented",
    "expect-unknown",
    "body-too-large",
}


def check_refused(
    gateway: Gateway,
    upstream: Upstream,
    data: bytes,
    *reasons: str,
    method: str = "GET",
    may_stay: bool = False,
) -> str:
    """Sends `data` on a new connection: it must be answered by one of the reasons and the connection closed;
    the
    upstream must not have seen a whole request of it; and the log must name the reason. Returns the reason.

    `reasons`: the one to expect first; more where the RFC leaves open which rule is met first. `may_stay`:
    with a
    reason of `FRAMED` the connection may stay, and must then be in order.
    """
    mark, since = upstream.mark(), gateway.mark()
    with gateway.client() as client:
        client.try_send(data)
        response = client.response(method)
        code = refused(response, *reasons, method=method)
        if may_stay and code in FRAMED and not response.closes:
            assert client.request(b"GET /no-host HTTP/1.1\r\n\r\n").status == 400
        else:
            assert response.closes, response.fields
        client.ended()
    assert_only_barrier(gateway, mark)
    logged(gateway.wait_log(since)[0], status=response.status, reason=code)
    return code


def assert_only_barrier(gateway: Gateway, mark: Mark) -> None:
    """Sends a request of its own, and that must be the only whole one that the upstream has got since the
    mark."""
    with gateway.client() as client:
        assert client.get("/barrier").status == 200
    whole = [request.target for request in mark.requests if request.complete]
    assert whole == ["/barrier"], f"the upstream got {whole}"
