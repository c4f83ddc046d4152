"""How long an answer made of several may be kept: the least of what they say (RFC 9111)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

__all__ = ["HEADERS", "Freshness", "combine", "delta_seconds"]

#: What is looked at, in small letters; and Date, where there is an Expires.
HEADERS: Final = ("cache-control", "age", "expires", "vary")

Fields = Sequence[tuple[str, str]]

_DIRECTIVE: Final = re.compile(r'([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)(?:=(?:"([^"]*)"|([^\s,;]*)))?')
_LONGEST: Final = 1 << 31  # RFC 9111 1.2.2


class Freshness(NamedTuple):
    """Of one answer. seconds: how long it is fresh still, None where it does not say."""

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    must_revalidate: bool = False
    seconds: int | None = None

    @property
    def storable(self) -> bool:
        """By a shared cache that asks nobody again."""
        return not (self.no_store or self.no_cache or self.private)

    @classmethod
    def of(cls, fields: Fields, *, shared: bool = True) -> Freshness:
        """fields: (name in small letters, value). shared: s-maxage goes first (RFC 9111 5.2.2.10)."""
        directives: dict[str, str] = {}
        age, expires, date, vary = 0, "", "", False
        for name, value in fields:
            if name == "cache-control":
                for match in _DIRECTIVE.finditer(value):
                    directives.setdefault(match[1].lower(), match[2] or match[3] or "")
            elif name == "age":
                age = delta_seconds(value) or 0
            elif name == "expires":
                expires = value
            elif name == "date":
                date = value
            elif name == "vary":
                vary = vary or value.strip() == "*"  # RFC 9110 12.5.5: never the same again
        lifetime = None
        if shared and "s-maxage" in directives:
            lifetime = delta_seconds(directives["s-maxage"]) or 0
        elif "max-age" in directives:
            lifetime = delta_seconds(directives["max-age"]) or 0
        elif expires:
            lifetime = _until(expires, date)
        if not directives and lifetime is None and not vary:
            return _SILENT
        return cls(
            "no-store" in directives,
            "no-cache" in directives or vary,
            "private" in directives,
            bool(directives.keys() & {"must-revalidate", "proxy-revalidate"}),
            None if lifetime is None else max(0, lifetime - age),
        )


_SILENT: Final = Freshness()


def delta_seconds(text: str) -> int | None:
    """None: it is no number of seconds (RFC 9111 1.2.2). More digits than any clock has are the longest
    time."""
    if not (text.isascii() and text.isdigit()):
        return None
    return _LONGEST if len(text) > 10 else min(int(text), _LONGEST)


def _until(expires: str, date: str) -> int:
    # RFC 9111 5.3: what is no date, "0" above all, is in the past.
    try:
        return int((parsedate_to_datetime(expires) - parsedate_to_datetime(date)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0


def combine(answers: Iterable[Fields]) -> str:
    """The Cache-Control of an answer made of these; "" where one of them does not say how long it is fresh,
    and none forbids to keep it. A max-age is the least that is left of any, of s-maxage, max-age and
    Expires it comes from."""
    found = [Freshness.of(fields) for fields in answers]
    if not found:
        return ""
    if any(one.no_store for one in found):
        return "no-store"
    said = []
    if any(one.private for one in found):
        said.append("private")
    if any(one.no_cache for one in found):
        said.append("no-cache")
    elif all(one.seconds is not None for one in found):
        said.append(f"max-age={min(one.seconds or 0 for one in found)}")
        if any(one.must_revalidate for one in found):
            said.append("must-revalidate")
    return ", ".join(said)
