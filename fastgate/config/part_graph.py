"""What the parts of an aggregation need of one another, from the texts that name them."""

from __future__ import annotations

from collections.abc import Iterator

from fastgate.config.model import Part
from fastgate.config.templates import Placeholder, placeholders_of, read_json_template, read_template

__all__ = ["needs_of", "placeholders_in", "reads_client_body"]


def placeholders_in(part: Part) -> Iterator[Placeholder]:
    """All in a part's texts."""
    texts = [part.path, *part.query.values(), *part.headers.values(), *part.form.values()]
    texts += [one.value for one in part.when]
    texts += [one.value for one in part.filter]
    if part.graphql is not None:
        texts += part.graphql.variables.values()
    if part.for_each is not None:
        texts.append(part.for_each.list)
    for text in texts:
        yield from placeholders_of(read_template(text))
    if part.json is not None:
        yield from placeholders_of(read_json_template(part.json))


def needs_of(part: Part) -> set[str]:
    """Names of the parts that must be there before."""
    return {one.name for one in placeholders_in(part) if one.source.startswith("part")} | set(part.after)


def reads_client_body(part: Part) -> bool:
    return part.pass_body or any(one.source == "body" for one in placeholders_in(part))
