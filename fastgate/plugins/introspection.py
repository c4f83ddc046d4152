"""``oauth2-introspection``: lets requests in whose token the authorization server calls active (RFC 7662).

Answers are remembered for a moment by the SHA-256 of the token; one request at a time asks for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple

from fastgate.plugins import Host, Secret, doc
from fastgate.plugins._auth.ask import Asker, Unavailable, basic, is_safe_url
from fastgate.plugins._auth.bearer import TokenPlace
from fastgate.plugins._auth.bearer_plugin import BearerConfig, BearerPlugin
from fastgate.plugins._auth.claims import scopes_of
from fastgate.plugins._auth.flight import SingleFlight
from fastgate.plugins._auth.identity import ClientAuth, Identity, Leeway, header_problems
from fastgate.plugins._auth.jws import TokenError
from fastgate.plugins._auth.memory import Memory, Verified
from fastgate.plugins._auth.validity import check_audience, check_times

SECOND: Final = 1_000_000_000
#: Questions under way at a time; what is more gets 503.
MAX_FLIGHTS: Final = 256
RETRY_AFTER: Final = 5  # seconds


class IntrospectionConfig(BearerConfig):
    """Lets requests in that carry a token which the authorization server calls active (RFC 7662)."""

    url: Annotated[
        str, doc("The introspection endpoint: an https URL, or an http one of this machine.", default="none")
    ] = ""
    upstream: Annotated[
        str, doc("The upstream that has it, instead.", "upstream-ref", empty=True, default="none")
    ] = ""
    path: Annotated[str, doc("Its path at `upstream`.", "path")] = "/introspect"
    client_id: Annotated[str, doc("What the authorization server calls this gateway.", "text")]
    client_secret: Annotated[Secret, doc("The gateway's secret there.", secret=True)]
    client_auth: ClientAuth = "basic"
    server_timeout: Annotated[
        int,
        doc(
            "How long a request may wait for the server; less than the plugin's `timeout`.",
            "duration",
            minimum=SECOND // 100,
        ),
    ] = 3 * SECOND

    issuer: Annotated[str, doc("What the claim iss must be.", default="anything")] = ""
    audience: Annotated[
        tuple[str, ...], doc("Names of this service: the claim aud must hold one.", one_or_many=True)
    ] = ()
    token_types: Annotated[
        tuple[str, ...], doc("What token_type may be, in any case, where the answer has it.", least=1)
    ] = ("Bearer",)
    leeway: Leeway = 10 * SECOND

    cache_ttl: Annotated[
        int, doc("How long an active token is believed without asking again, at most.", "duration")
    ] = 30 * SECOND
    negative_ttl: Annotated[int, doc("How long one that is not active.", "duration")] = 5 * SECOND
    cache: Annotated[int, doc("Tokens that are remembered, of each kind.", ge=1, le=1_000_000)] = 10_000

    max_token: Annotated[int, doc("A longer token is refused unread.", "size", minimum=64)] = 8192


class Inactive(NamedTuple):
    """A token that is not good. why: for the log. until: seconds since the epoch."""

    why: str
    until: float


class Introspection(BearerPlugin):
    """See docs/plugins/oauth2-introspection.md."""

    Config = IntrospectionConfig
    config: IntrospectionConfig

    @classmethod
    def check(cls, config: IntrospectionConfig) -> Mapping[str, str]:
        return dict(_problems(config))

    def provision(self, host: Host) -> None:
        config = self.config
        timeout = config.server_timeout / SECOND
        self._asker = Asker(host, config.upstream, timeout)
        self._url = config.url or config.path
        self._flights: SingleFlight[Verified | Inactive] = SingleFlight(
            host, "introspection", timeout, MAX_FLIGHTS
        )
        self.admit_by(host, TokenPlace(max_size=config.max_token), config.cache, RETRY_AFTER)
        # Apart, so that made-up tokens don't drive good ones out.
        self._inactive: Memory[Inactive] = Memory(config.cache)
        self._token_types = frozenset(name.lower() for name in config.token_types)
        self._identity = Identity(config, self.name)

    async def verify(self, token: str, digest: bytes) -> Verified:
        found: Verified | Inactive | None = self._inactive.get(digest, self._host.clock.now())
        if found is None:
            found = await self._flights.run(digest.hex(), lambda: self._asked(digest, token))
        if isinstance(found, Inactive):
            raise TokenError(found.why)
        return found

    async def _asked(self, digest: bytes, token: str) -> Verified | Inactive:
        config = self.config
        form, headers = {"token": token, "token_type_hint": "access_token"}, {}
        if config.client_auth == "post":
            form |= {"client_id": config.client_id, "client_secret": config.client_secret.reveal()}
        else:
            headers["authorization"] = basic(config.client_id, config.client_secret.reveal())
        self._host.count("asked")
        status, claims = await self._asker.ask(self._url, form=form, headers=headers)
        if status != 200:
            raise Unavailable(f"status {status} of the introspection endpoint")
        now = self._host.clock.now()
        try:
            until = self._check(claims, now)
            consumer = self._identity.consumer(claims, scopes_of(claims))
            verified = Verified(consumer, self._identity.headers(claims), until)
        except (TokenError, ValueError) as error:
            inactive = Inactive(str(error), now + config.negative_ttl / SECOND)
            if config.negative_ttl:
                self._inactive.put(digest, inactive)
            return inactive
        if config.cache_ttl:
            until = min(until, now + config.cache_ttl / SECOND)
            self._memory.put(digest, verified._replace(until=until))
        return verified

    def _check(self, claims: dict[str, Any], now: float) -> float:
        """Until when it holds. Raises TokenError."""
        config = self.config
        # RFC 7662 2.2: a boolean. Whatever else stands there says nothing for sure.
        if claims.get("active") is not True:
            raise TokenError("the token is not active")
        kind = claims.get("token_type")
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in self._token_types):
            raise TokenError(f"token_type is {ascii(kind)[:60]}")
        if config.issuer and claims.get("iss") != config.issuer:
            raise TokenError("made by another issuer")
        if config.audience:
            check_audience(claims, frozenset(config.audience))
        return check_times(claims, now, leeway=config.leeway / SECOND, require_exp=False)


def _problems(config: IntrospectionConfig) -> Iterator[tuple[str, str]]:
    """What is wrong between the keys: key and message."""
    if bool(config.url) == bool(config.upstream):
        yield "url", "either url or upstream says where the endpoint is"
    elif config.url and not is_safe_url(config.url):
        yield "url", "it must be an https URL (http only on this machine)"
    yield from header_problems(config)
