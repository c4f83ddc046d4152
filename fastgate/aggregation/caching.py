"""How long an answer made of several may be kept: the least of what they say (RFC 9111)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

__all__ = ["HEADERS", "Fields", "Freshness", "combine", "delta_seconds"]

#: What is looked at, in small letters; and Date, where there is an Expires.
HEADERS: Final = ("cache-control", "age", "expires", "vary")

Fields = Sequence[tuple[str, str]]

_DIRECTIVE: Final = re.compile(r'([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)(?:=(?:"([^"]*)"|([^\s,;]*)))?')
_LONGEST: Final = 1 << 31  # RFC 9111 1.2.2


class Freshness(NamedTuple):
    """Of one answer. seconds: how long it is fresh still, None where it does not say. own_seconds: the same
    for a client's own cache, which s-maxage does not speak to."""

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    must_revalidate: bool = False
    seconds: int | None = None
    own_seconds: int | None = None

    @property
    def storable(self) -> bool:
        """By a shared cache that asks nobody again."""
        return not (self.no_store or self.no_cache or self.private)

    @classmethod
    def of(cls, fields: Fields) -> Freshness:
        """fields: (name in small letters, value)."""
        for name, _ in fields:
            if name in HEADERS:
                break
        else:
            return _SILENT  # as most answers are
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
                vary = vary or "*" in value  # RFC 9110 12.5.5: never the same again
        own = None
        if "max-age" in directives:
            own = delta_seconds(directives["max-age"]) or 0
        elif expires:
            own = _until(expires, date)
        lifetime = own
        if "s-maxage" in directives:
            lifetime = delta_seconds(directives["s-maxage"]) or 0  # RFC 9111 5.2.2.10: it goes first
        if not directives and lifetime is None and not vary:
            return _SILENT
        return cls(
            "no-store" in directives,
            "no-cache" in directives or vary,
            "private" in directives,
            bool(directives.keys() & {"must-revalidate", "proxy-revalidate"}),
            None if lifetime is None else max(0, lifetime - age),
            None if own is None else max(0, own - age),
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


def combine(answers: Iterable[Fields], *, private: bool = False) -> str:
    """The Cache-Control of an answer made of these; "" where one of them does not say how long it is fresh,
    and none forbids to keep it. max-age is the least that is left of any, of max-age or Expires; s-maxage,
    where it is another, that with s-maxage first. private: it is one client's, whatever they say."""
    found = [Freshness.of(fields) for fields in answers]
    if not found:
        return ""
    if found.count(_SILENT) == len(found):
        return "private" if private else ""
    if any(one.no_store for one in found):
        return "no-store"
    private = private or any(one.private for one in found)
    said = ["private"] if private else []
    if any(one.no_cache for one in found):
        said.append("no-cache")
        return ", ".join(said)
    own, shared = _least(one.own_seconds for one in found), _least(one.seconds for one in found)
    if own is not None:
        said.append(f"max-age={own}")
    if shared is not None and shared != own and not private:
        said.append(f"s-maxage={shared}")
    if len(said) > private and any(one.must_revalidate for one in found):
        said.append("must-revalidate")
    return ", ".join(said)


def _least(seconds: Iterable[int | None]) -> int | None:
    """None: one of them does not say."""
    least = _LONGEST
    for one in seconds:
        if one is None:
            return None
        least = min(least, one)
    return least
