"""Aggregation in Python, without a socket: parts, policies, bounds, values."""

# ruff: noqa: PT012  # leaving a block of parts is what raises

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, assert_type

import pytest
from msgspec import Struct

from fastgate.plugins import Gather, Mapped, Part, PartsFailed
from fastgate.testing import Answer, FakeServices, Fields, Seen, fake_exchange


class User(Struct):
    id: int
    name: str


@dataclass
class Order:
    id: int
    total: Decimal


@pytest.fixture
def services() -> FakeServices:
    return FakeServices("users", "orders", "offers")


def failed(caught: pytest.ExceptionInfo[PartsFailed]) -> tuple[int, str, dict[str, str]]:
    error = caught.value
    return error.status, error.code, {name: one.reason for name, one in error.parts.items()}


# -- the block


async def test_parts_are_there_at_its_end(services: FakeServices) -> None:
    services["users"].reply(json={"id": 7, "name": "ann"}, headers={"x-a": "1"})
    services["orders"].reply(json=[{"id": 1, "total": 2.5}])
    async with services.gather() as g:
        user = g.get("users", "/users/{}", 7, type=User)
        orders = g.get("orders", "/orders", type=list[Order])
        assert not user.done
        with pytest.raises(RuntimeError, match="under way"):
            _ = user.value
    assert user.value == User(7, "ann")
    assert orders.value == [Order(1, Decimal("2.5"))]
    assert (user.ok, user.failure, user.status, user.headers["x-a"]) == (True, None, 200, "1")
    assert list(g.parts) == ["users", "orders"]
    assert not g.partial


async def test_they_are_asked_at_the_same_time(services: FakeServices) -> None:
    for name in ("users", "orders", "offers"):
        services[name].fail("delay", seconds=1.0)
    async with services.gather() as g:
        for name in ("users", "orders", "offers"):
            g.get(name, "/", type=None)
    assert services.now() == 1.0


async def test_a_sequence(services: FakeServices) -> None:
    services["users"].reply(json={"id": 7, "name": "ann"})
    services["offers"].fail("delay", seconds=1.0)
    async with services.gather() as g:
        g.get("offers", "/", type=None)
        user = await g.get("users", "/me", type=User)
        g.get("orders", "/of/{}", user.id, type=None)
        assert services.now() == 0
    assert services["orders"].requests[0].target == "/of/7"


async def test_wait_and_await_of_several(services: FakeServices) -> None:
    services["users"].reply(json=1)
    services["orders"].reply(json=2)
    async with services.gather() as g:
        one, two = g.get("users", "/"), g.get("orders", "/")
        assert list(await asyncio.gather(one, two)) == [1, 2]
        three = g.get("users", "/3")
        await g.wait()
        assert three.value == 1
        assert await three == 1


async def test_a_waiter_that_gives_up_takes_nothing_away(services: FakeServices) -> None:
    services["users"].fail("delay", seconds=1.0)
    async with services.gather() as g:
        part = g.get("users", "/", type=None)

        async def wait() -> None:
            await part

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert part.ok


async def test_nothing_is_asked_outside(services: FakeServices) -> None:
    g = services.gather()
    with pytest.raises(RuntimeError, match="within the block"):
        g.get("users", "/")
    async with g:
        pass
    with pytest.raises(RuntimeError, match="within the block"):
        g.get("users", "/")
    with pytest.raises(RuntimeError, match="entered once"):
        async with g:
            pass
    assert services["users"].requests == []


async def test_names(services: FakeServices) -> None:
    async with services.gather() as g:
        for _ in range(2):
            g.post("users", "/", type=None)
        g.get("users", "/", type=None, name="me")
    assert list(g.parts) == ["users", "users-2", "me"]


async def test_an_exception_gives_up_what_is_under_way(services: FakeServices) -> None:
    asked = await abandoned_by(services, KeyError("mine"))
    assert asked == 1


async def abandoned_by(services: FakeServices, error: BaseException) -> int:
    """How many requests were under way when it was raised; after it none is."""
    before = asyncio.all_tasks()
    services["users"].fail("hang")
    with pytest.raises(type(error)):
        async with services.gather() as g:
            part = g.get("users", "/")
            await services["users"].received()
            raise error
    assert part.done
    assert not part.ok
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    return len(services["users"].requests)


