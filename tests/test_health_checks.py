"""Active health checks: what is asked, how an answer is judged, and when."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h11
import pytest
from support.clock import ManualClock
from support.upstream import Upstream, free_port, reply, reset, send, wait_for

from fastgate.upstreams.events import Events
from fastgate.upstreams.health import Checked, HealthChecker, ProbeAnswer, ProbeError, probe_head
from fastgate.upstreams.source import EndpointSpec

MS = 1_000_000
SECOND = 1000 * MS
StartUpstream = Callable[..., Upstream]


@dataclass(frozen=True)
class Check:
    type: Literal["http", "tcp"] = "http"
    path: str = "/healthz"
    method: Literal["GET", "HEAD"] = "GET"
    host: str = ""
    expect: tuple[tuple[int, int], ...] = ((200, 399),)
    body: str = ""
    interval: int = 5 * SECOND
    jitter: float = 10
    timeout: int = 10 * SECOND


def spec(address: str, **fields: Any) -> EndpointSpec:
    if address.startswith("unix:"):
        return EndpointSpec(address, "", 0, address[5:], **fields)
    host, _, port = address.rpartition(":")
    return EndpointSpec(address, host.strip("[]"), int(port), None, **fields)


async def probe(endpoint: Checked, head: bytes, seconds: float, body_limit: int) -> ProbeAnswer:
    """A simple client in place of the gateway's pools."""
    try:
        reader, writer = await (
            asyncio.open_unix_connection(endpoint.unix_path)
            if endpoint.unix_path is not None
            else asyncio.open_connection(endpoint.host, endpoint.port)
        )
    except OSError:
        raise ProbeError("refused") from None
    try:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=head.split()[0], target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        writer.write(head)
        status, fields, body = 0, [], b""
        while True:
            event = client.next_event()
            if event is h11.NEED_DATA:
                client.receive_data(await reader.read(65_536))
            elif isinstance(event, h11.Response):
                status = event.status_code
                fields = [(name.decode(), value.decode()) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return ProbeAnswer(status, fields, body[:body_limit])
    except (OSError, h11.RemoteProtocolError) as error:
        raise ProbeError(type(error).__name__) from None
    finally:
        writer.close()


@dataclass
class Checking:
    """A checker that runs. results: (address, ok, why) of each check, to be awaited."""

    endpoints: list[EndpointSpec]
    clock: ManualClock
    checker: HealthChecker[EndpointSpec] = field(init=False)
    results: asyncio.Queue[tuple[str, bool, str]] = field(default_factory=asyncio.Queue)
    may_run: bool = True
    change: bool | None = None

    def report(self, endpoint: EndpointSpec, ok: bool, why: str) -> bool | None:
        self.results.put_nowait((endpoint.address, ok, why))
        return self.change

    async def result(self) -> tuple[str, bool, str]:
        return await asyncio.wait_for(self.results.get(), 10)

    async def idle(self) -> None:
        """Until every endpoint waits for its next check; the checker itself waits for news."""
        await self.clock.wait_asleep(len(self.endpoints) + 1)

    async def first(self) -> None:
        """The half second over which first checks are spread."""
        await self.idle()
        self.clock.advance(0.5)


@asynccontextmanager
async def checking(
    check: Check, *endpoints: EndpointSpec, using: Any = probe, slots: int = 64
) -> AsyncIterator[Checking]:
    running = Checking(list(endpoints), ManualClock())
    running.checker = HealthChecker(
        check,
        lambda: running.endpoints,
        using,
        running.report,
        Events("orders"),
        may_run=lambda: running.may_run,
        slots=asyncio.Semaphore(slots),
        clock=running.clock,
        rng=random.Random(1),
    )
    task = asyncio.get_running_loop().create_task(running.checker.run())
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    # Nothing of it is left.
    assert running.clock.asleep == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- what is asked


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ({}, "", "{address}"),
        ({}, "orders.internal", "orders.internal:{port}"),
        ({"host": "api.example.com"}, "orders.internal", "api.example.com"),
        ({"method": "HEAD", "path": "/x?deep=1"}, "", "{address}"),
    ],
)
async def test_the_request(
    start_upstream: StartUpstream, fields: dict[str, Any], name: str, expected: str
) -> None:
    upstream = start_upstream()
    check = Check(**fields)
    upstream.script(reply(200))
    async with checking(check, spec(upstream.address, name=name)) as running:
        await running.first()
        assert await running.result() == (upstream.address, True, "")
    (request,) = upstream.requests
    assert (request.method, request.target, request.version) == (check.method, check.path, "1.1")
    port = upstream.address.rpartition(":")[2]
    assert request.fields == (
        ("Host", expected.format(address=upstream.address, port=port)),
        ("User-Agent", "fastgate-health"),
        ("Accept", "*/*"),
    )


