"""Exchanges that end, wait and go again at awkward moments: the core over transports in memory, where a test
decides what happens when. What it says of one request must not reach another, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from random import Random

from fuzz.memory import Transport
from fuzz.reader import Message, read_requests
from fuzz.scenario import Rig, UpstreamEnd, details, read_responses

from fastgate import _core

LISTENER = "[access_log]\nenabled = false\n[[listeners]]\nname = 'main'\nbind = '127.0.0.1:0'\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RETRY = "retry = { attempts = 4, on = ['reset', 'connect-failure'], backoff_base = '1ms', budget_min = 9 }\n"
HEDGE = 'hedge = { quantile = 50, min_delay = "1ms", max_percent = 100 }\n'


def upstream(name: str, port: int, options: str = "") -> str:
    return f"[upstreams.{name}]\nendpoints = ['127.0.0.1:{port}']\n{options}"


def route(path: str, upstream: str, options: str = "") -> str:
    return f"[[routes]]\nname = '{path}'\nmatch = {{ prefix = '{path}' }}\nupstream = '{upstream}'\n{options}"


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def received(end: UpstreamEnd) -> list[Message]:
    messages, rest = read_requests(bytes(end.transport.sent))
    assert rest in ("end", "short")
    return messages


def answers(client: Transport, count: int = 10) -> list[Message]:
    return read_responses(client, [b"GET"] * count)


def spin(rig: Rig) -> None:
    while rig.loop.run():
        pass


def pass_time(rig: Rig, milliseconds: int) -> None:
    _core.sample_time(rig.worker, milliseconds * 10**6)


def leave(rig: Rig, *clients: Transport) -> None:
    for client in clients[1:]:
        client.lose()
    rig.leave(clients[0])
    for running in rig.snapshot.upstreams.values():
        load = running.core.load
        assert (load.requests, load.retries, load.pending, load.connections) == (0, 0, 0, 0)


def test_body_that_a_dead_connection_did_not_take_is_sent_once_again() -> None:
    """It was kept for a retry when it was written to the connection that took nothing, and again when it went
    to the next one: a retry behind that would send it twice, and the second copy would be read as a
    request."""
    rig = Rig(LISTENER + upstream("a", 1, RETRY) + route("/", "a"))
    client = rig.client(0, 0)
    client.give(get("/first"))
    spin(rig)
    rig.upstreams[0].transport.give(OK)
    rig.upstreams[0].transport.doom()  # idle, and gone
    client.give(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    rig.loop.run()
    rig.loop.run()
    assert received(rig.upstreams[1])[0].body == b"hello"
    rig.upstreams[1].transport.lose(ConnectionResetError("reset"))
    spin(rig)
    pass_time(rig, 100)
    spin(rig)
    assert bytes(rig.upstreams[2].transport.sent).endswith(b"\r\n\r\nhello")
    rig.upstreams[2].transport.give(OK)
    assert [answer.body for answer in answers(client)] == [b"ok", b"ok"]
    leave(rig, client)


def hedged(rig: Rig, client: Transport) -> None:
    """So many requests that it is known what is slow."""
    for _ in range(40):
        client.give(get("/known"))
        spin(rig)
        rig.upstreams[0].transport.give(OK)
    client.sent.clear()
    time.sleep(0.11)  # what was known is asked for anew after 100 ms


def test_hedge_answers_while_the_first_attempt_is_to_be_sent_again() -> None:
    """The kept connection of the first attempt was closed by the endpoint while the hedge was under way. It
    must not wait for a new connection any more once the hedge has answered: it would be sent when that is
    there."""
    rig = Rig(LISTENER + upstream("a", 1, HEDGE) + route("/", "a"))
    client = rig.client(0, 0)
    hedged(rig, client)
    client.give(get("/slow"))
    pass_time(rig, 100)
    spin(rig)
    assert [message.line[1] for message in received(rig.upstreams[1])] == [b"/slow"]
    rig.upstreams[0].transport.lose(ConnectionResetError("reset"))
    rig.upstreams[1].transport.give(OK)
    spin(rig)
    assert len(answers(client)) == 1
    client.give(get("/next"))
    spin(rig)
    sent = [message.line[1] for end in rig.upstreams for message in received(end)]
    assert sent.count(b"/slow") == 2
    assert sent.count(b"/next") == 1
    leave(rig, client)


def test_second_hedge_that_fails_leaves_the_first_attempt_alone() -> None:
    """That an attempt once failed while its hedge was under way is no reason to give up the next one."""
    rig = Rig(LISTENER + upstream("a", 1, HEDGE + RETRY) + route("/", "a"))
    client = rig.client(0, 0)
    hedged(rig, client)
    client.give(get("/slow"))
    pass_time(rig, 100)
    spin(rig)
    reset = ConnectionResetError("reset")
    rig.upstreams[0].transport.give(b"HTTP")  # a byte of an answer: no keep-alive race
    rig.upstreams[0].transport.lose(reset)
    rig.upstreams[1].transport.lose(reset)  # the hedge as well: tried again, as configured
    pass_time(rig, 200)
    spin(rig)
    assert len(received(rig.upstreams[2])) == 1
    pass_time(rig, 400)
    spin(rig)
    assert len(received(rig.upstreams[3])) == 1, "the hedge of the second try"
    rig.upstreams[3].transport.lose(reset)
    pass_time(rig, 600)
    spin(rig)
    rig.upstreams[2].transport.give(OK)
    assert [answer.body for answer in answers(client)] == [b"ok"]
    sent = [message.line[1] for end in rig.upstreams for message in received(end)]
    assert sent.count(b"/slow") == 4
    leave(rig, client)


def test_drain_ends_what_ends_by_itself_once() -> None:
    """A copy that ends in the drain gives its place to the next, which may be over at once: that one must not
    be ended a second time, when its object stands for nobody, or for somebody else."""

    async def run() -> None:
        rig = Rig(
            LISTENER
            + upstream("a", 1)
            + upstream("shadow", 2, "concurrency = { limit = 1, queue = 100 }\n")
            + route("/", "a", "mirror = { upstream = 'shadow' }\n")
        )
        client = rig.client(0, 0)
        for _ in range(40):
            client.give(get())
            spin(rig)
            rig.upstreams[0].transport.give(OK)
        shadow = rig.snapshot.upstreams["shadow"]
        assert shadow.core.admission is not None
        assert shadow.core.admission.waiting == 39
        for endpoint in shadow.endpoints.values():
            shadow.health.set_operator(endpoint, "down", time.monotonic_ns())
        client.lose()
        drained = asyncio.ensure_future(rig.worker.drain(5))
        await asyncio.sleep(0)
        for end in rig.upstreams:
            end.transport.lose()
        spin(rig)
        await drained
        assert not any(rig.worker.census().values())

    asyncio.run(run())


def test_connect_that_is_cut_before_it_begins_is_counted_out() -> None:
    """At the end of a drain a request that is cut leaves its place to the next, for which a connect is begun
    and cut at once: before its first step."""

    async def run() -> None:
        rig = Rig(LISTENER + upstream("a", 1, "pool = { max_connections = 1 }\n") + route("/", "a"))
        clients = [rig.client(0, 0) for _ in range(20)]
        for client in clients:
            client.give(get())
            spin(rig)
        drained = asyncio.ensure_future(rig.worker.drain(0))
        for _ in range(10):
            await asyncio.sleep(0.01)
            spin(rig)
        async with asyncio.timeout(1):
            await drained
        assert not any(rig.worker.census().values())

    asyncio.run(run())


def test_evictions_do_not_nest() -> None:
    """Who is sent away from a full queue may have its next request here already, which sends away another,
    whose ...: as many as there are clients, on one stack."""

    def run() -> None:
        rig = Rig(
            LISTENER
            + upstream("a", 1, "concurrency = { limit = 1, queue = 3000, order = 'newest-first' }\n")
            + route("/", "a")
        )
        clients = [rig.client(0, 0) for _ in range(3002)]
        for client in clients[:-1]:
            client.give(get() * 2)
        clients[-1].give(get())
        codes.append([details(answer) for answer in answers(clients[1], 1)])
        leave(rig, *clients)

    codes: list[list[str]] = []
    before = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert codes == [["overloaded"]]


def chunked(path: str, *parts: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body


def test_body_outlives_what_its_copy_sets_off() -> None:
    """The copy of a request pushes another out of a queue, and that one's client has its next request here
    already, whose body is gathered where the first body still stands."""
    rig = Rig(
        LISTENER
        + upstream("a", 1, "concurrency = { limit = 1, queue = 2 }\n")
        + upstream("b", 2)
        + route("/low", "a", "priority = 'sheddable'\n")
        + route("/mid", "a")
        + route("/other", "b")
        + route("/high", "b", "priority = 'critical'\nmirror = { upstream = 'a' }\n")
    )
    first, second, low, high = (rig.client(0, 0) for _ in range(4))
    first.give(get("/mid"))
    low.give(get("/low") + chunked("/other", b"other ", b"other ", b"other "))
    second.give(get("/mid"))
    head, body = chunked("/high", b"high ", b"high ", b"high ").split(b"\r\n\r\n", 1)
    high.give(head + b"\r\n\r\n")
    spin(rig)
    assert not answers(low)
    high.give(body)
    assert [details(answer) for answer in answers(low, 1)] == ["overloaded"]
    spin(rig)
    bodies = {message.line[1]: message.body for end in rig.upstreams for message in received(end)}
    assert bodies[b"/high"] == b"high high high "
    assert bodies[b"/other"] == b"other other other "
    leave(rig, first, second, low, high)


def test_copy_of_a_request_whose_body_came_before_its_connection() -> None:
    rig = Rig(
        LISTENER
        + upstream("a", 1)
        + upstream("shadow", 2)
        + route("/", "a", "mirror = { upstream = 'shadow' }\n")
    )
    client = rig.client(0, 0)
    client.give(chunked("/", b"hello ", b"world"))
    spin(rig)
    assert [end.port for end in rig.upstreams] == [1, 2]
    assert [received(end)[0].body for end in rig.upstreams] == [b"hello world"] * 2
    leave(rig, client)


def test_client_whose_request_is_whole_is_read_on() -> None:
    """Else nobody sees that it leaves while its request waits."""
    rig = Rig(LISTENER + upstream("a", 1, "concurrency = { limit = 1 }\n") + route("/", "a"))
    first, second = rig.client(0, 0), rig.client(0, 0)
    first.give(get())
    spin(rig)
    second.give(chunked("/", b"hello ", b"world"))
    assert not second.paused
    leave(rig, first, second)


def test_queue_is_bounded_where_the_breaker_caps_the_connections() -> None:
    caps = "breaker = { max_connections = 1 }\npool = { max_connections = 100, queue = 2 }\n"
    rig = Rig(LISTENER + upstream("a", 1, caps) + route("/", "a"))
    clients = [rig.client(0, 0) for _ in range(6)]
    for client in clients:
        client.give(get())
        spin(rig)
    assert [[details(answer) for answer in answers(client)] for client in clients] == [[]] * 3 + [
        ["queue-full"]
    ] * 3
    leave(rig, *clients)


def test_copy_tells_of_the_same_client() -> None:
    listener = LISTENER + "trusted_proxies = ['192.0.2.0/24']\nforwarded = ['x-forwarded']\n"
    rig = Rig(
        listener
        + upstream("a", 1)
        + upstream("shadow", 2)
        + route("/", "a", "mirror = { upstream = 'shadow' }\n")
    )
    client = rig.client(0, 0)
    client.give(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n")
    spin(rig)
    told = [received(end)[0].values(b"x-forwarded-for") for end in rig.upstreams]
    assert told == [[b"198.51.100.7, 192.0.2.1"]] * 2
    leave(rig, client)


def test_connect_to_an_endpoint_that_is_gone_is_cut_as_well() -> None:
    """Discovery has taken it away since: the upstream does not know it any more, the worker must."""

    async def run() -> None:
        rig = Rig(LISTENER + upstream("a", 1) + route("/", "a"))
        client = rig.client(0, 0)
        client.give(get())
        rig.snapshot.upstreams["a"]._publish(())
        drained = asyncio.ensure_future(rig.worker.drain(0))
        await asyncio.sleep(0.05)
        for _ in range(10):
            await asyncio.sleep(0.01)
            spin(rig)
        async with asyncio.timeout(1):
            await drained
        assert not rig.upstreams, "a connection was made behind the end"
        assert not any(rig.worker.census().values())

    asyncio.run(run())


def test_latency_of_an_answer_that_was_thrown_away_is_forgotten() -> None:
    """What is told to an adaptive limit: the second try has had no answer, and the first one's was quick."""
    options = "concurrency = { adaptive = true, min = 1 }\n"
    options += "retry = { attempts = 2, on = ['status'], backoff_base = '1ms' }\n"
    rig = Rig(LISTENER + upstream("a", 1, options) + route("/", "a"))
    admission = rig.snapshot.upstreams["a"].core.admission
    assert admission is not None
    gradient = admission.gradient
    assert gradient is not None
    for _ in range(3):
        client = rig.client(0, 0)
        client.give(get())
        spin(rig)
        rig.upstreams[-1].transport.give(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        pass_time(rig, 200)
        spin(rig)
        client.lose()
        spin(rig)
    assert gradient.samples == 0
    leave(rig, rig.client(0, 0))


def test_body_in_many_pieces_is_sent_again_whole() -> None:
    options = "retry = { attempts = 3, on = ['reset'], backoff_base = '1ms', body_limit = '1MiB' }\n"
    rig = Rig(LISTENER + upstream("a", 1, options) + route("/", "a"))
    client = rig.client(0, 0)
    body = Random(0).randbytes(300_000)
    client.give(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
    spin(rig)
    for at in range(0, 200_000, 1000):
        client.give(body[at : at + 1000])
    for number in range(2):
        rig.upstreams[number].transport.lose(ConnectionResetError("reset"))
        pass_time(rig, 200 * (number + 1))
        spin(rig)
    for at in range(200_000, 300_000, 1000):
        client.give(body[at : at + 1000])
    assert received(rig.upstreams[2])[0].body == body
    leave(rig, client)