async def test_a_cancellation_gives_up_what_is_under_way(services: FakeServices) -> None:
    before = asyncio.all_tasks()
    services["users"].fail("hang")

    async def aggregate() -> None:
        async with services.gather(timeout=1e6) as g:
            g.get("users", "/", timeout=1e6)

    task = asyncio.create_task(aggregate())
    await services["users"].received()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert services.now() == 0


async def test_no_circle_is_left(services: FakeServices) -> None:
    async def aggregate() -> list[weakref.ref[Any]]:
        async with services.gather() as g:
            part = g.get("users", "/", type=None)
            mapped = g.map([1, 2], functools.partial(g.get, "users", "/{}", type=None))
        return [weakref.ref(part), weakref.ref(g), weakref.ref(mapped)]

    gc.disable()
    try:
        gone = await aggregate()
        await asyncio.sleep(0)
        assert [each() for each in gone] == [None, None, None]
    finally:
        gc.enable()


async def test_types_of_values(services: FakeServices) -> None:
    """Told apart by mypy."""
    async with services.gather() as g:
        assert_type(g.get("users", "/", type=User, required=False), Part[User | None])
        assert_type(g.get("users", "/", type=User, required=False, default=User(0, "")), Part[User])
        assert_type(g.get("users", "/", type=list[User], required=False, default=[]), Part[list[User]])
        assert_type(g.get("users", "/", required=False), Part[Any])
        services["users"].reply(json={"id": 7, "name": "ann"})
        user = g.get("users", "/7", type=User)
        assert_type(user, Part[User])
        assert_type(g.map([1], lambda item: g.get("users", "/7", type=User)), Mapped[User])
        assert_type(await user, User)


# -- failures


