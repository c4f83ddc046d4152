"""A browser in front of a gateway that logs in by OpenID Connect: httpx with a cookie jar, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from fastgate.plugins import Secret
from fastgate.plugins.oidc.config import Config as OidcConfig
from fastgate.plugins.oidc.session import Vault
from support.gateway import Gateway
from support.oidc_provider import CLIENT

PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CALLBACK = "/.fastgate/oidc/callback"
LOGIN = "/.fastgate/oidc/login"
LOGOUT = "/.fastgate/oidc/logout"
COOKIE = "fastgate_session"


class Browser:
    """Follows no redirect by itself, so that a test can stand between any two steps."""

    def __init__(self, gateway: Gateway) -> None:
        self.url = gateway.url
        self.http = httpx.Client(timeout=10, trust_env=False, headers=PAGE)

    def get(self, url: str = "/", **headers: str) -> httpx.Response:
        return self.request("GET", url, **headers)

    def request(self, method: str, url: str, **headers: str) -> httpx.Response:
        """url: a path of the site, or a whole URL."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, self.url + url if url.startswith("/") else url, headers=named)

    def to_provider(self, path: str = "/") -> str:
        """The URL at the provider that a page without a session sends to."""
        response = self.get(path)
        assert response.status_code == 302, response.text
        return response.headers["location"]

    def callback(self, path: str = "/") -> str:
        """The URL by which the provider sends back, not asked for yet."""
        response = self.http.get(self.to_provider(path))
        assert response.status_code == 302, response.text
        return response.headers["location"]

    def log_in(self, path: str = "/") -> httpx.Response:
        """The page that was asked for first, seen after the login."""
        response = self.get(self.callback(path))
        assert response.status_code == 302, response.text
        return self.get(response.headers["location"])

    @property
    def session(self) -> dict[str, str]:
        """The session's cookies."""
        return {
            name: value
            for name, value in self.cookies().items()
            if name.startswith(COOKIE) and ".login." not in name
        }

    @property
    def logins(self) -> dict[str, str]:
        """The cookies of logins that are under way."""
        return {name: value for name, value in self.cookies().items() if ".login." in name}

    def cookies(self) -> dict[str, str]:
        return {cookie.name: cookie.value or "" for cookie in self.http.cookies.jar}

    def plant(self, cookies: dict[str, str]) -> None:
        """In place of all that it has."""
        self.http.cookies.clear()
        for name, value in cookies.items():
            self.http.cookies.set(name, value, domain="127.0.0.1", path="/")


def vault(issuer: str, secret: str, name: str = "site") -> Vault:
    """What seals cookies as the gateway's plugin ``name`` does."""
    made = Secret(secret, "test")
    return Vault([secret], OidcConfig(issuer=issuer, client_id=CLIENT, session_secret=(made,)), name)


@contextmanager
def browser(gateway: Gateway) -> Iterator[Browser]:
    one = Browser(gateway)
    try:
        yield one
    finally:
        one.http.close()


def parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def oidc(issuer: str, **keys: Any) -> dict[str, Any]:
    """The table of the plugin, for plain http."""
    return {
        "use": "oidc",
        "issuer": issuer,
        "client_id": CLIENT,
        "client_secret": {"env": "OIDC_CLIENT_SECRET"},
        "session_secret": {"env": "OIDC_SESSION_SECRET"},
        "cookie_secure": False,
        **keys,
    }
