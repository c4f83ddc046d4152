"""Whether claims that are signed hold now, and here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastgate.plugins._auth.jws import TokenError

# The year 9999: a date beyond it is none, but an attempt to have no end.
_LATEST: Final = 253_402_300_799


def check_times(
    claims: Mapping[str, Any],
    now: float,
    *,
    leeway: float,
    require_exp: bool = True,
    max_age: float | None = None,
) -> float:
    """Checks exp, nbf and iat (RFC 7519 4.1.4-4.1.6). Gives the time at which this will no longer hold, as
    ``now`` in seconds since the epoch; infinity where nothing ends it. Raises TokenError."""
    expires, begins, issued = (_date(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None and require_exp:
        raise TokenError("exp is missing")
    until = float("inf") if expires is None else expires + leeway
    if now >= until:
        raise TokenError("expired")
    if begins is not None and now < begins - leeway:
        raise TokenError("not valid yet (nbf)")
    if issued is not None and now < issued - leeway:
        raise TokenError("issued in the future (iat)")
    if max_age is not None:
        if issued is None:
            raise TokenError("iat is missing, and max_age needs it")
        until = min(until, issued + max_age + leeway)
        if now >= until:
            raise TokenError("older than max_age")
    return until


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 2)."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise TokenError(f"{name} is no date")
    return float(value)


def check_audience(claims: Mapping[str, Any], audiences: frozenset[str]) -> None:
    """Raises TokenError unless ``aud`` (RFC 7519 4.1.3: a string or an array of them) names one of
    ``audiences``."""
    value = claims.get("aud")
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list | tuple) or not all(isinstance(one, str) for one in named):
        raise TokenError("aud is missing, or not made of strings")
    if audiences.isdisjoint(named):
        raise TokenError("meant for another audience")
