"""Cross-site request forgery: what browsers tell of a request's page, and tokens of a session."""

from __future__ import annotations

from typing import Any

import pytest
from support.answers import refused
from support.gateway import Gateway
from support.upstream import Upstream
from support.web import ask, one_route_each, problems

SECRET = "0123456789abcdef0123456789abcdef"
HOST = "shop.example"


def gateway_config(address: str) -> dict[str, Any]:
    token = {"secret": {"env": "CSRF_TEST_SECRET"}, "session_cookie": "sid"}
    return one_route_each(
        address,
        "csrf",
        {
            "plain": {"origins": ["https://app.example.com"], "exempt": "/plain/hooks"},
            "strict": {"unknown": "refuse"},
            "token": {"token": token},
            "bare": {"token": {**token, "insecure": True, "cookie": "t", "header": "x-t"}},
        },
    )


@pytest.fixture(scope="module", autouse=True)
def secret() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSRF_TEST_SECRET", SECRET)
        yield


def post(gateway: Gateway, target: str, *lines: str, method: str = "POST") -> Any:
    return ask(gateway, target, *lines, method=method, body=b"x", host=HOST)


OURS = [
    ("Sec-Fetch-Site: same-origin",),
    ("Sec-Fetch-Site: none",),
    ("Sec-Fetch-Site: same-origin", "Origin: https://shop.example"),
    ("Origin: https://shop.example",),
    ("Origin: http://shop.example:80",),
    ("Origin: https://app.example.com", "Sec-Fetch-Site: cross-site"),
    ("Referer: https://shop.example/cart?x=1",),
    ("Referer: https://app.example.com/",),
    (),
]
FOREIGN = [
    ("Sec-Fetch-Site: cross-site",),
    ("Sec-Fetch-Site: same-site",),
    ("Sec-Fetch-Site: SAME-ORIGIN",),
    ("Sec-Fetch-Site: same-origin, none",),
    ("Sec-Fetch-Site:",),
    ("Sec-Fetch-Site: cross-site", "Origin: https://shop.example"),
    ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"),
    ("Origin: null",),
    ("Origin:",),
    ("Origin: https://evil.example",),
    ("Origin: https://shop.example.evil.example",),
    ("Origin: https://evil-shop.example",),
    ("Origin: https://shop.example:8443",),
    ("Origin: https://shop.example@evil.example",),
    ("Origin: https://evil.example@shop.example",),
    ("Origin: https://evil.example/https://shop.example",),
    ("Origin: https://evil.example#shop.example",),
    ("Origin: https://evil.example?shop.example",),
    ("Origin: http://app.example.com", "Sec-Fetch-Site: cross-site"),
    ("Origin: https://app.example.com.evil.example",),
    ("Origin: https://shop.example", "Origin: https://evil.example"),
    ("Origin: shop.example",),
    ("Origin: ftp://shop.example",),
    ("Origin: https://[shop.example",),
    ("Origin: https://shop.example:99999",),
    ("Referer: https://evil.example/shop.example",),
    ("Referer: about:blank",),
    ("Referer: https://evil.example", "X-Forwarded-Host: evil.example"),
]


@pytest.mark.parametrize("lines", OURS)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_our_own_pages_may(gateway: Gateway, lines: tuple[str, ...], method: str) -> None:
    assert post(gateway, "/plain/x", *lines, method=method).status == 200


@pytest.mark.parametrize("lines", FOREIGN)
def test_other_sites_pages_may_not(gateway: Gateway, upstream: Upstream, lines: tuple[str, ...]) -> None:
    mark = upstream.mark()
    refused(post(gateway, "/plain/x", *lines), "csrf-refused")
    assert not mark.requests
    for method in ("GET", "HEAD", "OPTIONS"):
        assert ask(gateway, "/plain/x", *lines, method=method, host=HOST).status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "PROPFIND"])
def test_every_method_that_is_not_safe_is_checked(gateway: Gateway, method: str) -> None:
    refused(post(gateway, "/plain/x", "Sec-Fetch-Site: cross-site", method=method), "csrf-refused")


def test_a_web_socket_is_no_safe_request(gateway: Gateway) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    refused(ask(gateway, "/plain/x", *upgrade, "Origin: https://evil.example", host=HOST), "csrf-refused")
    assert ask(gateway, "/plain/x", *upgrade, "Origin: https://shop.example", host=HOST).status == 200


@pytest.mark.parametrize(
    ("target", "exempt"),
    [("/plain/hooks", True), ("/plain/hooks/x", True), ("/plain/%68ooks/x", True), ("/plain/hooksx", False),
     ("/plain/hooks/../x", False), ("/plain/x?/plain/hooks", False)],
)  # fmt: skip
def test_paths_that_are_not_checked(gateway: Gateway, target: str, exempt: bool) -> None:
    response = post(gateway, target, "Origin: https://evil.example")
    assert (response.status == 200) == exempt