@pytest.mark.parametrize(
    ("address", "name", "host"),
    [
        ("192.0.2.1:80", "", "192.0.2.1"),
        ("192.0.2.1:80", "a.test", "a.test"),
        ("[2001:db8::1]:80", "", "[2001:db8::1]"),
        ("[2001:db8::1]:8080", "", "[2001:db8::1]:8080"),
        ("unix:/run/x.sock", "", "localhost"),
    ],
)
async def test_the_host(address: str, name: str, host: str) -> None:
    heads = []

    async def seen(endpoint: EndpointSpec, head: bytes, seconds: float, body_limit: int) -> ProbeAnswer:
        heads.append(head)
        return ProbeAnswer(200, [], b"")

    async with checking(Check(), spec(address, name=name), using=seen) as running:
        await running.first()
        await running.result()
    server = h11.Connection(h11.SERVER)
    server.receive_data(heads[0])
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert dict(request.headers)[b"host"] == host.encode()
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert server.trailing_data[0] == b""


@pytest.mark.parametrize(
    ("method", "path", "host"),
    [
        ("POST", "/", "x"),
        ("GET", "healthz", "x"),
        ("GET", "/a b", "x"),
        ("GET", "/a#b", "x"),
        ("GET", "/\r\nX: y", "x"),
        ("GET", "/\u00e9", "x"),
        ("GET", "/", "x\r\nY: z"),
        ("GET", "/", "a/b"),
        ("GET", "/", ""),
    ],
)
def test_what_no_request_can_carry(method: str, path: str, host: str) -> None:
    with pytest.raises(ValueError, match="not"):
        probe_head(method, path, host)


async def test_a_unix_socket(start_upstream: StartUpstream, tmp_path: Path) -> None:
    upstream = start_upstream(str(tmp_path / "x.sock"))
    for check in (Check(), Check(type="tcp")):
        async with checking(check, spec(upstream.address)) as running:
            await running.first()
            assert await running.result() == (upstream.address, True, "")


# -- how it is judged


@pytest.mark.parametrize(
    ("expect", "status", "ok"),
    [
        (((200, 399),), 200, True),
        (((200, 399),), 399, True),
        (((200, 399),), 400, False),
        (((204, 204), (429, 429)), 429, True),
        (((204, 204), (429, 429)), 200, False),
    ],
)
async def test_the_status(
    start_upstream: StartUpstream, expect: tuple[tuple[int, int], ...], status: int, ok: bool
) -> None:
    upstream = start_upstream()
    upstream.script(reply(status))
    async with checking(Check(expect=expect), spec(upstream.address)) as running:
        await running.first()
        assert await running.result() == (upstream.address, ok, "" if ok else f"status {status}")


@pytest.mark.parametrize(
    ("pattern", "body", "ok"),
    [
        ("ok", b"all is ok here", True),
        ("^ok$", b"all is ok here", False),
        ('"db":\\s*true', b'{"db":  true}', True),
        ("\u00e9", "caf\u00e9".encode(), True),
        ("ok", b"\xff\xfe ok", True),
        ("ok", b"x" * 65_534 + b"ok", True),
        ("ok", b"x" * 65_535 + b"ok", False),
        ("ok", b"", False),
    ],
)
async def test_the_body(start_upstream: StartUpstream, pattern: str, body: bytes, ok: bool) -> None:
    upstream = start_upstream()
    upstream.script(reply(200, body))
    async with checking(Check(body=pattern), spec(upstream.address)) as running:
        await running.first()
        why = "" if ok else "the body does not have what is expected"
        assert await running.result() == (upstream.address, ok, why)


async def test_no_more_of_the_body_is_asked_for_than_needed() -> None:
    limits = []

    async def seen(endpoint: EndpointSpec, head: bytes, seconds: float, body_limit: int) -> ProbeAnswer:
        limits.append((seconds, body_limit))
        return ProbeAnswer(200, [], b"ok")

    for body in ("", "ok"):
        async with checking(Check(body=body), spec("192.0.2.1:80"), using=seen) as running:
            await running.first()
            assert (await running.result())[1]
    assert limits == [(10.0, 0), (10.0, 65_536)]


