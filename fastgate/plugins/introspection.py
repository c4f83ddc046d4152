"""``oauth2-introspection``: lets requests in whose token the authorization server calls active (RFC 7662).

Answers are remembered for a moment by the SHA-256 of the token; one request at a time asks for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastgate.plugins import Consumer, Exchange, Host, Plugin, Response, Secret, doc
from fastgate.plugins._auth.ask import Asker, Unavailable, basic, is_safe_url
from fastgate.plugins._auth.bearer import BadToken, TokenPlace
from fastgate.plugins._auth.challenge import challenge
from fastgate.plugins._auth.claims import scopes_of
from fastgate.plugins._auth.flight import SingleFlight
from fastgate.plugins._auth.identity import Identity, IdentityConfig, header_problems
from fastgate.plugins._auth.jws import TokenError
from fastgate.plugins._auth.validity import check_audience, check_times

SECOND: Final = 1_000_000_000
#: Questions under way at a time; what is more gets 503.
MAX_FLIGHTS: Final = 256
RETRY_AFTER: Final = "5"


class IntrospectionConfig(IdentityConfig):
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
    client_auth: Annotated[
        Literal["basic", "post"], doc("How the secret is sent: in Authorization, or in the form.")
    ] = "basic"
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
    scopes: Annotated[
        tuple[str, ...], doc("Scopes that a token must all have; else 403.", one_or_many=True)
    ] = ()
    token_types: Annotated[
        tuple[str, ...], doc("What token_type may be, in any case, where the answer has it.", least=1)
    ] = ("Bearer",)
    leeway: Annotated[int, doc("How far clocks may differ.", "duration")] = 10 * SECOND

    cache_ttl: Annotated[
        int, doc("How long an active token is believed without asking again, at most.", "duration")
    ] = 30 * SECOND
    negative_ttl: Annotated[int, doc("How long one that is not active.", "duration")] = 5 * SECOND
    cache: Annotated[int, doc("Tokens that are remembered, of each kind.", ge=1, le=1_000_000)] = 10_000

    max_token: Annotated[int, doc("A longer token is refused unread.", "size", minimum=64)] = 8192
    forward_token: Annotated[bool, doc("Whether the service gets the token, too.")] = True
    anonymous: Annotated[
        bool, doc("Let requests without a token pass, without a consumer. A bad one is refused all the same.")
    ] = False
    realm: Annotated[str, doc("The realm that WWW-Authenticate names.", "header-value")] = "api"


class Verdict(NamedTuple):
    """What is known of a token. why: for the log; "" of one that is good. consumer: None of one that is not
    active. until: seconds since the epoch. Exchanges share it: nothing in it can be changed."""

    why: str
    consumer: Consumer | None
    headers: tuple[tuple[str, str], ...]
    until: float


class Memory:
    """Verdicts by digest, at most ``size``; the least recently used go first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._verdicts: dict[str, Verdict] = {}

    def get(self, digest: str, now: float) -> Verdict | None:
        found = self._verdicts.pop(digest, None)
        if found is None or now >= found.until:
            return None
        self._verdicts[digest] = found  # at the end of the dict's order again
        return found

    def put(self, digest: str, verdict: Verdict) -> None:
        self._verdicts[digest] = verdict
        if len(self._verdicts) > self._size:
            del self._verdicts[next(iter(self._verdicts))]


