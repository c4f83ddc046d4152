"""``oidc``: browsers are logged in at an OpenID provider (OpenID Connect Core 1.0, authorization code flow
with PKCE, RFC 7636), and have a session in an encrypted cookie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from fastgate.plugins import Exchange, Host, Plugin, Response
from fastgate.plugins.oidc.config import Config as OidcConfig
from fastgate.plugins.oidc.config import problems

if TYPE_CHECKING:
    from fastgate.plugins.oidc.gate import Gate

__all__ = ["Oidc"]


class Oidc(Plugin):
    """Logs browsers in at an OpenID provider."""

    Config: ClassVar[type[OidcConfig]] = OidcConfig
    config: OidcConfig
    _gate: Gate

    @classmethod
    def check(cls, config: OidcConfig) -> Mapping[str, str]:
        return dict(problems(config))

    @classmethod
    def identity_headers(cls, config: OidcConfig) -> tuple[str, ...]:
        headers = (*config.claims_to_headers.values(), config.forward_access_token)
        return tuple(name for name in headers if name)

    def provision(self, host: Host) -> None:
        # Here and not above: the gateway starts without what is heavy where no configuration has this plugin.
        from fastgate.plugins.oidc.gate import Gate
        from fastgate.plugins.oidc.provider import Provider

        provider = Provider(host, self.config)
        self._gate = Gate(host, self.config, provider)
        # A provider that is down must not keep the gateway from its start.
        host.spawn(provider.run(), "discovery")

    async def on_request(self, exchange: Exchange) -> Response | None:
        return await self._gate.request(exchange)

    async def on_response(self, exchange: Exchange, response: Response) -> None:
        await self._gate.response(exchange, response)
