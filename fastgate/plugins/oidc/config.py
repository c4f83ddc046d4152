"""The configuration of ``oidc``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import field

from fastgate.plugins import Secret, doc
from fastgate.plugins._auth.ask import is_safe_url
from fastgate.plugins._auth.identity import ClientAuth, IdentityConfig, Leeway, header_problems

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
]  # fmt: skip

ENDPOINTS: Final = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "end_session_endpoint",
    "revocation_endpoint",
)
#: With these three given nothing has to be discovered.
NEEDED: Final = ENDPOINTS[:3]
#: Parameters of the authorization request that are the plugin's own.
_OWN_PARAMETERS: Final = frozenset(
    (
        "response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce",
        "code_challenge", "code_challenge_method", "request", "request_uri",
    )
)  # fmt: skip


class Config(IdentityConfig):
    """Logs browsers in at an OpenID provider (authorization code flow with PKCE) and keeps the session in an
    encrypted cookie."""

    issuer: Annotated[str, doc("The provider's issuer URL, letter by letter as it calls itself.")]
    client_id: Annotated[str, doc("What the provider calls this gateway.", "text")]
    client_secret: Annotated[
        Secret | None, doc("The client's secret; none for a public client.", secret=True)
    ] = None
    client_auth: ClientAuth = "basic"

    authorization_endpoint: Annotated[
        str,
        doc(
            "URL of this endpoint, instead of the discovered one; likewise the next five.",
            default="discovered",
        ),
    ] = ""
    token_endpoint: Annotated[str, doc("Where codes are exchanged.", default="discovered")] = ""
    jwks_uri: Annotated[str, doc("Where the provider's keys are.", default="discovered")] = ""
    userinfo_endpoint: Annotated[str, doc("Where further claims are.", default="discovered")] = ""
    end_session_endpoint: Annotated[
        str, doc("Where browsers are sent to log out.", default="discovered, if there is one")
    ] = ""
    revocation_endpoint: Annotated[
        str, doc("Where refresh tokens are given back.", default="discovered, if there is one")
    ] = ""
    provider_upstream: Annotated[
        str,
        doc(
            "The upstream by which the gateway itself asks the provider, instead of its URLs.",
            "upstream-ref",
            empty=True,
            default="none",
        ),
    ] = ""
    provider_timeout: Annotated[
        int,
        doc(
            "How long one request may wait for the provider; less than the plugin's `timeout`.",
            "duration",
            minimum=SECOND // 100,
        ),
    ] = 4 * SECOND

    algorithms: Annotated[
        tuple[Algorithm, ...], doc("Algorithms that ID tokens may be signed with.", least=1)
    ] = ("RS256",)
    audiences: Annotated[
        tuple[str, ...],
        doc("Audiences that an ID token may name besides the client itself.", one_or_many=True),
    ] = ()
    leeway: Leeway = 10 * SECOND
    scopes: Annotated[
        tuple[str, ...], doc('Scopes that are asked for; "openid" among them.', "text", one_or_many=True)
    ] = ("openid",)
    authorize_params: Annotated[
        dict[str, str], doc('Further parameters of the authorization request, such as `prompt = "login"`.')
    ] = field(default_factory=dict)
    userinfo: Annotated[bool, doc("Ask the userinfo endpoint for more claims at each login.")] = False

    callback_path: Annotated[
        str, doc("Where the provider sends browsers back to. The route must match it.", "path")
    ] = "/.fastgate/oidc/callback"
    login_path: Annotated[
        str, doc("Starts a login by hand: `?return_to=/path`. The route must match it.", "path")
    ] = "/.fastgate/oidc/login"
    logout_path: Annotated[str, doc("Ends the session. The route must match it.", "path")] = (
        "/.fastgate/oidc/logout"
    )
    post_logout_redirect: Annotated[
        str, doc("Where browsers go after the logout: a path, or a URL.", "text")
    ] = "/"
    public_url: Annotated[
        str,
        doc(
            'What browsers call this site: "https://app.example.com"; the redirect URI begins with it.',
            default="scheme and Host of the request",
        ),
    ] = ""

    session_secret: Annotated[
        tuple[Secret, ...],
        doc(
            "Secrets of at least 32 bytes that cookies are encrypted with. The first encrypts, all decrypt: "
            "put a new one in front, and take the old one away a session's lifetime later.",
            secret=True,
            one_or_many=True,
            least=1,
        ),
    ]
    cookie: Annotated[
        str,
        doc("Name of the session's cookie. With `cookie_secure`, `__Host-` comes in front.", "cookie-name"),
    ] = "fastgate_session"
    cookie_secure: Annotated[bool, doc("Cookies only over https. false is for tests on plain http.")] = True
    max_cookies: Annotated[
        int, doc("Cookies that one session may take, each at most 4 KiB long.", ge=1, le=8)
    ] = 4
    session_lifetime: Annotated[
        int, doc("How long a session lasts, however busy it is.", "duration", minimum=SECOND)
    ] = 8 * HOUR
    idle_lifetime: Annotated[
        int, doc("How long a session lasts without a request.", "duration", minimum=SECOND)
    ] = HOUR
    login_lifetime: Annotated[
        int, doc("How long a login at the provider may take.", "duration", minimum=SECOND)
    ] = 10 * MINUTE
    refresh: Annotated[
        bool, doc("Get new tokens by the refresh token; without one, sessions just last their time.")
    ] = True
    refresh_before: Annotated[int, doc("How long before the access token expires.", "duration")] = 30 * SECOND

    forward_access_token: Annotated[
        str,
        doc(
            "The request header in which the service gets the access token; Authorization as a Bearer token.",
            "set-header-name",
            empty=True,
            default="none",
        ),
    ] = ""
    realm: Annotated[str, doc("The realm that WWW-Authenticate names.", "header-value")] = "site"


def problems(config: Config) -> Iterator[tuple[str, str]]:
    """What is wrong between the keys: key and message."""
    for name in ("issuer", *ENDPOINTS):
        url = getattr(config, name)
        if url and not is_safe_url(url):
            yield name, "it must be an https URL (http only on this machine)"
    if not config.issuer:
        yield "issuer", "it must not be empty"
    given = [name for name in NEEDED if getattr(config, name)]
    if given and len(given) < len(NEEDED):
        yield given[0], f"give all of {', '.join(NEEDED)}, or none of them"
    if "openid" not in config.scopes:
        yield "scopes", '"openid" is missing (OpenID Connect Core 3.1.2.1)'
    if any(" " in scope for scope in config.scopes):
        yield "scopes", "a scope holds no space; write an array"
    for name in _OWN_PARAMETERS & config.authorize_params.keys():
        yield "authorize_params", f'"{name}" is the plugin\'s own'
    for at, secret in enumerate(config.session_secret):
        if len(secret.reveal().encode()) < 32:
            yield f"session_secret.{at}", "it has less than 32 bytes"
    paths = [config.callback_path, config.login_path, config.logout_path]
    if len(set(paths)) < len(paths):
        yield "callback_path", "callback_path, login_path and logout_path must differ"
    yield from header_problems(config, config.forward_access_token)
    if config.public_url and not _is_origin(config.public_url):
        yield "public_url", "it is scheme and host, such as https://app.example.com"
    after = config.post_logout_redirect
    if not is_local(after) and not is_safe_url(after):
        yield "post_logout_redirect", "it must be a path, or an https URL"


def is_local(target: str) -> bool:
    """Whether a browser that is sent there stays on this site: a path with an optional query, in no spelling
    that some browser takes for another host ("//evil", "/\\evil", "/<TAB>/evil")."""
    return (
        target.startswith("/")
        and target.isascii()
        and not target.startswith("//")
        and not any(c <= " " or c in "\\\x7f" for c in target)
    )


def _is_origin(url: str) -> bool:
    parts = urlsplit(url)
    return is_safe_url(url) and not (parts.path or parts.query)
