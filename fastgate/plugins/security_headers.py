"""Response headers that tell browsers to be careful."""

from __future__ import annotations

from typing import Annotated, Final

from fastgate.plugins import Exchange, Plugin, PluginConfig, Response, doc


class SecurityHeaders(Plugin):
    """Sets security headers on every answer, the gateway's own too."""

    class Config(PluginConfig):
        hsts: Annotated[
            str,
            doc("`Strict-Transport-Security`, if the request came by https. Empty: not set.", "header-value"),
        ] = "max-age=31536000"
        content_type_options: Annotated[
            str, doc("`X-Content-Type-Options`. Empty: not set.", "header-value")
        ] = "nosniff"
        frame_options: Annotated[str, doc("`X-Frame-Options`. Empty: not set.", "header-value")] = (
            "SAMEORIGIN"
        )
        referrer_policy: Annotated[str, doc("`Referrer-Policy`. Empty: not set.", "header-value")] = (
            "strict-origin-when-cross-origin"
        )
        permissions_policy: Annotated[str, doc("`Permissions-Policy`.", "header-value")] = ""
        csp: Annotated[str, doc("`Content-Security-Policy`.", "header-value")] = ""
        csp_report_only: Annotated[
            str, doc("`Content-Security-Policy-Report-Only`: a policy to try out.", "header-value")
        ] = ""
        coop: Annotated[str, doc("`Cross-Origin-Opener-Policy`. Empty: not set.", "header-value")] = (
            "same-origin"
        )
        coep: Annotated[str, doc("`Cross-Origin-Embedder-Policy`.", "header-value")] = ""
        corp: Annotated[str, doc("`Cross-Origin-Resource-Policy`. Empty: not set.", "header-value")] = (
            "same-origin"
        )
        override: Annotated[
            bool, doc("Whether these take the place of what the service says; else its own stay.")
        ] = False
        remove: Annotated[
            tuple[str, ...],
            doc('Response headers to take out, such as `"server"` and `"x-powered-by"`.', "set-header-name"),
        ] = ()

    config: Config

    def __init__(self, config: Config, name: str) -> None:
        super().__init__(config, name)
        self._fields = [(header, value) for header, key in _HEADERS if (value := getattr(config, key))]

    def on_response(self, exchange: Exchange, response: Response) -> None:
        headers = response.headers
        for name in self.config.remove:
            del headers[name]
        for name, value in self._fields:
            if self.config.override or name not in headers:
                headers[name] = value
        # RFC 6797 7.2: not on answers to http.
        wanted = self.config.hsts and exchange.request.scheme == "https"
        if wanted and (self.config.override or _HSTS not in headers):
            headers[_HSTS] = self.config.hsts


_HSTS: Final = "strict-transport-security"
_HEADERS: Final = (
    ("x-content-type-options", "content_type_options"),
    ("x-frame-options", "frame_options"),
    ("referrer-policy", "referrer_policy"),
    ("permissions-policy", "permissions_policy"),
    ("content-security-policy", "csp"),
    ("content-security-policy-report-only", "csp_report_only"),
    ("cross-origin-opener-policy", "coop"),
    ("cross-origin-embedder-policy", "coep"),
    ("cross-origin-resource-policy", "corp"),
)
