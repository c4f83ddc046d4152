"""The OpenID provider as the gateway asks it: discovery, keys, tokens, userinfo, revocation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fastgate.plugins import Host
from fastgate.plugins._auth.ask import Asker, Unavailable, basic, is_safe_url
from fastgate.plugins._auth.jwk import MAX_JWKS
from fastgate.plugins._auth.jwks import KeySet
from fastgate.plugins._auth.sources import SourceError
from fastgate.plugins.oidc.config import ENDPOINTS, NEEDED, SECOND, Config

# Seconds between two discoveries that succeeded; the first pause after one that failed, and the longest.
REDISCOVER: Final = 3600.0
RETRY: Final = (1.0, 60.0)
# ID tokens come over the provider's own connection: nobody can make up key ids to have keys fetched.
REFETCH: Final = 1.0
MAX_TOKEN: Final = 16 * 1024


class Refused(Exception):
    """The provider, or what it says, does not let the caller in. The text is for the log."""


class Metadata(NamedTuple):
    """The provider's endpoints, "" for those that it lacks. iss_parameter: it says in each authorization
    response who it is (RFC 9207)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    end_session_endpoint: str
    revocation_endpoint: str
    iss_parameter: bool


class Tokens(NamedTuple):
    """What the token endpoint gave; "" and 0 for what it did not."""

    access_token: str
    id_token: str
    refresh_token: str
    expires_in: int
    scope: str


