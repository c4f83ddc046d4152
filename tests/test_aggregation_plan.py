"""Aggregations where routes are told of: `explain`, `replay`, `diff`, the admin API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgate.cli import main
from fastgate.config import Config, load, loads
from fastgate.config.diff import difference
from fastgate.routing.decide import Asked, Decider
from fastgate.routing.explain import describe, explain
from fastgate.server.admin_views import view_routes

GATEWAY = """
[[listeners]]
name = "main"
bind = "127.0.0.1:8080"

[upstreams.orders]
endpoints = ["127.0.0.1:9001", "127.0.0.1:9011"]
[upstreams.users]
endpoints = ["127.0.0.1:9002"]
[upstreams.copy]
endpoints = ["127.0.0.1:9003"]

[[routes]]
name = "page"
match = { path = "/pages/{id}" }
priority = "critical"

[routes.aggregate]
timeout = "4s"
on_collision = "last"
errors_member = "_errors"

[routes.aggregate.parts.order]
upstream = "orders"
path = "/orders/{path.id}"
query = { full = "1" }
pass_query = ["lang"]
pass_headers = ["Authorization"]
race = ["copy"]
timeout = "1s"
group = "order"
statuses = { "404" = 404 }

[routes.aggregate.parts.user]
upstream = "users"
graphql.query = "query U($id: ID!) { user(id: $id) { name } }"
graphql.operation = "U"
graphql.variables = { id = "{part.order.user}" }
when = [{ value = "{part.order.user}" }, { value = "{query.user}", one_of = ["1", "yes"] }]
required = false
default = '{"name": null}'
timeout = "2s"
retry = { attempts = 2 }
success = ["200-299", "404"]

[routes.aggregate.parts.skus]
upstream = "orders"
path = "/items/{item.sku}"
for_each = { list = "{part.order.items}", max_items = 20, concurrency = 10, on_failure = "omit" }
fallback = ["copy"]
cache = "1m"
coalesce = true
timeout = "500ms"
filter = { value = "{item.stock}", not_equals = "0" }
drop = ["[].internal"]
map = { "[].tags" = "name" }
group = "items"
required = false
answer_headers = ["set-cookie"]

[routes.aggregate.parts.audit]
upstream = "users"
path = "/audit"
json = '{"who": "{consumer.name}",  "order": "{part.order.id}"}'
omit = true
required = false
after = ["skus"]