FAULTS: dict[str, tuple[Callable[[FakeServices], None], str, int]] = {
    "refused": (lambda s: s["users"].fail("refuse"), "connect-refused", 502),
    "reset": (lambda s: s["users"].fail("reset"), "upstream-reset", 502),
    "truncated": (lambda s: s["users"].fail("truncate"), "upstream-truncated", 502),
    "hang": (lambda s: s["users"].fail("hang"), "part-timeout", 504),
    "500": (lambda s: s["users"].reply(500), "part-status", 502),
    "404": (lambda s: s["users"].reply(404), "part-status", 502),
    "no json": (lambda s: s["users"].reply(body="{"), "part-body", 502),
    "empty": (lambda s: s["users"].reply(body=""), "part-body", 502),
    "no utf-8": (lambda s: s["users"].reply(body=b'{"id":7,"name":"ann","x":"\xff"}'), "part-body", 502),
    "too deep": (lambda s: s["users"].reply(body=b'{"x":' + b"[" * 90_000), "part-body", 502),
    "coded": (
        lambda s: s["users"].reply(body=b"\x1f\x8b", headers={"content-encoding": "gzip"}),
        "part-body",
        502,
    ),
    "wrong type": (lambda s: s["users"].reply(json={"id": "7", "name": "ann"}), "part-type", 502),
    "too large": (lambda s: s["users"].reply(body=b" " * 100_001), "part-too-large", 502),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_required_part_that_fails(services: FakeServices, fault: str) -> None:
    plan, reason, status = FAULTS[fault]
    plan(services)
    services["orders"].fail("delay", seconds=3.0)
    with pytest.raises(PartsFailed) as caught:
        async with services.gather() as g:
            user = g.get("users", "/", type=User, timeout=1.0, max_body=100_000)
            orders = g.get("orders", "/", type=None)
    code = "aggregate-timeout" if status == 504 else "aggregate-failed"
    assert failed(caught) == (status, code, {"users": reason})
    assert not user.ok
    assert (orders.ok, orders.failure, orders.done) == (False, None, True)
    assert services.now() < 3


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_optional_part_that_fails(services: FakeServices, fault: str) -> None:
    plan, reason, _ = FAULTS[fault]
    plan(services)
    nobody = User(0, "nobody")
    async with services.gather() as g:
        user = g.get("users", "/", type=User, required=False, default=nobody, timeout=1.0, max_body=100_000)
        bare = g.get("users", "/", type=User, required=False, timeout=1.0, max_body=100_000)
        orders = g.get("orders", "/", type=None)
    assert user.value is nobody
    assert bare.value is None
    assert orders.ok
    assert user.failure is not None
    assert user.failure.reason == reason
    assert g.failures.keys() == {"users", "users-2"}
    assert g.partial == f'"users";reason={reason}, "users-2";reason={reason}'
    assert g.cache_control() == "no-store"


async def test_a_failure_ends_the_block_at_its_next_step(services: FakeServices) -> None:
    services["users"].fail("refuse")
    services["orders"].fail("hang")
    steps = []
    with pytest.raises(PartsFailed):
        async with services.gather() as g:
            g.get("users", "/")
            orders = g.get("orders", "/")
            try:
                await orders
            except PartsFailed:
                steps.append("await")
            try:
                g.get("offers", "/")
            except PartsFailed:
                steps.append("get")
    assert steps == ["await", "get"]
    assert services["offers"].requests == []
    assert services.now() == 0


async def test_the_time_of_the_whole(services: FakeServices) -> None:
    services["users"].fail("delay", seconds=0.4)
    services["orders"].fail("hang")
    with pytest.raises(PartsFailed) as caught:
        async with services.gather(timeout=1.0) as g:
            await g.get("users", "/", type=None)
            await g.get("orders", "/", timeout=5.0)
    assert failed(caught) == (504, "aggregate-timeout", {"orders": "part-timeout"})
    assert services.now() == 1.0


async def test_a_part_that_comes_too_late_is_not_sent(services: FakeServices) -> None:
    services["users"].fail("hang")
    async with services.gather(timeout=1.0) as g:
        await g.get("users", "/", required=False)
        late = g.get("orders", "/", required=False)
    assert late.failure is not None
    assert late.failure.reason == "part-timeout"
    assert services["orders"].requests == []


@pytest.mark.parametrize(
    ("statuses", "plan", "status"),
    [
        ({404: 404}, lambda s: s.reply(404), 404),
        ({"404": 410}, lambda s: s.reply(404), 410),
        ({"4xx": 400, 404: 404}, lambda s: s.reply(404), 404),
        ({"4xx": 400}, lambda s: s.reply(409), 400),
        ({404: 404}, lambda s: s.reply(500), 502),
        ({"failure": 503}, lambda s: s.reply(500), 503),
        ({"failure": 503}, lambda s: s.fail("refuse"), 503),
        ({"failure": 503}, lambda s: s.fail("hang"), 503),
        ({"failure": 503, "timeout": 500}, lambda s: s.fail("hang"), 500),
        ({404: 503}, lambda s: s.fail("hang"), 504),
        ({"timeout": 503}, lambda s: s.fail("hang"), 503),
    ],
)
async def test_statuses(services: FakeServices, statuses: Any, plan: Any, status: int) -> None:
    plan(services["users"])
    with pytest.raises(PartsFailed) as caught:
        async with services.gather() as g:
            g.get("users", "/", statuses=statuses)
    assert caught.value.status == status


@pytest.mark.parametrize("statuses", [{"40x": 404}, {999: 404}, {"slow": 504}, {404: 200}, {404: 600}])
async def test_statuses_that_are_none(services: FakeServices, statuses: Any) -> None:
    with pytest.raises(ValueError, match="statuses"):
        async with services.gather() as g:
            g.get("users", "/", statuses=statuses)


async def test_success(services: FakeServices) -> None:
    services["users"].reply(404, json={"error": 1})
    async with services.gather() as g:
        user = g.get("users", "/", success={200, 404})
    assert user.ok
    assert (user.status, user.value) == (404, {"error": 1})


async def test_an_upstream_that_is_not_there(services: FakeServices) -> None:
    with pytest.raises(LookupError, match="nobody"):
        async with services.gather() as g:
            g.get("nobody", "/")


async def test_a_defect_of_the_program_is_raised_as_it_is(services: FakeServices) -> None:
    class Bad(Struct):
        def __post_init__(self) -> None:
            raise ZeroDivisionError

    services["users"].reply(json={})
    with pytest.raises(ZeroDivisionError):
        async with services.gather() as g:
            g.get("users", "/", type=Bad, required=False)

    def broken(seen: Seen) -> Answer:
        raise ZeroDivisionError

    services["users"].handle(broken)
    with pytest.raises(ZeroDivisionError):
        async with services.gather() as g:
            g.get("users", "/", required=False)


# -- policies


async def ask_three(services: FakeServices, **options: Any) -> list[Part[Any]]:
    """users, orders, offers: none of them required."""
    async with services.gather(**options) as g:
        parts = [g.get(name, "/", type=None, required=False) for name in ("users", "orders", "offers")]
    return parts


async def test_all(services: FakeServices) -> None:
    assert all(part.ok for part in await ask_three(services, policy="all"))
    services["orders"].fail("refuse")
    with pytest.raises(PartsFailed) as caught:
        await ask_three(services, policy="all")
    assert failed(caught)[2] == {"orders": "connect-refused"}


async def test_any(services: FakeServices) -> None:
    services["users"].reply(500)
    services["orders"].fail("hang")
    assert [part.ok for part in await ask_three(services, policy="any")] == [False, False, True]
    services["offers"].reply(404)
    with pytest.raises(PartsFailed) as caught:
        await ask_three(services, policy="any")
    assert failed(caught) == (
        502,
        "aggregate-failed",
        {"users": "part-status", "orders": "part-timeout", "offers": "part-status"},
    )


async def test_any_where_all_are_too_slow(services: FakeServices) -> None:
    for name in ("users", "orders", "offers"):
        services[name].fail("hang")
    with pytest.raises(PartsFailed) as caught:
        await ask_three(services, policy="any")
    assert failed(caught)[:2] == (504, "aggregate-timeout")


async def test_any_of_none(services: FakeServices) -> None:
    with pytest.raises(PartsFailed, match="too few"):
        async with services.gather(policy="any"):
            pass


async def test_first(services: FakeServices) -> None:
    services["users"].fail("refuse")
    services["orders"].reply(json="orders")
    services["orders"].fail("delay", seconds=1.0)
    services["offers"].fail("hang")
    async with services.gather(policy="first") as g:
        parts = [g.get(name, "/") for name in ("users", "orders", "offers")]
        await g.wait()
        late = g.get("users", "/late", default=3)
    assert g.first is parts[1]
    assert g.first.value == "orders"
    assert [part.ok for part in parts] == [False, True, False]
    assert parts[2].failure is None
    assert (late.value, late.ok) == (3, False)
    assert services["users"].requests == []
    assert services.now() == 1.0


async def test_first_of_those_that_fail(services: FakeServices) -> None:
    for name in ("users", "orders", "offers"):
        services[name].reply(500)
    with pytest.raises(PartsFailed) as caught:
        await ask_three(services, policy="first")
    assert len(caught.value.parts) == 3


async def test_quorum(services: FakeServices) -> None:
    services["users"].reply(500)
    parts = await ask_three(services, policy="quorum", quorum=2)
    assert [part.ok for part in parts] == [False, True, True]
    services["orders"].fail("refuse")
    services["offers"].fail("hang")
    with pytest.raises(PartsFailed) as caught:
        await ask_three(services, policy="quorum", quorum=2)
    assert failed(caught)[2] == {"users": "part-status", "orders": "connect-refused"}
    assert services.now() == 0  # the third could not have saved it


def test_policies_that_are_none(services: FakeServices) -> None:
    with pytest.raises(ValueError, match="policy"):
        services.gather(policy="some")
    with pytest.raises(ValueError, match="timeout"):
        services.gather(timeout=0)


# -- bounds


async def test_max_parts(services: FakeServices) -> None:
    with pytest.raises(RuntimeError, match="more than 2 parts"):
        async with services.gather(max_parts=2) as g:
            for number in range(3):
                g.get("users", "/{}", number, type=None)
    assert len(services["users"].requests) <= 2


async def test_memory_of_all(services: FakeServices) -> None:
    services["users"].reply(body=b"x" * 600)
    with pytest.raises(PartsFailed) as caught:
        async with services.gather(max_memory=1000) as g:
            for number in range(2):
                g.get("users", "/{}", number, type=bytes, required=False)
    status, code, parts = failed(caught)
    assert (status, code, set(parts.values())) == (502, "aggregate-memory", {"aggregate-memory"})


async def test_a_body_of_just_the_limit(services: FakeServices) -> None:
    services["users"].reply(body=b"x" * 600)
    async with services.gather(max_memory=600) as g:
        part = g.get("users", "/", type=bytes, max_body=600)
    assert len(part.value) == 600


# -- the same request


async def test_what_is_the_same_is_sent_once(services: FakeServices) -> None:
    services["users"].reply(json={"id": 7, "name": "ann"})
    async with services.gather(max_memory=30) as g:
        one = g.get("users", "/7", type=User)
        two = g.get("users", "/7")
        await one
        three = g.get("users", "/7", type=bytes)
        g.get("users", "/8", type=None, required=False, max_body=0)
        g.get("users", "/7", type=None, headers={"x": "1"}, required=False, max_body=0)
    assert (one.value, two.value) == (User(7, "ann"), {"id": 7, "name": "ann"})
    assert three.value == b'{"id":7,"name":"ann"}'
    assert [seen.target for seen in services["users"].requests] == ["/7", "/8", "/7"]


async def test_what_has_failed_is_asked_again(services: FakeServices) -> None:
    services["users"].fail("reset", times=1)
    async with services.gather() as g:
        assert await g.get("users", "/", type=str, required=False, default="none") == "none"
        assert await g.get("users", "/", type=str, required=False, default="none") == ""


async def test_posts_are_never_the_same(services: FakeServices) -> None:
    async with services.gather() as g:
        for _ in range(2):
            g.post("orders", "/", json={"a": 1}, type=None)
    assert len(services["orders"].requests) == 2


# -- kept answers


async def test_kept_answers(services: FakeServices) -> None:
    services["users"].reply(
        json={"id": 7, "name": "ann"}, headers={"Cache-Control": "max-age=30", "Age": "10"}
    )

    async def ages(seconds: float) -> list[str | None]:
        async with services.gather() as g:
            parts = [g.get("users", "/7", type=User, cache=seconds) for _ in range(2)]
        assert [part.value.name for part in parts] == ["ann", "ann"]
        return [part.headers.get("age") for part in parts]

    assert await ages(60) == ["10", "10"]
    await services._time.sleep(15)
    assert await ages(60) == ["25", "25"]
    assert len(services["users"].requests) == 1
    await services._time.sleep(6)  # it is stale
    assert await ages(60) == ["10", "10"]
    await services._time.sleep(1)
    assert await ages(0) == ["10", "10"]  # who keeps nothing is given nothing that is kept
    assert len(services["users"].requests) == 3


@pytest.mark.parametrize(
    "plan",
    [
        {"headers": {"Cache-Control": "private"}},
        {"headers": {"Cache-Control": "no-store"}},
        {"headers": {"Set-Cookie": "a=b"}},
        {"status": 404},
        {"body": b"{"},
    ],
)
async def test_answers_that_are_not_kept(services: FakeServices, plan: dict[str, Any]) -> None:
    services["users"].reply(**{"body": b"{}", **plan})
    for _ in range(2):
        async with services.gather() as g:
            g.get("users", "/7", required=False, cache=60)
    assert len(services["users"].requests) == 2


async def test_what_is_kept_takes_memory_too(services: FakeServices) -> None:
    services["users"].reply(body=b"x" * 600)
    async with services.gather() as g:
        g.get("users", "/7", type=bytes, cache=60)
    with pytest.raises(PartsFailed) as caught:
        async with services.gather(max_memory=500) as g:
            g.get("users", "/7", type=bytes, cache=60)
    assert failed(caught)[1] == "aggregate-memory"


async def test_a_kept_element_over_the_memory_is_told_as_its_whole(services: FakeServices) -> None:
    services["users"].reply(body=b"x" * 600)

    async def ask(memory: int) -> None:
        async with services.gather(max_memory=memory) as g:
            g.map([7], lambda id: g.get("users", "/{}", id, type=bytes, cache=60), name="all")

    await ask(600)
    with pytest.raises(PartsFailed) as caught:
        await ask(500)
    assert failed(caught) == (502, "aggregate-memory", {"all": "aggregate-memory"})
    assert len(services["users"].requests) == 1


async def test_one_of_several_that_are_the_same_is_to_be_kept(services: FakeServices) -> None:
    for _ in range(2):
        async with services.gather() as g:
            parts = [g.get("users", "/7", type=str, cache=seconds) for seconds in (0.0, 60.0, 0.0)]
        assert [part.ok for part in parts] == [True] * 3
    assert len(services["users"].requests) == 2  # for the first part of the second block, not for its second

    async with services.gather() as g:
        assert await g.get("users", "/7", type=str, cache=60) == ""
    assert len(services["users"].requests) == 2


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
async def test_no_time_to_keep_an_answer(services: FakeServices, seconds: float) -> None:
    with pytest.raises(ValueError, match="no time to keep an answer"):
        async with services.gather() as g:
            g.get("users", "/7", cache=seconds)
    assert services["users"].requests == []


async def test_a_post_is_not_kept(services: FakeServices) -> None:
    for _ in range(2):
        async with services.gather() as g:
            g.post("orders", "/", type=None, cache=60)
    assert len(services["orders"].requests) == 2


# -- for each


async def test_map_keeps_the_order(services: FakeServices) -> None:
    active, most = 0, 0
    turn = asyncio.Event()

    async def answer(seen: Seen) -> Answer:
        nonlocal active, most
        active += 1
        most = max(most, active)
        if seen.target == "/0":
            await turn.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        active -= 1
        if seen.target == "/99":
            turn.set()
        return Answer(200, Fields(()), seen.target[1:].encode())

    services["users"].handle(answer)
    async with services.gather(max_parts=1) as g:
        users = g.map(range(100), lambda item: g.get("users", "/{}", item, type=int), concurrency=4)
    assert users.value == list(range(100))
    assert most == 4
    assert [part.name for part in users.parts[:2]] == ["map[0]", "map[1]"]
    assert users.ok


async def test_map_of_nothing(services: FakeServices) -> None:
    async with services.gather() as g:
        users = g.map([], lambda item: g.get("users", "/{}", item))
        assert await users == []
    assert users.ok


async def test_an_element_that_is_required_fails_the_whole(services: FakeServices) -> None:
    services["users"].handle(lambda seen: Answer(404 if seen.target == "/2" else 200, Fields(()), b"1"))

    async def ask(**options: Any) -> Any:
        async with services.gather() as g:
            return g.map(
                range(5),
                lambda item: g.get("users", "/{}", item, statuses={404: 410}),
                concurrency=1,
                name="them",
                **options,
            )

    with pytest.raises(PartsFailed) as caught:
        await ask()
    assert failed(caught) == (410, "aggregate-failed", {"them": "part-status"})
    assert "them[2]" in str(caught.value)
    assert len(services["users"].requests) == 3
    users = await ask(required=False, default=[])
    assert users.value == []
    assert not users.ok


async def test_an_element_that_is_not_has_its_default(services: FakeServices) -> None:
    services["users"].handle(lambda seen: Answer(404 if seen.target == "/2" else 200, Fields(()), b"1"))
    async with services.gather() as g:
        users = g.map(range(4), lambda item: g.get("users", "/{}", item, required=False, default=0))
    assert users.value == [1, 1, 0, 1]
    assert users.ok
    assert g.partial == '"map";reason=part-status'
    assert [part.value for part in users.parts if part.ok] == [1, 1, 1]


async def test_elements_whose_values_cannot_stand_there(services: FakeServices) -> None:
    async with services.gather() as g:
        users = g.map(
            ["a", None, "..", "b"],
            lambda item: g.get("users", "/{}", item, type=str, required=False),
            concurrency=1,
        )
    assert users.value == ["", None, None, ""]
    assert [seen.target for seen in services["users"].requests] == ["/a", "/b"]


async def test_too_many_elements(services: FakeServices) -> None:
    with pytest.raises(PartsFailed) as caught:
        async with services.gather() as g:
            g.map(range(101), lambda item: g.get("users", "/{}", item))
    assert failed(caught)[2] == {"map": "part-too-large"}
    assert services["users"].requests == []


async def test_elements_that_are_the_same_are_sent_once(services: FakeServices) -> None:
    services["users"].reply(json=1)
    async with services.gather() as g:
        users = g.map([7, 8] * 40, lambda item: g.get("users", "/{}", item), concurrency=3)
    assert users.value == [1] * 80
    assert sorted(seen.target for seen in services["users"].requests) == ["/7", "/8"]


async def test_what_map_is_given_makes_one_part(services: FakeServices) -> None:
    async with services.gather() as g:
        other = g.get("users", "/", type=None)
    for make in (lambda g, item: None, lambda g, item: other, lambda g, item: twice(g)):
        with pytest.raises(TypeError, match="asks for one part"):
            async with services.gather() as g:
                g.map([1], lambda item, g=g, make=make: make(g, item))  # type: ignore[misc]


def twice(g: Gather) -> Part[Any]:
    g.post("users", "/")
    return g.post("users", "/")


async def test_what_map_is_given_raises(services: FakeServices) -> None:
    def make(item: int) -> Part[Any]:
        if item == 2:
            raise ZeroDivisionError
        return g.get("users", "/{}", item, type=None)

    with pytest.raises(ZeroDivisionError):
        async with services.gather() as g:
            g.map(range(5), make, concurrency=1, required=False)


async def test_first_gives_up_a_map(services: FakeServices) -> None:
    services["users"].fail("hang")
    async with services.gather(policy="first") as g:
        users = g.map(range(50), lambda item: g.get("users", "/{}", item))
        g.get("orders", "/", type=None)
    assert users.done
    assert not users.ok
    assert len(services["users"].requests) <= 16


# -- Cache-Control


async def test_cache_control_of_parts(services: FakeServices) -> None:
    services["users"].reply(headers={"cache-control": "max-age=60", "age": "20"})
    services["orders"].reply(headers={"cache-control": "max-age=50"})
    async with services.gather() as g:
        g.get("users", "/", type=None)
        g.map([1, 2], lambda item: g.get("orders", "/{}", item, type=None))
    assert g.cache_control() == "max-age=40"


# -- the exchange without a gateway


async def test_a_function_of_an_exchange(services: FakeServices) -> None:
    async def on_request(exchange: Any) -> Any:
        async with exchange.gather() as g:
            user = g.get("users", "/{}", exchange.captures["id"], query=exchange.request.raw_query, type=User)
        status = (await exchange.subrequest("orders", path="/x")).status
        return user.value, status, exchange.request.cookies, await exchange.request.json()

    services["users"].reply(json={"id": 7, "name": "ann"})
    exchange = fake_exchange(
        services, target="/me?a=1", headers={"Cookie": "a=b; c"}, body=b"[1]", captures={"id": "7"}
    )
    made: Awaitable[Any] = on_request(exchange)
    assert await made == (User(7, "ann"), 200, {"a": "b"}, [1])
    assert services["users"].requests[0].target == "/7?a=1"


async def test_the_answer_of_a_failure(services: FakeServices) -> None:
    services["users"].reply(500)
    services["orders"].fail("refuse")
    with pytest.raises(PartsFailed) as caught:
        async with services.gather() as g:
            g.get("orders", "/", required=False)
            g.get("users", "/")
    answer = caught.value.answer(fake_exchange())
    body = Answer(answer.status, Fields(answer.headers.items()), answer.body)
    assert (body.status, body.code) == (502, "aggregate-failed")
    assert body.json()["parts"] == [
        {"part": "users", "reason": "part-status", "status": 500},
        {"part": "orders", "reason": "connect-refused"},
    ]
