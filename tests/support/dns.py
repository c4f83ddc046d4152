"""A scripted name server on loopback, UDP and TCP, in the loop of the test, or in a thread of its own.

    server.zone("a.test.", "A", "192.0.2.1", "192.0.2.2", ttl=60)
    server.script("a.test.", "A", servfail, silence)        # the next two queries, then the zone again

A script's step is a function of the query that gives the datagrams (or, over TCP, the messages) to send.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Message = dns.message.Message


@dataclass(frozen=True)
class Query:
    name: str
    kind: str
    over: str
    message: Message


Plain = Callable[[Query], list[bytes]]
Step = Callable[[Query], list[bytes] | Awaitable[list[bytes]]]


class DnsServer:
    """queries: all that came, in order. port: of both transports. loop: in which it serves."""

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.port = 0
        self.loop = asyncio.get_running_loop()
        self.errors: list[str] = []
        self._zone: dict[tuple[str, str], dns.rrset.RRset] = {}
        self._scripts: defaultdict[tuple[str, str], deque[Step]] = defaultdict(deque)
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def zone(self, name: str, kind: str, *values: str, ttl: int = 60) -> None:
        """From now on; without values there is no such record."""
        if values:
            self._zone[name, kind] = dns.rrset.from_text(name, ttl, "IN", kind, *values)
        else:
            self._zone.pop((name, kind), None)

    def script(self, name: str, kind: str, *steps: Step) -> None:
        self._scripts[name, kind].extend(steps)

    def asked(self, name: str, kind: str) -> int:
        return sum((query.name, query.kind) == (name, kind) for query in self.queries)

    def wait_query(self, name: str, kind: str, count: int) -> None:
        """`wait_asked`, from another thread than the server's."""
        asyncio.run_coroutine_threadsafe(self.wait_asked(name, kind, count), self.loop).result(15)

    async def wait_asked(self, name: str, kind: str, count: int) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: self.asked(name, kind) >= count)

    async def answers(self, wire: bytes, over: str) -> list[bytes]:
        message = dns.message.from_wire(wire)
        question = message.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        query = Query(question.name.to_text().lower(), kind, over, message)
        self.queries.append(query)
        async with self._news:
            self._news.notify_all()
        scripts = self._scripts[query.name, kind]
        given = (scripts.popleft() if scripts else self._from_zone)(query)
        return given if isinstance(given, list) else await given

    def _from_zone(self, query: Query) -> list[bytes]:
        found = self._zone.get((query.name, query.kind))
        if found is not None:
            return answer(found)(query)
        known = any(name == query.name for name, _ in self._zone)
        return [response(query, "NOERROR" if known else "NXDOMAIN").to_wire()]

    def spawn(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001  # told to the test at the end
                self.errors.append(repr(error))

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        async def serve() -> None:
            for wire in await self._server.answers(data, "udp"):
                self._transport.sendto(wire, addr)

        self._server.spawn(serve())


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    server = DnsServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                for wire in await server.answers(await reader.readexactly(length), "tcp"):
                    writer.write(struct.pack("!H", len(wire)) + wire)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    streams = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = streams.sockets[0].getsockname()[1]
    datagrams, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(server), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        datagrams.close()
        streams.close()
        await server.close()
    assert not server.errors, f"the name server met: {server.errors}"


@contextmanager
def dns_thread() -> Iterator[DnsServer]:
    """For tests without a loop. `zone` and `script` may be called from any thread."""
    started: list[DnsServer] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with dns_server() as server:
            started.append(server)
            ready.set()
            await asyncio.to_thread(done.wait)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001  # raised in the test's thread
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=run, name="name server", daemon=True)
    thread.start()
    try:
        ready.wait()
        if not failures:
            yield started[0]
    finally:
        done.set()
        thread.join(10)
    if failures:
        raise failures[0]


# -- steps


def response(query: Query, rcode: str = "NOERROR") -> Message:
    message = dns.message.make_response(query.message)
    message.set_rcode(dns.rcode.from_text(rcode))
    return message


def answer(*rrsets: dns.rrset.RRset) -> Plain:
    """These records; over UDP what does not fit is cut off (TC), as by a real server."""

    def step(query: Query) -> list[bytes]:
        message = response(query)
        message.answer.extend(rrsets)
        wire = message.to_wire(max_size=65_535)
        if query.over == "tcp":
            return [wire]
        return [wire] if len(wire) <= 1232 else truncated(query)

    return step


def records(kind: str, *values: str, ttl: int = 60) -> Plain:
    return lambda query: answer(dns.rrset.from_text(query.name, ttl, "IN", kind, *values))(query)


def servfail(query: Query) -> list[bytes]:
    return [response(query, "SERVFAIL").to_wire()]


def nxdomain(query: Query) -> list[bytes]:
    return [response(query, "NXDOMAIN").to_wire()]


def silence(query: Query) -> list[bytes]:
    return []


def truncated(query: Query) -> list[bytes]:
    message = response(query)
    message.flags |= dns.flags.TC
    return [message.to_wire()]


def preceded_by(*wires: Callable[[Query], bytes], then: Plain) -> Step:
    """Datagrams that must be ignored, before the true answer."""

    def step(query: Query) -> list[bytes]:
        return [*(wire(query) for wire in wires), *then(query)]

    return step


def garbage(query: Query) -> bytes:
    return b"\xff" * 40


def half(query: Query) -> bytes:
    """The right id, and then the middle of a message is missing."""
    return records("A", "192.0.2.66")(query)[0][:30]


def wrong_id(query: Query) -> bytes:
    message = response(query)
    message.answer.append(dns.rrset.from_text(query.name, 60, "IN", "A", "192.0.2.66"))
    message.id ^= 1
    return message.to_wire()


def wrong_question(query: Query) -> bytes:
    other = dns.message.make_query("other.test.", query.kind, id=query.message.id)
    message = dns.message.make_response(other)
    message.answer.append(dns.rrset.from_text("other.test.", 60, "IN", "A", "192.0.2.66"))
    return message.to_wire()


def held(until: asyncio.Event | threading.Event, then: Plain) -> Step:
    """Answers when the test says so."""

    async def step(query: Query) -> list[bytes]:
        if isinstance(until, asyncio.Event):
            await until.wait()
        else:
            await asyncio.to_thread(until.wait, 30)
        return then(query)

    return step
