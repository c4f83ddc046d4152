"""The graph of an aggregation's parts: what each takes from others, in which order they are asked, how long
that may last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from fastgate.config.model.aggregate import Aggregate, Part
from fastgate.config.problems import Path
from fastgate.config.templates import Placeholder, placeholders_of, read_json_template, read_template

__all__ = [
    "Text",
    "asked_upstreams",
    "cycle_of",
    "latest_end",
    "levels_of",
    "longest",
    "needs_of",
    "reads_client_body",
    "texts_of",
]

_PARTS: Final = ("part", "part_status", "part_header")


class Text(NamedTuple):
    """One text with placeholders. path: its keys within the part. template: what ``read_template`` or, of
    `json`, ``read_json_template`` makes of it."""

    path: Path
    template: Any

    def placeholders(self) -> Iterator[Placeholder]:
        return placeholders_of(self.template)


def texts_of(part: Part) -> Iterator[Text]:
    """All texts of a part that may name something, in the order of its keys."""
    yield Text(("path",), read_template(part.path))
    for table in ("query", "headers"):
        for name, text in getattr(part, table).items():
            yield Text((table, name), read_template(text))
    if part.json is not None:
        yield Text(("json",), read_json_template(part.json))
    for name, text in part.form.items():
        yield Text(("form", name), read_template(text))
    if part.graphql is not None:
        for name, text in part.graphql.variables.items():
            yield Text(("graphql", "variables", name), read_template(text))
    for i, condition in enumerate(part.when):
        yield Text(("when", i, "value"), read_template(condition.value))
    if part.for_each is not None:
        yield Text(("for_each", "list"), read_template(part.for_each.list))
    for i, one in enumerate(part.filter):
        yield Text(("filter", i, "value"), read_template(one.value))


def needs_of(part: Part) -> dict[str, Path]:
    """The parts that must have ended before this one, and the keys of the text that names each first."""
    needs: dict[str, Path] = {}
    for text in texts_of(part):
        for one in text.placeholders():
            if one.source in _PARTS:
                needs.setdefault(one.name, text.path)
    for i, name in enumerate(part.after):
        needs.setdefault(name, ("after", i))
    return needs


def asked_upstreams(aggregate: Aggregate) -> tuple[str, ...]:
    """All that its parts may ask, each once."""
    parts = (aggregate.parts or {}).values()  # None where its table could not be read
    names = [name for part in parts for name in (part.upstream, *part.race, *part.fallback)]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def reads_client_body(part: Part) -> bool:
    """Whether it needs the client's body, to read it or to pass it on."""
    return part.pass_body or any(
        one.source == "body" for text in texts_of(part) for one in text.placeholders()
    )


def cycle_of(needs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Parts that wait for one another, the first one at the end once more; () if there are none. What is
    named and is no part counts for nothing."""
    ended: set[str] = set()
    for start in needs:
        way: dict[str, Iterator[str]] = {start: iter(needs[start])}
        while way:
            name = next(reversed(way))
            for other in way[name]:
                if other in way:
                    names = list(way)
                    return (*names[names.index(other) :], other)
                if other in needs and other not in ended:
                    way[other] = iter(needs[other])
                    break
            else:
                ended.add(name)
                del way[name]
    return ()


def levels_of(aggregate: Aggregate) -> list[list[str]]:
    """The names of the parts: those that wait for none, those that wait for these alone, and so on.
    ValueError where they wait for one another."""
    needs = {name: needs_of(part) for name, part in aggregate.parts.items()}
    levels: dict[str, int] = {}
    while len(levels) < len(needs):
        ready = [name for name in needs if name not in levels and all(one in levels for one in needs[name])]
        if not ready:
            raise ValueError("the parts wait for one another")
        for name in ready:
            levels[name] = max((levels[one] + 1 for one in needs[name]), default=0)
    return [
        [name for name in needs if levels[name] == i] for i in range(max(levels.values(), default=-1) + 1)
    ]


def latest_end(aggregate: Aggregate) -> dict[str, int]:
    """When each part has ended at the latest, in nanoseconds from the beginning: along the longest path to
    it, and never after the timeout of the whole."""
    ends: dict[str, int] = {}
    for level in levels_of(aggregate):
        for name in level:
            part = aggregate.parts[name]
            begin = max((ends[one] for one in needs_of(part)), default=0)
            ends[name] = min(aggregate.timeout, begin + longest(part))
    return ends


def longest(part: Part) -> int:
    """How long a part may last, in nanoseconds: its upstreams one after the other, of `for_each` as often as
    not all elements can be under way at one time."""
    rounds = 1
    if part.for_each is not None:
        rounds = -(-part.for_each.max_items // part.for_each.concurrency)
    return rounds * (1 + len(part.fallback)) * part.timeout