def test_who_does_not_say_where_it_comes_from(gateway: Gateway) -> None:
    refused(post(gateway, "/strict/x"), "csrf-refused")
    assert post(gateway, "/strict/x", "Sec-Fetch-Site: same-origin").status == 200


# -- tokens


def token_of(gateway: Gateway, session: str, route: str = "token") -> str:
    response = ask(gateway, f"/{route}/page", f"Cookie: sid={session}", host=HOST)
    found = response.get("set-cookie")
    assert found is not None
    return found.partition("=")[2].partition(";")[0]


def test_a_session_gets_a_token_and_sends_it_back(gateway: Gateway) -> None:
    response = ask(gateway, "/token/page", "Cookie: sid=alice", host=HOST)
    cookie = response.get("set-cookie")
    assert cookie is not None
    assert cookie.endswith("; Path=/; SameSite=Lax; Secure")
    token = token_of(gateway, "alice")
    sent = post(gateway, "/token/x", f"Cookie: sid=alice; csrf-token={token}", f"X-CSRF-Token: {token}")
    assert sent.status == 200
    assert "set-cookie" not in sent  # it has one
    bare = token_of(gateway, "bob", "bare")
    assert post(gateway, "/bare/x", f"Cookie: sid=bob; t={bare}", f"X-T: {bare}").status == 200
    assert "Secure" not in (ask(gateway, "/bare/x", "Cookie: sid=b").get("set-cookie") or "")


def test_without_a_session_there_is_nothing_to_protect(gateway: Gateway) -> None:
    response = post(gateway, "/token/x")
    assert response.status == 200
    assert "set-cookie" not in response


def test_forged_stolen_and_doubled_tokens(gateway: Gateway) -> None:
    mine, theirs = token_of(gateway, "alice"), token_of(gateway, "mallory")
    nonce, _, signature = mine.partition(".")
    attacks = [
        ("Cookie: sid=alice",),
        (f"Cookie: sid=alice; csrf-token={mine}",),
        ("Cookie: sid=alice", f"X-CSRF-Token: {mine}"),
        (f"Cookie: sid=alice; csrf-token={mine}", "X-CSRF-Token: x"),
        (f"Cookie: sid=alice; csrf-token={mine}", f"X-CSRF-Token: {theirs}"),
        ("Cookie: sid=alice; csrf-token=x", "X-CSRF-Token: x"),
        ("Cookie: sid=alice; csrf-token=", "X-CSRF-Token:"),
        # the attacker's own token, planted by a sibling domain
        (f"Cookie: sid=alice; csrf-token={theirs}", f"X-CSRF-Token: {theirs}"),
        (f"Cookie: sid=alice; csrf-token={theirs}; csrf-token={mine}", f"X-CSRF-Token: {theirs}"),
        (f"Cookie: sid=mallory; sid=alice; csrf-token={theirs}", f"X-CSRF-Token: {theirs}"),
        (f"Cookie: sid=alice; csrf-token={mine}", f"X-CSRF-Token: {mine}", f"X-CSRF-Token: {mine}"),
        (f"Cookie: sid=alice; csrf-token={nonce}.", f"X-CSRF-Token: {nonce}."),
        (f"Cookie: sid=alice; csrf-token=0{nonce}.{signature}", f"X-CSRF-Token: 0{nonce}.{signature}"),
        (f"Cookie: sid=alice; csrf-token={mine.upper()}", f"X-CSRF-Token: {mine.upper()}"),
        (f"Cookie: sid=alice; csrf-token={mine}", f"X-CSRF-Token: {mine}", "Sec-Fetch-Site: cross-site"),
        ("Cookie: sid=alice; csrf-token=" + "a." * 200, "X-CSRF-Token: " + "a." * 200),
        ("Cookie: sid=alice; csrf-token=\xff.\xff", "X-CSRF-Token: \xff.\xff"),
    ]
    for lines in attacks:
        refused(post(gateway, "/token/x", *lines), "csrf-refused")


@pytest.mark.parametrize(
    ("table", "told"),
    [({"origins": ["https://a.example/"]}, "expected an origin"), ({"origins": ["*"]}, "expected an origin"),
     ({"origins": ["null"]}, "expected an origin"), ({"origins": ["https://a@b"]}, "expected an origin"),
     ({"token": {"secret": "plain", "session_cookie": "s"}}, "secret"),
     ({"token": {"secret": {"env": "CSRF_SHORT"}, "session_cookie": "s"}}, "at least 16 bytes")],
)  # fmt: skip
def test_configurations(table: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSRF_SHORT", "short")
    assert told in problems("csrf", table)
