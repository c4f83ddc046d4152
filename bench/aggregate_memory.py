"""`python -m bench.aggregate_memory`: what aggregations hold at most, beside what `max_memory` allows them.

For each case a gateway of its own with one worker; so many clients ask at the same time, and memory (PSS of
all its processes) is looked at all the while. Shown is the most by which it grew, and what is left of that
when all clients have their answers. Exit code 1 where it grew by more than `max_memory` for each client and
8 MiB, or an answer is another than it has to be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from bench.process import START_PATIENCE, Session, load_cores, peer_core
from bench.report import align
from bench.runner import free_port

KIB: Final = 1024
MIB: Final = 1024 * 1024
# Beside the answers: connections and their buffers, what the interpreter and the allocator keep of them.
SLACK: Final = 8 * MIB
LOOK: Final = 0.005  # seconds between two looks at memory
STALL: Final = 0.5  # seconds for which a client reads nothing


@dataclass(frozen=True)
class Case:
    """parts: the route's parts as TOML. expected: the answer's status and least size. stalls: the clients
    read nothing of it for a while."""

    name: str
    parts: str
    expected: tuple[int, int]
    max_memory: int = 16 * MIB
    stalls: bool = False


def parts(count: int, size: int, **keys: int) -> str:
    """So many parts, each of a size, under its own name."""
    more = "".join(f', {key} = "{value}B"' for key, value in keys.items())
    return "\n".join(
        f'p{i} = {{ upstream = "up", path = "/json/{size}/{i}", group = "p{i}"{more} }}' for i in range(count)
    )


FAN_OUT = """\
list = { upstream = "up", path = "/list/1000", omit = true }
each = { upstream = "up", path = "/json/2048/{item}", group = "each", \
for_each = { list = "{part.list}", max_items = 1000, concurrency = 16 } }"""

CASES: Final = (
    Case("20 parts of 256 KiB", parts(20, 256 * KIB), (200, 5 * MIB)),
    Case("1 part of 5 MiB", parts(1, 5 * MIB, max_body=6 * MIB), (200, 5 * MIB)),
    Case("the same, clients that stall", parts(1, 5 * MIB, max_body=6 * MIB), (200, 5 * MIB), stalls=True),
    Case("for_each over 1,000 of 2 KiB", FAN_OUT, (200, 2000 * KIB)),
    Case("20 parts of 2 MiB, too many", parts(20, 2 * MIB, max_body=3 * MIB), (502, 0), 8 * MIB),
    Case("1 part of 16 MiB, too large", parts(1, 16 * MIB, max_body=5 * MIB), (502, 0), 8 * MIB),
)


@dataclass(frozen=True)
class Row:
    """What was measured of a case, in bytes."""

    case: Case
    clients: int
    before: int
    most: int
    after: int
    problems: tuple[str, ...]

    @property
    def allowed(self) -> int:
        """By how much it may grow."""
        return self.clients * self.case.max_memory + SLACK

    @property
    def kept(self) -> bool:
        """Whether all is as it has to be."""
        return not self.problems and self.most - self.before <= self.allowed

    def cells(self) -> list[str]:
        """Its line of the table."""
        numbers = (self.case.max_memory, self.before, self.most - self.before, self.after - self.before)
        memory, before, growth, left = (f"{number / MIB:,.1f}" for number in numbers)
        share = (self.most - self.before) / (self.clients * self.case.max_memory)
        verdict = "; ".join(self.problems) or ("within" if self.kept else "BEYOND")
        return [self.case.name, str(self.clients), memory, before, growth, left, f"{share:.2f}", verdict]


HEAD: Final = [
    "MiB", "clients", "max_memory", "PSS before", "grew, at most", "is left", "of max_memory x clients", "",
]  # fmt: skip


# -- the upstream ------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def document(size: int) -> bytes:
    """A JSON object of small objects, of just this size."""
    count = max(0, size - 200) // 68
    items = [{"sku": f"A-{i:08d}", "quantity": i % 9, "price": 19.95, "new": True} for i in range(count)]
    text = json.dumps({"items": items})[:-1] + ', "padding": "'
    return (text + "x" * (size - len(text) - 2) + '"}').encode()


class Service(asyncio.Protocol):
    """/json/SIZE/ANYTHING: an object of so many bytes; /list/COUNT: the numbers from 0 on."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            kind, number = head.split(b" ")[1].split(b"/")[1:3]
            body = document(int(number)) if kind == b"json" else json.dumps(list(range(int(number)))).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            self.transport.write(body)


