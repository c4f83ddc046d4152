"""The graph of an aggregation's parts, and the rules that no golden file shows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgate.config import ConfigError, loads
from fastgate.config.model import Aggregate, ForEach, ListFilter, Part, When
from fastgate.config.model.basics import SECOND
from fastgate.config.part_graph import (
    cycle_of,
    latest_end,
    levels_of,
    longest,
    needs_of,
    reads_client_body,
    texts_of,
)


def test_each_text_of_a_part_counts() -> None:
    part = Part(
        upstream="u",
        path="/{part.a.x}",
        query={"q": "{part_status.b}"},
        headers={"X": "{part_header.c.etag}"},
        json='{"x": [{"y": "-{part.d}"}]}',
        form={"f": "{part.e}"},
        when=(When(value="{part.f}"),),
        for_each=ForEach(list="{part.g}"),
        filter=(ListFilter(value="{item}{part.h}"),),
        after=("a", "i"),
    )
    assert needs_of(part) == {
        "a": ("path",),
        "b": ("query", "q"),
        "c": ("headers", "X"),
        "d": ("json",),
        "e": ("form", "f"),
        "f": ("when", 0, "value"),
        "g": ("for_each", "list"),
        "h": ("filter", 0, "value"),
        "i": ("after", 1),
    }
    assert [text.path[0] for text in texts_of(part)] == [
        "path", "query", "headers", "json", "form", "when", "for_each", "filter",
    ]  # fmt: skip


def test_who_reads_the_clients_body() -> None:
    assert reads_client_body(Part(upstream="u", pass_body=True))
    assert reads_client_body(Part(upstream="u", json='["{body.a}"]'))
    assert not reads_client_body(Part(upstream="u", json='["{query.body}"]'))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefg"), max_size=3)))
def test_a_cycle_is_told_if_and_only_if_there_is_one(needs: dict[str, list[str]]) -> None:
    cycle = cycle_of(needs)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(after in needs[before] for before, after in pairwise(cycle))
        return
    left = dict(needs)
    while left:
        free = [name for name in left if not any(other in left for other in left[name])]
        assert free
        for name in free:
            del left[name]


def test_levels_and_the_longest_path() -> None:
    aggregate = Aggregate(
        parts={
            "page": Part(upstream="u", path="/{part.user.id}/{part.order.id}", timeout=3 * SECOND),
            "order": Part(upstream="u", timeout=1 * SECOND),
            "user": Part(upstream="u", path="/{part.order.user}", timeout=2 * SECOND, fallback=("v",)),
            "ads": Part(upstream="u", timeout=20 * SECOND),
        },
        timeout=7 * SECOND,
    )
    assert levels_of(aggregate) == [["order", "ads"], ["user"], ["page"]]
    assert latest_end(aggregate) == {
        "order": 1 * SECOND,
        "user": 5 * SECOND,
        "page": 7 * SECOND,
        "ads": 7 * SECOND,
    }


def test_rounds_of_a_list_count() -> None:
    part = Part(upstream="u", for_each=ForEach(list="{body}", max_items=10, concurrency=4), timeout=SECOND)
    assert longest(part) == 3 * SECOND


def test_more_parts_than_there_may_be() -> None:
    text = '[[listeners]]\nbind = "127.0.0.1:8080"\n[upstreams.u]\nendpoints = ["127.0.0.1:1"]\n'
    text += '[[routes]]\nname = "r"\n'
    parts = "".join(f'[routes.aggregate.parts.p{i}]\nupstream = "u"\ngroup = "p{i}"\n' for i in range(64))
    aggregate = loads(text + parts).config.routes[0].aggregate
    assert aggregate is not None
    assert len(aggregate.parts) == 64
    with pytest.raises(ConfigError, match=r"aggregate\.parts: 65 parts, and at most 64"):
        loads(text + parts + '[routes.aggregate.parts.more]\nupstream = "u"\ngroup = "more"\n')
