"""WWW-Authenticate: what a 401 says about how to do better."""

from __future__ import annotations


def challenge(scheme: str, **parameters: str) -> str:
    """One challenge (RFC 9110 11.6.1). Parameters that are empty are left out.

    >>> challenge("Bearer", realm="api", error="invalid_token")
    'Bearer realm="api", error="invalid_token"'
    """
    listed = ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items() if value)
    return f"{scheme} {listed}" if listed else scheme


def quoted(text: str) -> str:
    """A quoted-string (RFC 9110 5.6.4). Raises ValueError for what no field value may hold."""
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"no text for a header field: {text!r}")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