async def test_an_endpoint_that_fails(start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    upstream.script(reset())
    upstream.script(send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), reset())
    upstream.script(send(b"nonsense\r\n\r\n"), reset())
    async with checking(Check(jitter=0), spec(upstream.address)) as running:
        await running.first()
        for _ in range(3):
            assert not (await running.result())[1]
            await running.idle()
            running.clock.advance(5)
        assert (await running.result())[1]


async def test_one_that_does_not_answer_in_time(start_upstream: StartUpstream) -> None:
    upstream, go = start_upstream(), threading.Event()
    upstream.script(wait_for(go), reply(200))
    async with checking(Check(timeout=50 * MS), spec(upstream.address)) as running:
        await running.first()
        assert await running.result() == (upstream.address, False, "no answer within 0.05 s")
        go.set()


# -- TCP


async def test_tcp(start_upstream: StartUpstream) -> None:
    upstream = start_upstream()
    async with checking(Check(type="tcp", jitter=0), spec(upstream.address)) as running:
        await running.first()
        assert await running.result() == (upstream.address, True, "")
        (connection,) = upstream.wait_connections(1)
        # Closed in order, nothing sent.
        upstream.wait("end", connection.ended.is_set)
        assert (connection.how, connection.received) == ("eof", b"")
        upstream.refuse()
        await running.idle()
        running.clock.advance(5)
        assert await running.result() == (upstream.address, False, "refused")


async def test_tcp_tries_the_alternates(start_upstream: StartUpstream) -> None:
    upstream = start_upstream(("::1", 0))
    port = int(upstream.address.rpartition(":")[2])
    endpoint = spec(f"127.0.0.1:{port}", alternates=(upstream.address,))
    async with checking(Check(type="tcp"), endpoint) as running:
        await running.first()
        assert await running.result() == (endpoint.address, True, "")


async def test_a_connection_that_met_itself_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simultaneous open of one socket with itself, as happens by chance to who asks a local port."""
    port = free_port()

    async def from_the_same_port(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await true_open(host, port, local_addr=(host, port))

    true_open = asyncio.open_connection
    monkeypatch.setattr(asyncio, "open_connection", from_the_same_port)
    async with checking(Check(type="tcp"), spec(f"127.0.0.1:{port}")) as running:
        await running.first()
        assert await running.result() == (f"127.0.0.1:{port}", False, "refused")


async def test_tcp_that_never_connects() -> None:
    """A listener whose queue is full answers no SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        held = [socket.socket() for _ in range(4)]
        try:
            for one in held:
                one.setblocking(False)
                one.connect_ex(address)
            check = Check(type="tcp", timeout=50 * MS)
            async with checking(check, spec(f"127.0.0.1:{address[1]}")) as running:
                await running.first()
                _, ok, why = await running.result()
        finally:
            for one in held:
                one.close()
    if ok:
        pytest.skip("this kernel takes connections beyond the queue's length")
    assert why == "no answer within 0.05 s"


# -- when