@contextmanager
def service() -> Iterator[int]:
    """Its port, while it serves in a thread."""
    for size in (2 * KIB, 256 * KIB, 2 * MIB, 5 * MIB, 16 * MIB):
        document(size)  # not while a part waits for it
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Server:
        return await loop.create_server(Service, "127.0.0.1", 0, backlog=1024)

    server = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, name="service", daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# -- one case ----------------------------------------------------------------------------------------------


def configuration(case: Case, port: int, upstream: int) -> str:
    """The gateway's TOML."""
    return f"""\
[server]
max_connections_per_ip = 0
[access_log]
enabled = false
[[listeners]]
bind = "127.0.0.1:{port}"
[upstreams.up]
endpoints = ["127.0.0.1:{upstream}"]
pool = {{ max_connections = 1024, max_idle = 64, queue = 4096 }}
[[routes]]
name = "warm"
match = {{ path = "/warm" }}
[routes.aggregate.parts]
{parts(5, 2048)}
[[routes]]
name = "page"
match = {{ path = "/page" }}
[routes.aggregate]
timeout = "60s"
max_memory = "{case.max_memory}B"
[routes.aggregate.parts]
{case.parts}
"""


def ask(port: int, path: str, stall: float = 0) -> tuple[int, int]:
    """Status and size of an answer. OSError or HTTPException where there is none."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=60)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n".encode())
        time.sleep(stall)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        size = 0
        while piece := answer.read(65536):
            size += len(piece)
        return answer.status, size


@contextmanager
def gateway(folder: Path, case: Case, upstream: int) -> Iterator[tuple[Session, int]]:
    """It and its port, warm. RuntimeError where it does not start."""
    port = free_port()
    file = folder / "gateway.toml"
    file.write_text(configuration(case, port, upstream))
    command = [sys.executable, "-m", "fastgate", "run", "-c", str(file)]
    session = Session(command, [peer_core()], folder / "gateway.out")
    try:
        deadline = time.monotonic() + START_PATIENCE
        while "fastgate: ready" not in session.log.read_text():
            session.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not start: {session.tail()}")
            time.sleep(0.02)
        for _ in range(50):
            ask(port, "/warm")
        yield session, port
    finally:
        session.stop()


class Watch:
    """The most memory that a session has, looked at in a thread while the context lasts."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.most = max(self.most, self.session.pss())
            if self._over.wait(LOOK):
                return


def measure(case: Case, clients: int) -> Row:
    """One case with so many clients at a time, each of which asks four times: what is not let go adds up."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-memory-") as name,
        service() as upstream,
        gateway(Path(name), case, upstream) as (session, port),
    ):
        before = session.pss()
        with Watch(session) as watch, ThreadPoolExecutor(clients) as pool:
            stall = STALL if case.stalls else 0
            asked = [pool.submit(ask, port, "/page", stall) for _ in range(4 * clients)]
            answers = {one.result() for one in asked}
        status, least = case.expected
        problems = [
            f"answered {got} with {size} bytes"
            for got, size in sorted(answers)
            if got != status or size < least
        ]
        return Row(case, clients, before, watch.most, session.pss(), tuple(problems))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    own = argparse.ArgumentParser(
        prog="python -m bench.aggregate_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="at a time (default: 1, and 8)")
    return own


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all within, 1 not."""
    options = parser().parse_args(arguments)
    rows = []
    for case in CASES:
        for clients in options.clients:
            rows.append(measure(case, clients))
            print("  ".join(rows[-1].cells()), flush=True)
    print()
    print(align([HEAD, *(row.cells() for row in rows)]))
    print(f"load cores {load_cores()}, gateway on {peer_core()}")
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