[[routes]]
name = "all"
upstream = "orders"
"""


@pytest.fixture(scope="module")
def config() -> Config:
    return loads(GATEWAY).config


def test_the_plan_is_told_step_by_step(config: Config) -> None:
    text = describe(explain(config, "GET", "/pages/7?lang=de"))
    assert text.partition("\nplugins    none\n")[2].partition("\n\n")[0] == "\n".join(
        [
            'aggregate  needs "order", within 4s; the longest way takes 4s',
            "answer     200, one object; where two parts collide: the last part's",
            'partial    200, with what failed in "_errors"',
            "step 1     order: GET /orders/{path.id}?full=1&lang={query.lang}, upstream orders",
            "  part     required; 1s, over after 1s at the latest; at order",
            '  race     with "copy", and the first success wins',
            "  headers  Authorization of the client",
            "  statuses 404 -> 404",
            "step 2     user: POST /, upstream users",
            "  needs    order",
            '  part     optional, else {"name": null}; 2s, over after 3s at the latest; at the top',
            "  body     GraphQL U with $id = {part.order.user}",
            '  when     {part.order.user} is there and {query.user} is "1" or "yes"',
            "  retry    2 tries in all on connect-failure, reset; with a safe method",
            "  success  200-299, 404",
            "step 2     skus: GET /items/{item.sku}, upstream orders",
            "  needs    order",
            "  part     optional; 500ms, over after 3s at the latest; at items",
            "  fallback then copy",
            "  for_each of {part.order.items}, 20 at most, 10 at one time; one that fails is left out",
            "  cache    1m",
            "  coalesce one request for all that would send the same one",
            '  shape    filter itself where {item.stock} is there and not "0"; drop [].internal; '
            "map [].tags -> name",
            "  answers  set-cookie",
            "step 3     audit: POST /audit, upstream users",
            "  needs    order, skus",
            "  part     optional; 5s, over after 4s at the latest; not in the answer",
            '  body     JSON {"who": "{consumer.name}", "order": "{part.order.id}"}',
            "endpoint   orders: 127.0.0.1:9001",
            "endpoint   orders: 127.0.0.1:9011",
            "endpoint   copy: 127.0.0.1:9003",
            "endpoint   users: 127.0.0.1:9002",
            "priority   critical",
        ]
    )


DEEP = "200, one object, objects merged member by member; where two parts collide: 502"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('policy = "all"', ("needs all parts", "200, one object; where two parts collide: 502", None)),
        ('policy = "any"', ("needs one part at least", None, "200")),
        ('policy = "first"', ("is the first part that succeeds; the others are given up", None, None)),
        ('policy = "quorum"\nquorum = 2', ("needs 2 of 2 parts", None, "200")),
        ('answer = "list"\nstatus = 201', (None, "201, one list", None)),
        ('merge = "deep"', (None, DEEP, None)),
        ('stream = "events"', (None, "200, server-sent events, part by part", None)),
    ],
)  # fmt: skip
def test_policies_and_answers(keys: str, told: tuple[str | None, str | None, str | None]) -> None:
    start = GATEWAY.partition("[[routes]]")[0] + '[[routes]]\nname = "r"\n[routes.aggregate]\n'
    parts = "".join(f'[routes.aggregate.parts.{name}]\nupstream = "orders"\n' for name in "ab")
    found = explain(loads(f"{start}{keys}\n{parts}").config, "GET", "/").aggregate
    assert found is not None
    policy, answer, partial = told
    assert policy is None or found.policy == policy
    assert answer is None or found.answer == answer
    assert found.partial == partial


def test_the_plan_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(GATEWAY)
    assert main(["explain", "-c", str(path), "--json", "GET", "/pages/7"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["upstream"] is found["split"] is found["forwarded"] is None
    assert [
        (one["name"], one["step"], one["needs"], one["group"]) for one in found["aggregate"]["parts"]
    ] == [
        ("order", 1, [], "order"),
        ("user", 2, ["order"], ""),
        ("skus", 2, ["order"], "items"),
        ("audit", 3, ["order", "skus"], None),
    ]


def test_what_replay_says_of_it(config: Config) -> None:
    asked = Asked("GET", "/pages/7", None)
    one = Decider(config).decide("main", asked)
    assert (one.route, one.upstream, one.status) == ("page", "orders + copy + users", None)
    assert one.forwarded == (
        "order: GET /orders/{path.id}?full=1&lang={query.lang}, user: POST /, skus: GET /items/{item.sku}, "
        "audit: POST /audit"
    )
    assert Decider(loads(GATEWAY.replace("full =", "all =")).config).decide("main", asked) != one


def test_what_the_admin_api_says_of_it(config: Config) -> None:
    view = view_routes(config).routes[0]
    assert (view.action, view.upstreams) == ("aggregate", ("orders", "copy", "users"))
    assert view_routes(config).routes[1].action == "upstream"


def test_what_diff_says_of_it(tmp_path: Path) -> None:
    paths = [tmp_path / "old.toml", tmp_path / "new.toml"]
    order, user = (
        GATEWAY.index("[routes.aggregate.parts.order]"),
        GATEWAY.index("[routes.aggregate.parts.user]"),
    )
    end = GATEWAY.index("[routes.aggregate.parts.skus]")
    other = GATEWAY[:order] + GATEWAY[user:end] + GATEWAY[order:user] + GATEWAY[end:]
    paths[0].write_text(GATEWAY)
    paths[1].write_text(other.replace('"/audit"', '"/log"').replace('"404" = 404', '"404" = 410'))
    (change,) = difference(*(load(str(path)).config.sources for path in paths)).items
    assert (change.kind, change.name, change.change) == ("route", "page", "changed")
    parts = "aggregate.parts"
    assert {one.key: (one.old, one.new) for one in change.keys} == {
        f"{parts} (order)": (["order", "user", "skus", "audit"], ["user", "order", "skus", "audit"]),
        f"{parts}.audit.path": ("/audit", "/log"),
        f"{parts}.order.statuses.404": (404, 410),
    }
    assert not difference(*[load(str(paths[0])).config.sources] * 2)


def test_a_secret_of_the_gateways_own_is_not_shown() -> None:
    text = GATEWAY.replace(
        'race = ["copy"]', 'headers = { X-Api-Key = "very-secret", Cookie = "s={cookie.s}" }'
    )
    told = describe(explain(loads(text).config, "GET", "/pages/7"))
    assert "very-secret" not in told
    assert "headers  X-Api-Key: <secret>; Cookie: s={cookie.s}; Authorization of the client" in told