class Fake:
    """A probe that the test lets end. running: checks under way, by address; most: at one time."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Future[ProbeAnswer]] = {}
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.given_up: list[str] = []
        self.most = 0

    async def __call__(
        self, endpoint: EndpointSpec, head: bytes, seconds: float, body_limit: int
    ) -> ProbeAnswer:
        assert endpoint.address not in self.running, "two checks of one endpoint at a time"
        answer: asyncio.Future[ProbeAnswer] = asyncio.get_running_loop().create_future()
        self.running[endpoint.address] = answer
        self.most = max(self.most, len(self.running))
        self.begun.put_nowait(endpoint.address)
        try:
            return await answer
        except asyncio.CancelledError:
            self.given_up.append(endpoint.address)
            raise
        finally:
            del self.running[endpoint.address]

    async def begins(self) -> str:
        return await asyncio.wait_for(self.begun.get(), 10)

    def answer(self, address: str) -> None:
        self.running[address].set_result(ProbeAnswer(200, [], b""))


def specs(count: int) -> Sequence[EndpointSpec]:
    return [spec(f"192.0.2.{at}:80") for at in range(1, count + 1)]


async def test_the_first_checks_are_spread_and_the_next_jittered() -> None:
    async def good(*_: Any) -> ProbeAnswer:
        return ProbeAnswer(200, [], b"")

    async with checking(Check(jitter=20), *specs(50), using=good) as running:
        await running.idle()
        spread = [pause for pause in running.clock.asked if pause != 1.0]
        assert len(spread) == 50
        assert 0 <= min(spread) < 0.1 < 0.4 < max(spread) <= 0.5
        running.clock.advance(0.5)
        await running.idle()
        pauses = running.clock.asked[51:]
        assert len(pauses) == 50
        assert 4 <= min(pauses) < 4.3 < 5.7 < max(pauses) <= 6


async def test_one_check_of_an_endpoint_at_a_time() -> None:
    fake = Fake()
    async with checking(Check(jitter=0, timeout=3600 * SECOND), *specs(1), using=fake) as running:
        await running.first()
        await fake.begins()
        running.clock.advance(12)
        await running.clock.wait_asleep(1)
        assert fake.begun.empty()
        fake.answer("192.0.2.1:80")
        assert (await running.result())[1]
        # Late as it is, the next one follows at once, and then the interval holds again.
        assert await fake.begins() == "192.0.2.1:80"
        fake.answer("192.0.2.1:80")
        await running.idle()
        assert running.clock.asked[-1] == 5


async def test_checks_at_one_time_are_bounded() -> None:
    fake = Fake()
    async with checking(Check(timeout=3600 * SECOND), *specs(10), using=fake, slots=3) as running:
        await running.first()
        for _ in range(10):
            address = await fake.begins()
            fake.answer(address)
            assert (await running.result())[0] == address
    assert fake.most <= 3


async def test_endpoints_come_and_go() -> None:
    fake = Fake()
    one, two = specs(2)
    async with checking(Check(jitter=0, timeout=3600 * SECOND), one, using=fake) as running:
        await running.first()
        assert await fake.begins() == one.address
        # Its check under way is given up, and says nothing.
        running.endpoints = [two]
        running.checker.look_again()
        await running.first()
        assert await fake.begins() == two.address
        assert fake.given_up == [one.address]
        fake.answer(two.address)
        assert await running.result() == (two.address, True, "")
        # It is looked for them by itself, too.
        await running.idle()
        running.endpoints = [two, one]
        running.clock.advance(1)
        await running.idle()
        running.clock.advance(0.5)
        assert await fake.begins() == one.address
        assert running.results.empty()


async def test_a_changed_endpoint_keeps_its_schedule() -> None:
    seen = []

    async def good(endpoint: EndpointSpec, *_: Any) -> ProbeAnswer:
        seen.append(endpoint.weight)
        return ProbeAnswer(200, [], b"")

    async with checking(Check(jitter=0), spec("192.0.2.1:80"), using=good) as running:
        await running.first()
        await running.result()
        await running.idle()
        running.endpoints = [spec("192.0.2.1:80", weight=7)]
        running.checker.look_again()
        await running.idle()
        running.clock.advance(4.9)
        await running.idle()
        assert seen == [1]
        running.clock.advance(0.2)
        await running.result()
        assert seen == [1, 7]


async def test_only_who_may_checks() -> None:
    fake = Fake()
    async with checking(Check(jitter=0), *specs(1), using=fake) as running:
        running.may_run = False
        await running.first()
        await running.idle()
        running.clock.advance(5)
        await running.idle()
        assert fake.begun.empty()
        running.may_run = True
        running.clock.advance(5)
        await fake.begins()


async def test_who_may_no_longer_when_its_turn_comes_does_not_check() -> None:
    fake = Fake()
    async with checking(Check(timeout=3600 * SECOND), *specs(2), using=fake, slots=1) as running:
        await running.first()
        address = await fake.begins()
        running.may_run = False
        fake.answer(address)
        await running.result()
        await running.idle()
        assert fake.begun.empty()


async def test_one_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    why = "refused"

    async def bad(*_: Any) -> ProbeAnswer:
        raise ProbeError(why)

    with caplog.at_level(logging.INFO, "fastgate.upstreams"):
        async with checking(Check(jitter=0), *specs(1), using=bad) as running:
            await running.first()
            for change in (None, False, None, True):
                running.change = change
                await running.result()
                await running.idle()
                running.clock.advance(5)
    assert caplog.messages[:2] == [
        "upstream orders: endpoint 192.0.2.1:80 is down: refused",
        "upstream orders: endpoint 192.0.2.1:80 is up",
    ]


async def test_a_defect_of_ours_says_nothing_about_the_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[Any] = iter([ValueError("a defect"), ValueError("a defect"), ProbeAnswer(200, [], b"")])

    async def broken(*_: Any) -> ProbeAnswer:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, ProbeAnswer)
        return answer

    async with checking(Check(jitter=0), *specs(1), using=broken) as running:
        await running.first()
        for _ in range(2):
            await running.idle()
            assert running.results.empty()
            running.clock.advance(5)
        assert (await running.result())[1]
    assert len(caplog.messages) == 1
    assert "a defect" in caplog.text