class Provider:
    def __init__(self, host: Host, config: Config) -> None:
        self._host, self._config = host, config
        self._timeout = config.provider_timeout / SECOND
        self._asker = Asker(host, config.provider_upstream, self._timeout)
        self._documents = Asker(host, config.provider_upstream, self._timeout, MAX_JWKS)
        self._metadata: Metadata | None = None
        self._why = ""
        self._first = asyncio.Event()
        self.keys = KeySet(host, self, refetch=REFETCH)
        self.label = f"the keys of {config.issuer}"

    # -- in the background

    async def run(self) -> None:
        """Discovers the endpoints now and then, for ever; the keys are fetched from then on."""
        pause = RETRY[0]
        while True:
            try:
                found = await self._discovered()
            except Unavailable as error:
                self._host.count("discovery_failed")
                if self._why != str(error):
                    self._host.log.warning("no discovery of %s: %s", self._config.issuer, error)
                self._why, seconds, pause = str(error), pause, min(2 * pause, RETRY[1])
            else:
                if self._metadata is None:
                    self._host.spawn(self.keys.run(), "keys")
                self._metadata, self._why, seconds, pause = found, "", REDISCOVER, RETRY[0]
            self._first.set()
            await asyncio.sleep(seconds)

    async def _discovered(self) -> Metadata:
        given = {name: getattr(self._config, name) for name in ENDPOINTS}
        if all(given[name] for name in NEEDED):
            return Metadata(**given, iss_parameter=False)
        # OpenID Connect Discovery 4.1, 4.3.
        url = self._config.issuer.removesuffix("/") + "/.well-known/openid-configuration"
        status, found = await self._documents.ask(url)
        if status != 200:
            raise Unavailable(f"status {status} of {url}")
        if found.get("issuer") != self._config.issuer:
            raise Unavailable(f"the provider calls itself {shown(found.get('issuer'))}")
        for name in ENDPOINTS:
            url = found.get(name, "")
            if not isinstance(url, str) or (url and not is_safe_url(url)):
                raise Unavailable(f"{name} is {shown(url)}, no https URL")
            given[name] = given[name] or url
            if name in NEEDED and not given[name]:
                raise Unavailable(f"{name} is missing")
        supported = found.get("authorization_response_iss_parameter_supported")
        return Metadata(**given, iss_parameter=supported is True)

    async def load(self) -> bytes:
        """The key set: for ``KeySet``."""
        assert self._metadata is not None
        try:
            status, body = await self._documents.fetch(self._metadata.jwks_uri)
        except Unavailable as error:
            raise SourceError(str(error)) from None
        if status != 200:
            raise SourceError(f"status {status}")
        return body

    # -- for requests

    async def metadata(self) -> Metadata:
        """The endpoints; waits for the first discovery that is under way. Raises Unavailable."""
        if self._metadata is None and not self._first.is_set():
            waiting = asyncio.ensure_future(self._first.wait())
            try:
                await asyncio.wait([waiting], timeout=self._timeout)
            finally:
                waiting.cancel()
        if self._metadata is None:
            raise Unavailable(f"not discovered: {self._why or 'not yet'}")
        return self._metadata

    @property
    def end_session_endpoint(self) -> str:
        """ "" where there is none, or none was discovered yet: a logout does not wait for it."""
        return self._metadata.end_session_endpoint if self._metadata else ""

    async def redeem(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """Tokens for a code (RFC 6749 4.1.3, RFC 7636 4.5). Raises Refused, Unavailable."""
        tokens = await self._tokens(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": verifier,
            }
        )
        if not tokens.id_token:
            raise Refused("the provider gave no ID token")
        return tokens

    async def renew(self, refresh_token: str) -> Tokens:
        """New tokens (RFC 6749 6). Raises Refused, Unavailable."""
        return await self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """Claims (OpenID Connect Core 5.3). Raises Unavailable."""
        url = (await self.metadata()).userinfo_endpoint
        if not url:
            raise Unavailable("the provider has no userinfo endpoint")
        status, claims = await self._asker.ask(url, headers={"authorization": f"Bearer {access_token}"})
        if status != 200:
            raise Unavailable(f"status {status} of the userinfo endpoint")
        return claims

    async def revoke(self, refresh_token: str) -> None:
        """Gives the token back (RFC 7009); a failure is logged, for the session is over all the same."""
        try:
            url = (await self.metadata()).revocation_endpoint
            if url:
                form = {"token": refresh_token, "token_type_hint": "refresh_token"}
                status, _ = await self._form(url, form)
                if status != 200:
                    raise Unavailable(f"status {status}")
        except Unavailable as error:
            self._host.count("revocation_failed")
            self._host.log.warning("a refresh token was not revoked: %s", error)

    async def _tokens(self, form: dict[str, str]) -> Tokens:
        status, found = await self._form((await self.metadata()).token_endpoint, form)
        if status != 200:
            error = found.get("error")
            text = f"status {status} of the token endpoint, error {shown(error)}"
            # RFC 6749 5.2. All others are a matter between the gateway and the provider.
            raise Refused(text) if status == 400 and error == "invalid_grant" else Unavailable(text)
        if _text(found, "token_type").lower() != "bearer":
            raise Unavailable(f"token_type is {shown(found.get('token_type'))}")
        expires = found.get("expires_in", 0)
        if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 <= expires < 1e9:
            raise Unavailable("expires_in is no number of seconds")
        tokens = Tokens(
            access_token=_text(found, "access_token"),
            id_token=_text(found, "id_token"),
            refresh_token=_text(found, "refresh_token"),
            expires_in=int(expires),
            scope=_text(found, "scope"),
        )
        if not tokens.access_token:
            raise Unavailable("the provider gave no access token")
        return tokens

    async def _form(self, url: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """A POST by which the client says who it is (RFC 6749 2.3)."""
        config, headers = self._config, {}
        if config.client_secret is None:
            form = {**form, "client_id": config.client_id}
        elif config.client_auth == "post":
            form = {**form, "client_id": config.client_id, "client_secret": config.client_secret.reveal()}
        else:
            headers["authorization"] = basic(config.client_id, config.client_secret.reveal())
        return await self._asker.ask(url, form=form, headers=headers)


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_TOKEN or not value.isascii() or not value.isprintable():
        raise Unavailable(f"{name} is no text, or too long")
    return value


def shown(value: object) -> str:
    """What somebody else chose, for the log."""
    return ascii(value)[:100]
