"""Limits of a route's requests."""

from __future__ import annotations

from typing import Any

import pytest
from support.answers import reason_of, refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems


def gateway_config(address: str) -> dict[str, Any]:
    return one_route_each(
        address,
        "size",
        {
            "url": {"url": "40B", "query_parameters": 3},
            "head": {"headers": 6, "header_bytes": "300B", "field_bytes": "100B", "cookies": 2},
            "body": {"body": "10B"},
            "known": {"body": "10B", "unknown_length": "refuse"},
            "streamed": {"body": "10B", "unknown_length": "pass"},
            "media": {"content_types": ["application/json", "image/*", "application/*+xml"]},
        },
    )


@pytest.mark.parametrize(
    ("target", "passes"),
    [("/url/" + "x" * 35, True), ("/url/" + "x" * 36, False), ("/url/?a&b&c", True), ("/url/?a&b&c&d", False),
     ("/url/?&&&", False), ("/url/?a=b;c;d;e", True), ("/url/" + "%41" * 12, False)],
)  # fmt: skip
def test_urls(gateway: Gateway, target: str, passes: bool) -> None:
    response = ask(gateway, target)
    if passes:
        assert response.status == 200
    else:
        refused(response, "request-line-too-long")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((), ""),
        (("A: 1", "B: 2", "C: 3", "D: 4", "E: 5"), ""),
        (("A: 1", "A: 2", "a: 3", "D: 4", "E: 5", "F: 6"), "header-too-many"),
        (("A: " + "x" * 98,), ""),
        (("A: " + "x" * 100,), "header-too-large"),
        (("A: " + "x" * 97, "B: " + "x" * 97, "C: " + "x" * 97), "header-too-large"),
        (("Cookie: a=1; b=2",), ""),
        (("Cookie: a=1; b=2; c=3",), "header-too-large"),
        (("Cookie: a=1; b", "Cookie: c=3"), "header-too-large"),
        (("Cookie: a=1;;;  ; b",), ""),
    ],
)
def test_headers(gateway: Gateway, lines: tuple[str, ...], code: str) -> None:
    response = ask(gateway, "/head", *lines)
    if code:
        refused(response, code)
    else:
        assert response.status == 200


@pytest.mark.parametrize("route", ["body", "known", "streamed"])
def test_bodies_of_known_length(gateway: Gateway, upstream: Upstream, route: str) -> None:
    assert ask(gateway, f"/{route}", method="POST", body=b"x" * 10).json()["body"] == "x" * 10
    mark = upstream.mark()
    refused(ask(gateway, f"/{route}", method="POST", body=b"x" * 11), "body-too-large")
    assert not mark.requests


def test_bodies_of_unknown_length(gateway: Gateway, upstream: Upstream) -> None:
    small, large = [b"x" * 5, b"y" * 5], [b"x" * 5, b"y" * 6]
    assert ask(gateway, "/body", method="POST", chunks=small).json()["body"] == "xxxxxyyyyy"
    mark = upstream.mark()
    refused(ask(gateway, "/body", method="POST", chunks=large), "body-too-large")
    response = ask(gateway, "/known", method="POST", chunks=small)
    assert (response.status, reason_of(response)) == (411, "request-invalid")
    assert not mark.requests
    assert ask(gateway, "/streamed", method="POST", chunks=large).status == 200


@pytest.mark.parametrize(
    ("lines", "passes"),
    [
        (("Content-Type: application/json",), True),
        (("Content-Type: APPLICATION/json ; charset=utf-8",), True),
        (("Content-Type: image/png",), True),
        (("Content-Type: application/atom+xml",), True),
        (("Content-Type: application/jsonx",), False),
        (("Content-Type: text/html; application/json",), False),
        (("Content-Type: text/json",), False),
        (("Content-Type: json",), False),
        (("Content-Type: image",), False),
        (("Content-Type: /json",), False),
        (("Content-Type:",), False),
        (("Content-Type: application/json", "Content-Type: text/html"), False),
        (("Content-Type: application/json, text/html",), False),
        ((), False),
    ],
)
def test_media_types(gateway: Gateway, lines: tuple[str, ...], passes: bool) -> None:
    response = ask(gateway, "/media", *lines, method="POST", body=b"x")
    if passes:
        assert response.status == 200
    else:
        assert (response.status, reason_of(response)) == (415, "request-invalid")
        assert response.get("accept") == "application/json, image/*, application/*+xml"
    assert ask(gateway, "/media", *lines).status == 200  # there is no body


def test_a_media_type_has_no_parameters() -> None:
    assert "expected a media type" in problems("size", {"content_types": ["text/html; charset=utf-8"]})
    assert problems("size", {"content_types": "text/*"}) == ""
