"""The plain listener that `tls.redirect_from` makes: it sends every client to the listener with TLS."""

from __future__ import annotations

from typing import Final

from fastgate.config import Config, model

__all__ = ["redirect_routes"]

# An authority asks there without TLS, whatever is redirected (RFC 8555 8.3).
_ACME: Final = "/.well-known/acme-challenge"


def redirect_routes(listener: model.Listener, config: Config) -> tuple[model.Route, ...]:
    """All that such a listener has."""
    target = next(each for each in config.listeners if each.name == listener.redirects_to)
    name = f"{listener.name} to https"
    return (
        model.Route(
            name=name,
            match=model.Match(),
            redirect=model.Redirect(status=308, scheme="https", port=target.port or 443),
        ),
        model.Route(
            name=f"{name}, but for ACME",
            match=model.Match(prefix=_ACME),
            respond=model.Respond(status=404),
        ),
    )
