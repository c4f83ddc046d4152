"""``jwt``: lets requests in that carry a JSON Web Token of an issuer that is trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastgate.plugins import Host
from fastgate.plugins._auth.bearer import TokenPlace
from fastgate.plugins._auth.bearer_plugin import BearerPlugin
from fastgate.plugins._auth.jwks import KeySet, StaticKeys, parse_pem
from fastgate.plugins._auth.jws import TokenError, read_token
from fastgate.plugins._auth.memory import Verified
from fastgate.plugins._auth.sources import FileSource, Source, SourceError, UpstreamSource, UrlSource
from fastgate.plugins.jwt.config import SECOND, Issuer, JwtConfig, problems
from fastgate.plugins.jwt.verifier import Verifier

# How often a file of keys is looked at, in seconds.
WATCH = 1.0


class Jwt(BearerPlugin):
    """See docs/plugins/jwt.md."""

    Config = JwtConfig
    config: JwtConfig

    @classmethod
    def check(cls, config: JwtConfig) -> Mapping[str, str]:
        return dict(problems(config))

    async def provision(self, host: Host) -> None:
        import joserfc.jws  # noqa: F401 - now, since it takes a moment, and not with the first request

        config = self.config
        place = TokenPlace(
            header=config.token_header or "",
            cookie=config.token_cookie or "",
            query=config.token_query or "",
            max_size=config.max_token,
        )
        self.admit_by(host, place, config.cache, math.ceil(config.refetch / SECOND))
        self._verifiers = {
            issuer.issuer: Verifier(issuer, config, await self._keys(issuer), self.name)
            for issuer in config.issuers
        }

    async def verify(self, token: str, digest: bytes) -> Verified:
        read = read_token(token)
        # Not yet the issuer's word: it only chooses whose keys have to fit.
        issuer = read.claims.get("iss")
        verifier = self._verifiers.get(issuer) if isinstance(issuer, str) else None
        if verifier is None:
            raise TokenError(f"issuer {str(issuer)[:64]!r} is not trusted")
        verified = await verifier.verify(read, self._host.clock.now())
        self._host.count("verified")
        # Nothing waits between the check of the signature and this: the keys are still those.
        self._memory.put(digest, verified)
        return verified

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
        host, changed = self._host, self._memory.clear
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
