"""``jwt``: lets requests in that carry a JSON Web Token of an issuer that is trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import sha256

from fastgate.plugins import Exchange, Host, Plugin, Response
from fastgate.plugins._auth.bearer import BadToken, TokenPlace
from fastgate.plugins._auth.challenge import challenge
from fastgate.plugins._auth.jwks import KeySet, KeysUnavailable, StaticKeys, parse_pem
from fastgate.plugins._auth.jws import TokenError, read_token
from fastgate.plugins._auth.sources import FileSource, Source, SourceError, UpstreamSource, UrlSource
from fastgate.plugins.jwt.cache import TokenCache, Verified
from fastgate.plugins.jwt.config import SECOND, Issuer, JwtConfig, problems
from fastgate.plugins.jwt.verifier import NotAllowed, Verifier

# How often a file of keys is looked at, in seconds.
WATCH = 1.0


class Jwt(Plugin):
    """See docs/plugins/jwt.md."""

    Config = JwtConfig
    config: JwtConfig

    @classmethod
    def check(cls, config: JwtConfig) -> Mapping[str, str]:
        return dict(problems(config))

    @classmethod
    def identity_headers(cls, config: JwtConfig) -> tuple[str, ...]:
        return tuple(config.claims_to_headers.values())

    async def provision(self, host: Host) -> None:
        import joserfc.jws  # noqa: F401 - now, since it takes a moment, and not with the first request

        config = self.config
        self._host = host
        self._place = TokenPlace(
            header=config.token_header or "",
            cookie=config.token_cookie or "",
            query=config.token_query or "",
            max_size=config.max_token,
        )
        self._cache = TokenCache(config.cache)
        self._scopes = frozenset(config.scopes)
        self._verifiers = {
            issuer.issuer: Verifier(issuer, config, await self._keys(issuer), self.name)
            for issuer in config.issuers
        }

    async def on_request(self, exchange: Exchange) -> Response | None:
        try:
            text = self._place.find(exchange.request)
        except BadToken as error:
            return self._refused(exchange, str(error), "invalid_request")
        if text is None:
            if self.config.anonymous:
                return None
            headers = {"www-authenticate": challenge("Bearer", realm=self.config.realm)}
            return exchange.refuse(401, "authentication-required", "no token", headers=headers)
        digest = sha256(text.encode()).digest()
        found = self._cache.get(digest, self._host.clock.now())
        try:
            if found is None:
                found = await self._verify(text)
                # Nothing waits between the check of the signature and this: the keys are still those.
                self._cache.put(digest, found)
            self._admit(exchange, found)
        except TokenError as error:
            return self._refused(exchange, str(error), "invalid_token")
        except NotAllowed as error:
            return self._forbidden(exchange, str(error))
        except KeysUnavailable as error:
            self._host.count("unavailable")
            headers = {"retry-after": str(math.ceil(self.config.refetch / SECOND))}
            return exchange.refuse(503, "authentication-unavailable", str(error), headers=headers)
        return None

    async def _verify(self, text: str) -> Verified:
        token = read_token(text)
        # Not yet the issuer's word: it only chooses whose keys have to fit.
        issuer = token.claims.get("iss")
        verifier = self._verifiers.get(issuer) if isinstance(issuer, str) else None
        if verifier is None:
            raise TokenError(f"issuer {str(issuer)[:64]!r} is not trusted")
        verified = await verifier.verify(token, self._host.clock.now())
        self._host.count("verified")
        return verified

    def _admit(self, exchange: Exchange, verified: Verified) -> None:
        missing = self._scopes - verified.consumer.scopes
        if missing:
            raise NotAllowed(f"scopes are missing: {' '.join(sorted(missing))}")
        request = exchange.request
        for name, value in verified.headers:
            request.headers[name] = value
        if not self.config.forward_token:
            self._place.remove(request)
        exchange.consumer = verified.consumer

    def _refused(self, exchange: Exchange, why: str, error: str) -> Response:
        """RFC 6750 3."""
        self._host.count("refused")
        headers = {"www-authenticate": challenge("Bearer", realm=self.config.realm, error=error)}
        return exchange.refuse(401, "authentication-failed", why, headers=headers)

    def _forbidden(self, exchange: Exchange, why: str) -> Response:
        self._host.count("forbidden")
        scope = " ".join(self.config.scopes)
        named = challenge("Bearer", realm=self.config.realm, error="insufficient_scope", scope=scope)
        return exchange.refuse(403, "forbidden", why, headers={"www-authenticate": named})

    # -- keys

    async def _keys(self, issuer: Issuer) -> KeySet | StaticKeys:
        if issuer.secret is not None:
            return StaticKeys(issuer.secret.reveal())
        keys = self._key_set(issuer)
        if issuer.jwks_file or issuer.public_key_file:
            await keys.load()
            if keys.keys is None:
                # A file is the operator's own: one that is not there is a mistake, and told at once.
                raise SourceError(f"keys of {issuer.issuer}: {keys.failing}")
        # A provider that can't be reached must not keep the gateway from starting.
        self._host.spawn(keys.run(), f"keys of {issuer.issuer}")
        return keys

    def _key_set(self, issuer: Issuer) -> KeySet:
        host, changed = self._host, self._cache.clear
        if issuer.public_key_file is not None:
            file = FileSource(host.folder / issuer.public_key_file)
            return KeySet(host, file, parse=parse_pem, by_kid=False, refresh=WATCH, on_change=changed)
        if issuer.jwks_file is not None:
            file = FileSource(host.folder / issuer.jwks_file)
            return KeySet(host, file, refresh=WATCH, refetch=WATCH, on_change=changed)
        source: Source = UrlSource(host, issuer.jwks_url or "")
        if issuer.jwks_upstream is not None:
            source = UpstreamSource(host, issuer.jwks_upstream, issuer.jwks_path)
        refresh, refetch = self.config.refresh / SECOND, self.config.refetch / SECOND
        return KeySet(host, source, refresh=refresh, refetch=refetch, on_change=changed)
