"""What a match costs, in slots, nodes and rules looked at: it must not grow with the number of routes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from routes import Route, Routes, route

# Kind -> the i-th route, and path and host of a request that it matches.
KINDS: dict[str, Callable[[int], tuple[Route, str, str]]] = {
    "host": lambda i: (route(f"r{i}", host=f"h{i}.example"), "/", f"h{i}.example"),
    "wildcard": lambda i: (route(f"r{i}", host=f"*.h{i}.example"), "/", f"a.b.h{i}.example"),
    "path": lambda i: (route(f"r{i}", path=f"/a/{i}/b"), f"/a/{i}/b", ""),
    "template": lambda i: (route(f"r{i}", path=f"/a/{i}/{{x}}/b"), f"/a/{i}/z/b", ""),
    "prefix": lambda i: (route(f"r{i}", prefix=f"/a/{i}/b"), f"/a/{i}/b/c/d", ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_does_not_grow_with_the_routes(kind: str) -> None:
    count = 10_000
    made = [KINDS[kind](i) for i in range(count)]
    routes = Routes(*(rule for rule, _, _ in made))
    costs = []
    for rule, path, host in made:
        before = routes.table.work
        assert routes.match(path, host) == rule.name
        costs.append(routes.table.work - before)
    only, path, host = made[0]
    alone = Routes(only)
    assert alone.match(path, host) == "r0"
    # At half load a look-up takes 1.5 slots on average; the rest is the same as for one route.
    assert sum(costs) / count <= alone.table.work * 2
    assert max(costs) <= alone.table.work + 150


def test_a_request_that_nothing_matches_is_cheap_too() -> None:
    routes = Routes(
        *(route(f"p{i}", path=f"/a/{i}") for i in range(5000)),
        *(route(f"q{i}", prefix=f"/b/{i}") for i in range(5000)),
    )
    before = routes.table.work
    assert routes.match("/b/x/" + "y/" * 4000, host="h" + ".h" * 120) is None
    assert routes.table.work - before < 60


def test_templates_go_back_no_further_than_their_tree() -> None:
    # Every mixture of "a" and {name}: both lead on at each segment, and each ends in a method that fails.
    depth = 10
    mixtures = list(product((True, False), repeat=depth))
    routes = Routes(
        *(
            route(
                f"r{i}",
                path="".join("/a" if literal else f"/{{n{at}}}" for at, literal in enumerate(mixture)),
                methods=("POST",),
            )
            for i, mixture in enumerate(mixtures)
            if not all(mixture)
        )
    )
    nodes = 2 ** (depth + 1)
    before = routes.table.work
    assert routes.match("/a" * depth) is None
    # A node, the slots of its one literal child and its one rule.
    assert nodes / 2 < routes.table.work - before < 6 * nodes
    before = routes.table.work
    assert routes.match("/a" * (depth - 1) + "/b", method="POST") is not None
    assert routes.table.work - before < 100


def test_a_chain_of_names_is_walked_once() -> None:
    # /{a}/{b}/.../x beside /a/a/.../y: without a tree this is where matchers go exponential.
    routes = Routes(
        *(
            route(
                f"r{k}",
                path="".join(f"/{{n{i}}}" for i in range(k)) + "/a" * (16 - k) + "/end",
                methods=("POST",),
            )
            for k in range(1, 17)
        )
    )
    before = routes.table.work
    assert routes.match("/a" * 16 + "/nope") is None
    assert routes.table.work - before < 16 * 17 * 4


def test_many_wildcard_lengths_cost_one_look_up_each_at_most() -> None:
    routes = Routes(*(route(f"r{k}", host="*" + ".a" * k, path="/x") for k in range(1, 40)))
    before = routes.table.work
    assert routes.match("/y", host="a" + ".a" * 126) is None
    assert routes.table.work - before < 300
