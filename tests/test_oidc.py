"""Logins at an OpenID provider: a real one, a real gateway, and a browser that follows what it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from msgspec.structs import replace
from support.browser import COOKIE, LOGIN, LOGOUT, Browser, browser, oidc, parameters, vault
from support.gateway import Gateway, config, to_toml
from support.oidc_provider import SECRET, OidcProvider
from support.upstream import Upstream, free_port

from fastgate.config import ConfigError, loads
from fastgate.plugins.oidc.session import Session

OLD, NEW = "an old secret of the gateway, 36 bytes", "another secret of the gateway, 38 bytes"
ENV = {"OIDC_CLIENT_SECRET": SECRET, "OIDC_SESSION_SECRET": OLD, "NEW_SECRET": NEW}
HEADERS = {"email": "X-Email", "groups": "X-Groups", "department": "X-Department"}


@pytest.fixture(scope="module")
def running() -> Iterator[OidcProvider]:
    with OidcProvider() as provider:
        yield provider


@pytest.fixture
def provider(running: OidcProvider) -> OidcProvider:
    running.reset()
    return running


def tables(upstream: Upstream, provider: OidcProvider, **keys: Any) -> dict[str, Any]:
    site = oidc(provider.issuer, **{"claims_to_headers": HEADERS, "forward_access_token": "X-Token", **keys})
    other = oidc(provider.issuer, callback_path="/other/callback", cookie="other", client_auth="post")
    del other["cookie_secure"]
    return config(
        upstream.address,
        routes=[
            {"name": "secure", "match": {"prefix": "/other"}, "upstream": "up", "plugins": ["secure"]},
            {"name": "all", "upstream": "up", "plugins": ["site"]},
        ],
        plugins={"site": site, "secure": {**other, "userinfo": True, "claims_to_headers": HEADERS}},
    )


@pytest.fixture(scope="module")
def running_gateway(
    module_upstream: Upstream, running: OidcProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with Gateway(tables(module_upstream, running), tmp_path_factory.mktemp("oidc"), env=ENV) as gateway:
        yield gateway


@pytest.fixture
def someone(running_gateway: Gateway, provider: OidcProvider, upstream: Upstream) -> Iterator[Browser]:
    with browser(running_gateway) as one:
        yield one


def fields(response: httpx.Response) -> dict[str, str]:
    """What the service got."""
    assert response.status_code == 200, response.text
    return {name.lower(): value for name, value in response.json()["fields"]}


def test_a_login(someone: Browser, provider: OidcProvider) -> None:
    someone.plant({"theme": "dark"})
    callback = someone.callback("/tea?kind=green")
    assert len(someone.logins) == 1
    back = someone.get(callback)
    assert (back.status_code, back.headers["location"]) == (302, "/tea?kind=green")
    assert back.headers["cache-control"] == "no-store"
    assert back.headers["referrer-policy"] == "no-referrer"
    assert not someone.logins
    assert list(someone.session) == [COOKIE]
    set_session = [one for one in back.headers.get_list("set-cookie") if one.startswith(f"{COOKIE}=")]
    assert [one.partition("; ")[2] for one in set_session] == ["Path=/; HttpOnly; SameSite=Lax"]

    page = someone.get(back.headers["location"])
    assert page.json()["target"] == "/tea?kind=green"
    seen = fields(page)
    assert (seen["x-email"], seen["x-groups"]) == ("alice@example.com", "staff,tea")
    assert seen["cookie"] == "theme=dark"
    assert len(seen["x-token"]) > 20
    assert "set-cookie" not in page.headers


def test_what_the_provider_is_asked(someone: Browser, provider: OidcProvider) -> None:
    asked = parameters(someone.to_provider())
    again = parameters(someone.to_provider())
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    for secret in ("state", "nonce", "code_challenge"):
        assert len(asked[secret]) >= 32
        assert asked[secret] != again[secret]
    someone.log_in()
    form = next(form for path, form in provider.seen if path == "/token")
    assert len(form["code_verifier"]) >= 43
    assert "client_secret" not in form  # in Authorization


def test_cookies_of_https_only(someone: Browser, provider: OidcProvider) -> None:
    """The browser of this test sends them back by hand: it has no https."""
    start = someone.get("/other/x")
    name, _, rest = start.headers["set-cookie"].partition("=")
    assert name.startswith("__Host-other.login.")
    assert rest.endswith("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure")
    callback = someone.http.get(start.headers["location"]).headers["location"]
    back = someone.get(callback, cookie=f"{name}={rest.partition(';')[0]}")
    line = next(one for one in back.headers.get_list("set-cookie") if one.startswith("__Host-other="))
    assert line.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    seen = fields(someone.get("/other/x", cookie=line.partition(";")[0]))
    assert "cookie" not in seen
    # This one asks userinfo, and authenticates in the form.
    assert seen["x-department"] == "tea"
    assert any(form.get("client_secret") == SECRET for path, form in provider.seen if path == "/token")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {}),
        ("DELETE", {}),
        ("GET", {"accept": "application/json"}),
        ("GET", {"accept": "*/*"}),
        ("GET", {"x_requested_with": "XMLHttpRequest"}),
        ("GET", {"sec_fetch_mode": "cors"}),
        ("HEAD", {"sec_fetch_mode": "no-cors"}),
    ],
)
def test_what_is_no_page_gets_401(someone: Browser, method: str, headers: dict[str, str]) -> None:
    response = someone.request(method, "/", **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Cookie realm="site"'
    assert "set-cookie" not in response.headers
    if method != "HEAD":
        assert response.json()["code"] == "authentication-required"


def test_a_script_sends_its_page_to_log_in(someone: Browser) -> None:
    assert someone.log_in(f"{LOGIN}?return_to=/tea%3Fkind=green").json()["target"] == "/tea?kind=green"


def test_tabs_side_by_side(someone: Browser) -> None:
    first, second = someone.callback("/1"), someone.callback("/2")
    assert someone.get(second).headers["location"] == "/2"
    assert someone.get(first).headers["location"] == "/1"
    assert someone.get("/3").status_code == 200


def test_logins_that_nobody_ends_do_not_pile_up(someone: Browser) -> None:
    first = someone.callback("/first")
    for _ in range(8):
        last = someone.callback("/last")
    assert len(someone.logins) == 5
    assert someone.get(last).headers["location"] == "/last"
    assert someone.get(first).status_code == 401


def test_a_new_login_gives_another_session(someone: Browser) -> None:
    someone.log_in()
    before = someone.session
    someone.log_in(LOGIN)
    assert someone.session != before


# -- refresh


def test_one_refresh_for_all_who_come(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.expires_in = 20  # within refresh_before: due at once
    someone.get(someone.callback())
    before = someone.session
    cookie = "; ".join(f"{name}={value}" for name, value in before.items())
    gate = threading.Barrier(8)

    def ask(_: int) -> httpx.Response:
        gate.wait(5)
        return httpx.get(someone.url, headers={"accept": "text/html", "cookie": cookie}, trust_env=False)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert len({fields(answer)["x-token"] for answer in answers}) == 1
    assert all(answer.headers["cache-control"] == "private, no-cache" for answer in answers)
    grants = [form["grant_type"] for path, form in provider.seen if path == "/token"]
    assert grants == ["authorization_code", "refresh_token"]
    # What was under way with the session of before still gets through, on its heir's tokens.
    assert ask_alone(someone, cookie).status_code == 200
    assert provider.count("/token") == 2


def ask_alone(someone: Browser, cookie: str) -> httpx.Response:
    return httpx.get(someone.url, headers={"accept": "text/html", "cookie": cookie}, trust_env=False)


def test_refresh_tokens_are_used_in_turn(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.expires_in = 20
    someone.get(someone.callback())
    tokens = {fields(someone.get("/"))["x-token"] for _ in range(3)}
    assert len(tokens) == 3
    assert provider.count("/token") == 4


def test_a_refresh_that_is_refused_asks_for_a_login(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.expires_in = 20
    someone.get(someone.callback())
    provider.forget_refresh_tokens()
    assert someone.get("/", accept="application/json").status_code == 401
    assert not someone.session


def test_a_refresh_about_somebody_else_is_refused(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.expires_in = 20
    someone.get(someone.callback())
    provider.knobs.claims = lambda claims: {**claims, "sub": "mallory"}
    assert someone.get("/", accept="application/json").status_code == 401


def test_an_outage_ends_sessions_only_when_their_tokens_end(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.expires_in = 20
    someone.get(someone.callback())
    provider.knobs.statuses["/token"] = 500
    before = someone.session
    assert someone.get("/").status_code == 200
    assert someone.session == before
    someone.plant(made_session(provider, expires=int(time.time()) - 1, refresh_token="lost"))
    response = someone.get("/")
    assert (response.status_code, response.json()["code"]) == (503, "authentication-unavailable")
    provider.knobs.statuses.clear()
    assert someone.get("/").status_code == 302


def made_session(provider: OidcProvider, **changed: Any) -> dict[str, str]:
    """The cookie of a session as the gateway would have made it."""
    now = int(time.time())
    session = Session(id="1", started=now, seen=now, nonce="n", claims={"sub": "alice"}, scope="openid")
    return {COOKIE: "1." + vault(provider.issuer, OLD).seal_session(replace(session, **changed))}


# -- logout


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_logout(someone: Browser, provider: OidcProvider, method: str) -> None:
    someone.log_in()
    response = someone.request(method, LOGOUT, sec_fetch_site="same-origin")
    assert response.status_code == 303
    assert response.headers["location"].startswith(f"{provider.issuer}/end?")
    asked = parameters(response.headers["location"])
    assert asked["post_logout_redirect_uri"] == f"{someone.url}/"
    assert asked["id_token_hint"].count(".") == 2
    assert not someone.session
    assert someone.http.get(response.headers["location"]).headers["location"] == f"{someone.url}/"
    # Again, with nothing left of the session.
    again = someone.request(method, LOGOUT, sec_fetch_site="same-origin")
    assert (again.status_code, again.headers["location"]) == (303, "/")
    assert provider.revoked.get(timeout=5)
    assert provider.revoked.empty()


def test_logout_holds_for_other_tabs_and_copies(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.expires_in = 20  # a refresh is due
    someone.get(someone.callback())
    copy = someone.session
    someone.get(LOGOUT, sec_fetch_site="same-origin")
    someone.plant(copy)
    assert someone.get("/", accept="*/*").status_code == 401


def test_a_session_that_was_ended_is_not_written_anew(someone: Browser, provider: OidcProvider) -> None:
    copy = made_session(provider, id="ended", seen=int(time.time()) - 3000)
    someone.plant(copy)
    assert someone.get(LOGOUT, sec_fetch_site="same-origin").status_code == 303
    someone.plant(copy)
    assert someone.get("/", accept="*/*").status_code == 401


# -- the session's cookies


def test_a_session_in_several_cookies(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.claims = lambda claims: {**claims, "photo": "x" * 2500}
    someone.log_in()
    assert sorted(someone.session) == [COOKIE, f"{COOKIE}.1", f"{COOKIE}.2"]
    assert "cookie" not in fields(someone.get("/"))
    provider.knobs.claims = lambda claims: claims
    someone.log_in(LOGIN)
    assert list(someone.session) == [COOKIE]


def test_a_session_that_does_not_fit_is_refused(someone: Browser, provider: OidcProvider) -> None:
    provider.knobs.claims = lambda claims: {**claims, "photo": "x" * 9000}
    response = someone.get(someone.callback())
    assert (response.status_code, response.json()["code"]) == (401, "authentication-failed")


def test_the_secret_is_changed(provider: OidcProvider, upstream: Upstream, tmp_path: Path) -> None:
    def with_secrets(*names: str) -> dict[str, Any]:
        return tables(upstream, provider, session_secret=[{"env": name} for name in names])

    with Gateway(with_secrets("OIDC_SESSION_SECRET"), tmp_path, env=ENV) as gateway, browser(gateway) as one:
        one.log_in()
        gateway.reload(with_secrets("NEW_SECRET", "OIDC_SESSION_SECRET"))
        assert one.get("/").status_code == 200
        old = one.session
        one.log_in(LOGIN)
        gateway.reload(with_secrets("NEW_SECRET"))
        assert one.get("/").status_code == 200
        one.plant(old)
        assert one.get("/").status_code == 302


def test_a_session_that_is_used_lives_on(someone: Browser, provider: OidcProvider) -> None:
    now = int(time.time())
    someone.plant(made_session(provider, seen=now - 200))
    assert "set-cookie" not in someone.get("/").headers
    idle = made_session(provider, seen=now - 3500)
    someone.plant(idle)
    response = someone.get("/")
    assert response.headers["cache-control"] == "private, no-cache"
    assert someone.session != idle
    assert "set-cookie" not in someone.get("/").headers


@pytest.mark.parametrize(
    ("ago", "idle"), [(8 * 3600 + 1, 1), (3601, 3601), (-3600, 0)], ids=["lifetime", "idle", "future"]
)
def test_sessions_end(someone: Browser, provider: OidcProvider, ago: int, idle: int) -> None:
    now = int(time.time())
    someone.plant(made_session(provider, started=now - ago, seen=now - idle))
    response = someone.get("/", accept="*/*")
    assert response.status_code == 401
    assert not someone.session


# -- ways to the provider


def test_the_provider_by_an_upstream(upstream: Upstream, tmp_path: Path) -> None:
    with OidcProvider() as provider:
        provider.issuer = "https://id.example"
        table = tables(upstream, provider, provider_upstream="id")
        table["upstreams"]["id"] = {"endpoints": [provider.address]}
        del table["plugins"]["secure"], table["routes"][0]
        with Gateway(table, tmp_path, env=ENV) as gateway, browser(gateway) as one:
            location = one.to_provider("/x")
            assert location.startswith("https://id.example/authorize?")
            # Its name leads nowhere here: the browser asks by the address.
            there = f"http://{provider.address}{location.removeprefix('https://id.example')}"
            back = one.get(one.http.get(there).headers["location"])
            assert one.get(back.headers["location"]).json()["target"] == "/x"
        assert {path for path, _ in provider.seen} >= {"/jwks", "/token"}
        assert set(provider.hosts) == {"id.example", provider.address}


def test_endpoints_that_are_given_are_not_discovered(
    provider: OidcProvider, upstream: Upstream, tmp_path: Path
) -> None:
    given = {
        "authorization_endpoint": f"{provider.issuer}/authorize",
        "token_endpoint": f"{provider.issuer}/token",
        "jwks_uri": f"{provider.issuer}/jwks",
    }
    table = tables(upstream, provider, **given)
    del table["plugins"]["secure"], table["routes"][0]
    with Gateway(table, tmp_path, env=ENV) as gateway, browser(gateway) as one:
        assert one.log_in().status_code == 200
        out = one.get(LOGOUT, sec_fetch_site="none")
        assert (out.status_code, out.headers["location"]) == (303, "/")
    assert provider.count("/.well-known/openid-configuration") == 0


def test_the_gateway_starts_without_its_provider(upstream: Upstream, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    table = config(upstream.address, route={"plugins": ["site"]}, plugins={"site": oidc(nobody)})
    with Gateway(table, tmp_path, env=ENV) as gateway, browser(gateway) as one:
        response = one.get("/")
        assert (response.status_code, response.json()["code"]) == (503, "authentication-unavailable")
        assert response.headers["retry-after"] == "5"


def test_keys_of_the_provider_change(someone: Browser, provider: OidcProvider) -> None:
    before = provider.key
    provider.key = RSAKey.generate_key(2048, {"kid": "two"}, auto_kid=False)
    try:
        assert someone.log_in().status_code == 200
    finally:
        provider.key = before


# -- configuration


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"issuer": "http://id.example"}, "issuer: it must be an https URL (http only on this machine)"),
        ({"issuer": "https://me@id.example"}, "issuer: it must be an https URL (http only on this machine)"),
        (
            {"token_endpoint": "https://id.example/token"},
            "token_endpoint: give all of authorization_endpoint, token_endpoint, jwks_uri, or none of them",
        ),
        ({"scopes": ["email"]}, 'scopes: "openid" is missing (OpenID Connect Core 3.1.2.1)'),
        ({"scopes": ["openid email"]}, "scopes: a scope holds no space; write an array"),
        ({"authorize_params": {"state": "x"}}, 'authorize_params: "state" is the plugin\'s own'),
        ({"session_secret": [{"env": "SHORT"}]}, "session_secret[0]: it has less than 32 bytes"),
        (
            {"callback_path": "/x", "login_path": "/x"},
            "callback_path: callback_path, login_path and logout_path must differ",
        ),
        (
            {"claims_to_headers": {"sub": "X-User"}, "forward_access_token": "x-user"},
            "claims_to_headers: two values go into one header",
        ),
        (
            {"public_url": "https://app.example/x"},
            "public_url: it is scheme and host, such as https://app.example.com",
        ),
        (
            {"post_logout_redirect": "//evil.example"},
            "post_logout_redirect: it must be a path, or an https URL",
        ),
    ],
)
def test_configurations_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], message: str
) -> None:
    for name, value in {**ENV, "SHORT": "x" * 31}.items():
        monkeypatch.setenv(name, value)
    table = config(route={"respond": {}, "plugins": ["p"]}, plugins={"p": oidc("https://id.example") | keys})
    with pytest.raises(ConfigError) as caught:
        loads(to_toml(table))
    assert [problem.message for problem in caught.value.problems] == [message]