class Introspection(Plugin):
    """See docs/plugins/oauth2-introspection.md."""

    Config = IntrospectionConfig
    config: IntrospectionConfig

    @classmethod
    def check(cls, config: IntrospectionConfig) -> Mapping[str, str]:
        return dict(_problems(config))

    @classmethod
    def identity_headers(cls, config: IntrospectionConfig) -> tuple[str, ...]:
        return tuple(config.claims_to_headers.values())

    def provision(self, host: Host) -> None:
        config = self.config
        self._host = host
        timeout = config.server_timeout / SECOND
        self._asker = Asker(host, config.upstream, timeout)
        self._url = config.url or config.path
        self._place = TokenPlace(max_size=config.max_token)
        self._flights: SingleFlight[Verdict] = SingleFlight(host, "introspection", timeout, MAX_FLIGHTS)
        # Apart, so that made-up tokens don't drive good ones out.
        self._active, self._inactive = Memory(config.cache), Memory(config.cache)
        self._scopes = frozenset(config.scopes)
        self._token_types = frozenset(name.lower() for name in config.token_types)
        self._identity = Identity(config, self.name)

    async def on_request(self, exchange: Exchange) -> Response | None:
        try:
            token = self._place.find(exchange.request)
        except BadToken as error:
            return self._refused(exchange, str(error), "invalid_request")
        if token is None:
            if self.config.anonymous:
                return None
            headers = {"www-authenticate": challenge("Bearer", realm=self.config.realm)}
            return exchange.refuse(401, "authentication-required", "no token", headers=headers)
        try:
            verdict = await self._verdict(token)
        except Unavailable as error:
            self._host.count("unavailable")
            headers = {"retry-after": RETRY_AFTER}
            return exchange.refuse(503, "authentication-unavailable", str(error), headers=headers)
        if verdict.consumer is None:
            return self._refused(exchange, verdict.why, "invalid_token")
        missing = self._scopes - verdict.consumer.scopes
        if missing:
            return self._forbidden(exchange, f"scopes are missing: {' '.join(sorted(missing))}")
        request = exchange.request
        for name, value in verdict.headers:
            request.headers[name] = value
        if not self.config.forward_token:
            self._place.remove(request)
        exchange.consumer = verdict.consumer
        return None

    # -- what is known of a token

    async def _verdict(self, token: str) -> Verdict:
        """Raises Unavailable."""
        digest = sha256(token.encode()).hexdigest()
        now = self._host.clock.now()
        known = self._active.get(digest, now) or self._inactive.get(digest, now)
        if known is not None:
            return known
        return await self._flights.run(digest, lambda: self._asked(digest, token))

    async def _asked(self, digest: str, token: str) -> Verdict:
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
        verdict = self._judged(claims, now)
        memory, ttl = (
            (self._inactive, config.negative_ttl)
            if verdict.consumer is None
            else (self._active, config.cache_ttl)
        )
        if ttl:
            memory.put(digest, verdict._replace(until=min(verdict.until, now + ttl / SECOND)))
        return verdict

    def _judged(self, claims: dict[str, Any], now: float) -> Verdict:
        try:
            until = self._check(claims, now)
            consumer = self._identity.consumer(claims, scopes_of(claims))
            return Verdict("", consumer, self._identity.headers(claims), until)
        except (TokenError, ValueError) as error:
            return Verdict(str(error), None, (), float("inf"))

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

    # -- answers (RFC 6750 3)

    def _refused(self, exchange: Exchange, why: str, error: str) -> Response:
        self._host.count("refused")
        headers = {"www-authenticate": challenge("Bearer", realm=self.config.realm, error=error)}
        return exchange.refuse(401, "authentication-failed", why, headers=headers)

    def _forbidden(self, exchange: Exchange, why: str) -> Response:
        self._host.count("forbidden")
        scope = " ".join(self.config.scopes)
        named = challenge("Bearer", realm=self.config.realm, error="insufficient_scope", scope=scope)
        return exchange.refuse(403, "forbidden", why, headers={"www-authenticate": named})


def _problems(config: IntrospectionConfig) -> Iterator[tuple[str, str]]:
    """What is wrong between the keys: key and message."""
    if bool(config.url) == bool(config.upstream):
        yield "url", "either url or upstream says where the endpoint is"
    elif config.url and not is_safe_url(config.url):
        yield "url", "it must be an https URL (http only on this machine)"
    yield from header_problems(config)
