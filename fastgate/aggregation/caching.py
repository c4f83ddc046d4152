"""How long an answer that is made of several may be kept: the least of them (RFC 9111 5.2.2)."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["combine"]


def combine(answers: Iterable[Iterable[tuple[str, str]]]) -> str:
    """The Cache-Control of an answer that is made of answers with these header fields; "": none."""
    flags: set[str] = set()
    ages: list[int | None] = []
    for fields in answers:
        said: dict[str, str] = {}
        age = 0
        for name, value in fields:
            if name.lower() == "cache-control":
                for directive in value.split(","):
                    key, _, argument = directive.strip().partition("=")
                    said.setdefault(key.lower(), argument.strip('"'))
            elif name.lower() == "age" and value.isascii() and value.isdigit():
                age = int(value[:10])
        flags |= {"no-store", "no-cache", "private"} & said.keys()
        lifetime = said.get("max-age", "")
        known = lifetime.isascii() and lifetime.isdigit()
        ages.append(max(0, int(lifetime[:10]) - age) if known else None)
    if "no-store" in flags:
        return "no-store"
    told = sorted(flags)
    if ages and None not in ages:
        told.append(f"max-age={min(one for one in ages if one is not None)}")
    return ", ".join(told)
