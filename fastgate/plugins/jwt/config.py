"""The configuration of ``jwt``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import field

from fastgate.plugins import PluginConfig, Secret, doc
from fastgate.plugins._auth.bearer_plugin import BearerConfig
from fastgate.plugins._auth.identity import Leeway, header_problems

SECOND: Final = 1_000_000_000

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "HS256", "HS384", "HS512",
]  # fmt: skip

_KEYS: Final = ("jwks_url", "jwks_upstream", "jwks_file", "secret", "public_key_file")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class Issuer(PluginConfig):
    """Who signs tokens, how, for whom, and with which keys: exactly one of `jwks_url`, `jwks_upstream`,
    `jwks_file`, `public_key_file` and `secret`."""

    issuer: Annotated[str, doc("The claim iss of its tokens, letter by letter.")]
    algorithms: Annotated[
        tuple[Algorithm, ...],
        doc("The algorithms that its tokens may be signed with. HS* not together with others.", least=1),
    ]
    audience: Annotated[
        tuple[str, ...], doc("Names of this service: the claim aud has to hold one.", one_or_many=True)
    ] = ()
    any_audience: Annotated[
        bool, doc("Take tokens that were made for other services, too. Instead of `audience`.")
    ] = False
    jwks_url: Annotated[
        str | None, doc("Where its key set is: an https URL, or an http URL of this machine (loopback).")
    ] = None
    jwks_upstream: Annotated[str | None, doc("The upstream that has its key set.", "upstream-ref")] = None
    jwks_path: Annotated[str, doc("The key set's path at `jwks_upstream`.", "path")] = (
        "/.well-known/jwks.json"
    )
    jwks_file: Annotated[
        str | None, doc("A file with its key set (JWKS). Read again when it changes.", "file")
    ] = None
    public_key_file: Annotated[
        str | None, doc("A PEM file with its one public key. Read again when it changes.", "file")
    ] = None
    secret: Annotated[
        Secret | None,
        doc("The secret of HS256 (at least 32 bytes), HS384 (48) or HS512 (64).", secret=True),
    ] = None
    typ: Annotated[
        str, doc('The header typ that its tokens must have, such as "at+jwt" (RFC 9068); empty: any.')
    ] = ""
    consumer_prefix: Annotated[
        str | None,
        doc(
            "Put in front of the names of its consumers. To be given where there are several issuers, since "
            'each may call somebody "alice"; "" for those that share their callers.'
        ),
    ] = None


class JwtConfig(BearerConfig):
    """Lets requests in that carry a JSON Web Token (RFC 7519) of one of its issuers."""

    issuers: Annotated[tuple[Issuer, ...], doc("Who is trusted.", least=1)]

    token_header: Annotated[
        str | None,
        doc("The header that holds the bare token, instead of `Authorization: Bearer`.", "header-name"),
    ] = None
    token_cookie: Annotated[str | None, doc("The cookie that holds the token, instead.", "cookie-name")] = (
        None
    )
    token_query: Annotated[
        str | None,
        doc(
            "The query parameter that holds it, instead. URLs end in logs: not for the public.", "query-name"
        ),
    ] = None
    max_token: Annotated[int, doc("A longer token is refused unread.", "size", minimum=256)] = 8192

    leeway: Leeway = 30 * SECOND
    require_exp: Annotated[bool, doc("Refuse tokens that never expire.")] = True
    max_age: Annotated[
        int | None, doc("The oldest that a token may be, by its claim iat.", "duration", minimum=SECOND)
    ] = None
    required_claims: Annotated[
        dict[str, tuple[str, ...]],
        doc(
            "Claims (dots lead into nested ones) and the values of which each must have one.",
            names="text",
            one_or_many=True,
            least=1,
        ),
    ] = field(default_factory=dict)

    refresh: Annotated[int, doc("How often key sets are fetched.", "duration", minimum=SECOND)] = 600 * SECOND
    refetch: Annotated[
        int,
        doc(
            "Time between two fetches that tokens with an unknown key id can cause, for each issuer.",
            "duration",
            minimum=SECOND // 10,
        ),
    ] = 10 * SECOND
    cache: Annotated[int, doc("Verified tokens that are remembered; 0: none.", ge=0, le=1_000_000)] = 10_000


def problems(config: JwtConfig) -> Iterator[tuple[str, str]]:
    """What is wrong between the keys: key and message."""
    places = [name for name in ("token_header", "token_cookie", "token_query") if getattr(config, name)]
    if len(places) > 1:
        yield places[1], f"a token stands in one place, not in {' and '.join(places)}"
    if config.token_header == "authorization":
        yield "token_header", "without this key the token stands in Authorization, behind Bearer"
    yield from header_problems(config)
    for name in map(str.lower, config.claims_to_headers.values()):
        # Such headers are taken from every request before it is looked at.
        if name in ("authorization", "cookie", config.token_header):
            yield "claims_to_headers", f"{name} is what the client itself has to say"
    seen: set[str] = set()
    for at, issuer in enumerate(config.issuers):
        here = f"issuers.{at}"
        if issuer.issuer in seen:
            yield f"{here}.issuer", "another issuer has this name"
        seen.add(issuer.issuer)
        if len(config.issuers) > 1 and issuer.consumer_prefix is None:
            yield here, "with several issuers each says its consumer_prefix"
        for key, message in _issuer_problems(issuer):
            yield f"{here}.{key}" if key else here, message


def _issuer_problems(issuer: Issuer) -> Iterator[tuple[str, str]]:
    if not issuer.issuer:
        yield "issuer", "it is empty"
    given = [name for name in _KEYS if getattr(issuer, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield "", f"exactly one of {', '.join(_KEYS)} says where its keys are, not {found}"
    shared = [name for name in issuer.algorithms if name.startswith("HS")]
    if shared and len(shared) < len(issuer.algorithms):
        yield "algorithms", "HS* and others together: a public key could be taken for a secret"
    elif bool(shared) != (issuer.secret is not None):
        yield "algorithms", "HS* needs a secret, and a secret HS*"
    if issuer.secret is not None and shared:
        # RFC 7518 3.2: a key at least as long as the hash.
        least = max(int(name[2:]) // 8 for name in shared)
        if len(issuer.secret.reveal().encode()) < least:
            yield "secret", f"{shared[-1]} needs at least {least} bytes"
    if issuer.any_audience == bool(issuer.audience):
        yield "audience", "either audience or any_audience = true"
    if issuer.jwks_url is not None and not _fetchable(issuer.jwks_url):
        yield "jwks_url", "expected an https URL"


def _fetchable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or port == 0 or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
