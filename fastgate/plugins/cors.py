"""Cross-origin resource sharing (Fetch standard, "CORS protocol"): which sites' pages may read answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastgate.plugins import Exchange, Headers, Host, Plugin, PluginConfig, Response, doc

# RFC 6454 6.2 as browsers serialise it: lower case, no path, no user information.
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_WILDCARD: Final = re.compile(r"([a-z][a-z0-9+.-]*://)\*(\.[a-z0-9.-]+(?::[1-9][0-9]{0,4})?)")
_LABELS: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_TOKENS: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
MAX_ORIGIN: Final = 512
MAX_REQUESTED_HEADERS: Final = 2048
_PREFLIGHT_VARY: Final = (
    "origin",
    "access-control-request-method",
    "access-control-request-headers",
    "access-control-request-private-network",
)


class Cors(Plugin):
    """Answers preflights, and says in each answer whether the page's origin may read it."""

    class Config(PluginConfig):
        origins: Annotated[
            tuple[str, ...],
            doc(
                'Origins that may: `"https://app.example.com"`, `"https://*.example.com"` (any name below '
                'it), `"null"`, or `"*"` for all.',
                one_or_many=True,
            ),
        ] = ()
        origin_regex: Annotated[
            str, doc("Origins that may besides: an RE2 expression for the whole origin.", "regex")
        ] = ""
        methods: Annotated[
            tuple[str, ...], doc("Methods that pages may use.", "method", one_or_many=True, least=1)
        ] = ("GET", "HEAD", "POST")
        headers: Annotated[
            tuple[str, ...],
            doc('Request headers that pages may set; `"*"`: those that they ask for.', "header-name"),
        ] = ()
        expose_headers: Annotated[
            tuple[str, ...],
            doc("Response headers that pages may read besides the safelisted ones.", "header-name"),
        ] = ()
        credentials: Annotated[bool, doc("Whether pages may send cookies and other credentials along.")] = (
            False
        )
        max_age: Annotated[int, doc("How long a browser may remember a preflight's answer.", "duration")] = (
            600 * 1_000_000_000
        )
        private_network: Annotated[
            bool, doc("Whether pages of a public network may ask, where this is a private one.")
        ] = False
        refuse: Annotated[
            bool,
            doc("Refuse requests of other origins, instead of answering without permission to read."),
        ] = False

    config: Config

    @classmethod
    def check(cls, config: Config) -> Mapping[str, str]:
        wrong = {}
        if not config.origins and not config.origin_regex:
            wrong[""] = "name at least one of origins, or an origin_regex"
        for at, origin in enumerate(config.origins):
            text = _canonical(origin)
            if origin not in ("*", "null") and not _ORIGIN.fullmatch(text) and not _WILDCARD.fullmatch(text):
                wrong[f"origins.{at}"] = (
                    "expected an origin such as https://app.example.com, without path, or https://*.example.com"
                )
        if config.credentials and "*" in config.origins:
            # Every site could then act as its visitor (Fetch standard, "CORS protocol and credentials").
            wrong["credentials"] = 'not with origins = "*": name the origins'
        if config.credentials and "*" in config.expose_headers:
            wrong["expose_headers"] = '"*" means nothing with credentials: name the headers'
        if "*" in config.methods:
            wrong["methods"] = 'name the methods instead of "*"'
        return wrong

    def __init__(self, config: Config, name: str) -> None:
        super().__init__(config, name)
        texts = [_canonical(origin) for origin in config.origins]
        self._any = "*" in texts
        self._exact = frozenset(texts)
        self._below = [(match[1], match[2]) for match in map(_WILDCARD.fullmatch, texts) if match]
        self._regex: Any = None
        self._note = f"cors.{name}.origin"
        self._answer = f"cors.{name}.preflight"
        self._expose = ", ".join(config.expose_headers)
        self._allow_headers = ", ".join(config.headers)
        self._methods = ", ".join(config.methods)
        self._max_age = str(config.max_age // 1_000_000_000)

    def provision(self, host: Host) -> None:
        if self.config.origin_regex:
            import re2

            self._regex = re2.compile(self.config.origin_regex)

    def on_request(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        sent = request.headers.get_all("origin")
        allowed = len(sent) == 1 and self.allows(sent[0])
        # The decision is kept: a later plugin may take Origin away from the service.
        exchange.context[self._note] = sent[0] if allowed else ""
        if sent and not allowed and self.config.refuse:
            why = "several Origin fields" if len(sent) > 1 else "Origin is not among the allowed ones"
            return exchange.refuse(403, "origin-refused", why)
        if request.method == "OPTIONS" and sent and "access-control-request-method" in request.headers:
            answer = self._preflight(request.headers, sent[0] if allowed else "")
            exchange.context[self._answer] = True
            return answer
        return None

    def on_response(self, exchange: Exchange, response: Response) -> None:
        headers = response.headers
        if self._answer in exchange.context:
            return  # it has them already
        for name in [name for name in headers if name.startswith("access-control-")]:
            del headers[name]
        self._permit(headers, exchange.context.get(self._note, ""))
        if self.config.expose_headers and "access-control-allow-origin" in headers:
            headers["access-control-expose-headers"] = self._expose
        if not self._any:
            _vary(headers, ("origin",))

    def allows(self, origin: str) -> bool:
        """Whether pages of ``origin``, as its header has it, may read answers."""
        if self._any:
            return True
        if origin == "null":
            return "null" in self._exact
        if len(origin) > MAX_ORIGIN or not _ORIGIN.fullmatch(origin):
            return False
        if origin in self._exact:
            return True
        for scheme, suffix in self._below:
            if origin.startswith(scheme) and origin.endswith(suffix):
                # What stands for the star is whole labels of a name.
                return _LABELS.fullmatch(origin, len(scheme), len(origin) - len(suffix)) is not None
        return self._regex is not None and self._regex.fullmatch(origin) is not None

    def _permit(self, headers: Headers, origin: str) -> None:
        if self._any:
            headers["access-control-allow-origin"] = "*"
        elif origin:
            headers["access-control-allow-origin"] = origin
            if self.config.credentials:
                headers["access-control-allow-credentials"] = "true"

    def _preflight(self, asked: Headers, origin: str) -> Response:
        headers = Headers()
        if origin:
            self._permit(headers, origin)
            headers["access-control-allow-methods"] = self._methods
            allowed = self._allow_headers
            if "*" in self.config.headers:
                # The star itself would not cover Authorization, nor anything with credentials.
                wanted = asked.get("access-control-request-headers", "") or ""
                short = len(wanted) <= MAX_REQUESTED_HEADERS
                allowed = wanted if short and _TOKENS.fullmatch(wanted) else ""
            if allowed:
                headers["access-control-allow-headers"] = allowed
            headers["access-control-max-age"] = self._max_age
            if self.config.private_network and asked.get("access-control-request-private-network") == "true":
                headers["access-control-allow-private-network"] = "true"
        _vary(headers, _PREFLIGHT_VARY)
        return Response(204, headers=headers.items())


def _canonical(origin: str) -> str:
    """As a browser would send it: lower case, without the scheme's own port."""
    text = origin.lower()
    return text.removesuffix(_DEFAULT_PORTS.get(text.partition("://")[0], "\0"))


def _vary(headers: Headers, names: tuple[str, ...]) -> None:
    """Adds ``names`` to Vary (RFC 9110 12.5.5), for the caches between."""
    present = [part.strip() for value in headers.get_all("vary") for part in value.split(",") if part.strip()]
    known = {part.lower() for part in present}
    if "*" not in known:
        headers["vary"] = ", ".join([*present, *(name for name in names if name not in known)])
