"""`python -m bench.tls_memory`: memory of a gateway over many handshakes and long transfers with TLS.

Of the handshakes half are resumed, half have TLS 1.2, every twentieth connection breaks off within its
handshake, and half of the others end without close_notify. Then downloads and uploads run side by side, and
at last connections with TLS 1.3 and in the clear idle behind a request each. A line for each part of it:
memory of the supervisor and its worker (PSS, without the pages of files, of which others come and go), and
its growth since the first handshakes and bytes, in which buffers and caches fill. Exit code 1 where it has
grown by more than 4 MiB at the end of the transfers, or by 8 MiB in their midst.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bench.endurance.__main__ import service
from bench.process import Session, session_pids
from bench.runner import free_port
from fastgate.cli.dev_certificates import make

MOST_GROWTH: Final = 4 << 20  # bytes, at the end
MOST_WITHIN: Final = 8 << 20  # while transfers run: what is under way on their connections
WARM_HANDSHAKES: Final = 1000
WARM_BYTES: Final = 64 << 20  # each way
CLIENTS: Final = 16
BREAK_OFF: Final = 20  # every so many connections
IDLE: Final = 500  # connections: an address may have 1,024
SAMPLE: Final = 0.25  # seconds between two looks at a transfer
PATIENCE: Final = 30.0  # seconds without a byte

_BLOCK: Final = bytes(1 << 20)
_SHORT: Final = b"GET /bytes/100 HTTP/1.1\r\nHost: localhost\r\n\r\n"
# The beginning of a ClientHello (RFC 8446 5.1): a record of 512 bytes, of which no more comes.
_BROKEN: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@dataclass
class Measured:
    """Bytes of PSS. counts: of connections by what they were."""

    warm: int = 0
    last: int = 0
    peak: int = 0  # while transfers ran
    counts: dict[str, int] = field(default_factory=lambda: {"full": 0, "resumed": 0, "broken off": 0})
    transferred: int = 0
    idle: int = 0  # of one connection
    idle_plain: int = 0

    @property
    def growth(self) -> int:
        return self.last - self.warm


class TlsLoad:
    """Clients of a listener with TLS, and of one without. Raises OSError or RuntimeError where it does not
    serve them."""

    def __init__(self, port: int, plain_port: int, authority: Path) -> None:
        self._port = port
        self._plain_port = plain_port
        self._contexts = []
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            context = ssl.create_default_context(cafile=str(authority))
            context.maximum_version = version
            self._contexts.append(context)

    def handshakes(self, count: int, counts: dict[str, int]) -> None:
        """So many connections with a request each, and those that break off; adds what they were."""
        lock = threading.Lock()

        def some(pairs: range) -> None:
            for pair in pairs:
                context = self._contexts[pair % 2]
                polite = pair % 4 < 2
                ticket = self._visit(context, None, polite, made := {"full": 0, "resumed": 0})
                self._visit(context, ticket, polite, made)
                broken = pair % (BREAK_OFF // 2) == 0
                if broken:
                    with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock:
                        sock.sendall(_BROKEN)
                with lock:
                    counts["full"] += made["full"]
                    counts["resumed"] += made["resumed"]
                    counts["broken off"] += broken

        with ThreadPoolExecutor(CLIENTS) as pool:
            shares = [range(each, count // 2, CLIENTS) for each in range(CLIENTS)]
            for done in [pool.submit(some, share) for share in shares]:
                done.result()

    def _visit(
        self, context: ssl.SSLContext, ticket: ssl.SSLSession | None, polite: bool, counts: dict[str, int]
    ) -> ssl.SSLSession | None:
        """One request on a connection of its own. polite: ends with close_notify."""
        with self._connect(context, ticket) as sock:
            sock.sendall(_SHORT)
            self._answer(sock)
            counts["resumed" if sock.session_reused else "full"] += 1
            kept = sock.session
            if polite:
                sock.unwrap()
            return kept

    def _connect(self, context: ssl.SSLContext, ticket: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
        try:
            return context.wrap_socket(plain, server_hostname="localhost", session=ticket)
        except BaseException:
            plain.close()
            raise

    def _answer(self, sock: socket.socket) -> int:
        """Reads the answer; the length of its body."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(65536)
            if not data:
                raise RuntimeError(f"closed within an answer: {head!r}")
            head += data
        head, _, body = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head!r} {body!r}")
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        room, left = bytearray(1 << 18), length - len(body)
        while left > 0:
            got = sock.recv_into(room)
            if not got:
                raise RuntimeError(f"closed {left} bytes before the end of a body")
            left -= got
        return length

    def idle(self, stack: ExitStack, look: Callable[[], int], *, tls: bool) -> int:
        """Opens `IDLE` connections with a request each; how much each has added to what `look` gives. They
        stay until the stack ends, or the next ones would take their room."""
        before = look()
        for _ in range(IDLE):
            sock = (
                self._connect(self._contexts[0])
                if tls
                else socket.create_connection(("127.0.0.1", self._plain_port), PATIENCE)
            )
            stack.enter_context(sock)
            sock.sendall(_SHORT)
            self._answer(sock)
        return (look() - before) // IDLE

    def download(self, size: int) -> int:
        with self._connect(self._contexts[0]) as sock:
            sock.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % size)
            return self._answer(sock)

    def upload(self, size: int) -> int:
        with self._connect(self._contexts[0]) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
            for at in range(0, size, len(_BLOCK)):
                sock.sendall(_BLOCK[: size - at])
            self._answer(sock)
            return size


def configuration(port: int, plain_port: int, upstream: int, folder: Path) -> str:
    return f"""\
[server]
state_dir = "{folder}/state"
[access_log]
path = "{folder}/access.log"
[[listeners]]
name = "secure"
bind = "127.0.0.1:{port}"
tls = {{ certificates = [{{ cert = "localhost.pem", key = "localhost.key" }}] }}
[[listeners]]
name = "plain"
bind = "127.0.0.1:{plain_port}"
[upstreams.service]
endpoints = ["127.0.0.1:{upstream}"]
[[routes]]
name = "all"
upstream = "service"
limits = {{ body = "1000GiB" }}
"""


@contextmanager
def gateway(folder: Path, upstream: int) -> Iterator[tuple[Session, TlsLoad]]:
    """One supervisor with one worker, and what loads it."""
    port, plain_port = free_port(), free_port()
    authority = make(folder, ("localhost",), 30).authority
    (folder / "gateway.toml").write_text(configuration(port, plain_port, upstream, folder))
    command = [sys.executable, "-m", "fastgate", "run", "-c", str(folder / "gateway.toml")]
    session = Session(command, sorted(os.sched_getaffinity(0)), folder / "output")
    try:
        deadline = time.monotonic() + PATIENCE
        while "fastgate: ready" not in session.log.read_text():
            session.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"it did not start:\n{session.tail()}")
            time.sleep(0.02)
        yield session, TlsLoad(port, plain_port, authority)
        session.check()
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"{error}; the gateway says:\n{session.tail()}") from error
    finally:
        session.stop()


def memory(session: Session) -> int:
    """Bytes of PSS of its processes, without those of files."""
    total = 0
    for pid in session_pids(session.pid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


def measure(handshakes: int, transfer: int, *, say: Callable[[str], None] = lambda line: None) -> Measured:
    """So many handshakes, then `transfer` bytes down and as many up, two connections each. say: gets a line
    for each tenth of the handshakes and every gigabyte."""
    found = Measured()
    with (
        tempfile.TemporaryDirectory(prefix="bench-tls-") as name,
        service(sys.executable, "-m", "bench.endurance.upstream") as upstream,
        gateway(Path(name), upstream) as (process, load),
    ):
        load.handshakes(WARM_HANDSHAKES, dict.fromkeys(found.counts, 0))
        _transfer(load, WARM_BYTES, lambda: None)
        found.warm = memory(process)

        def tell(what: str) -> None:
            now = memory(process)
            say(f"{what:>34}: {_mib(now)} ({_mib(now - found.warm, '+')})")

        tell(f"{WARM_HANDSHAKES:,} handshakes to begin with")
        for part in range(10):
            load.handshakes(handshakes * (part + 1) // 10 - handshakes * part // 10, found.counts)
            tell(f"{found.counts['full'] + found.counts['resumed']:,} handshakes")

        def look() -> None:
            found.peak = max(found.peak, memory(process))

        for part in range(rounds := max(1, transfer >> 30)):
            size = transfer * (part + 1) // rounds - transfer * part // rounds
            found.transferred += _transfer(load, size, look)
            tell(f"{found.transferred / 1e9:.1f} GB both ways together")
        found.last = memory(process)
        with ExitStack() as stack:
            now = partial(memory, process)
            found.idle_plain = load.idle(stack, now, tls=False)
            found.idle = load.idle(stack, now, tls=True)
    return found


def _transfer(load: TlsLoad, size: int, look: Callable[[], None]) -> int:
    """Bytes moved. look: called now and then while it runs."""
    with ThreadPoolExecutor(4) as pool:
        half = size // 2
        running: set[Future[int]] = {pool.submit(load.download, half) for _ in range(2)}
        running |= {pool.submit(load.upload, half) for _ in range(2)}
        moved = 0
        while running:
            look()
            done, running = wait_for(running, timeout=SAMPLE)
            moved += sum(each.result() for each in done)
    return moved


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(prog="python -m bench.tls_memory", description=__doc__)
    own.add_argument("--handshakes", type=int, default=50_000, help="how many (default 50,000)")
    own.add_argument("--gib", type=float, default=4.0, help="down, and as much up (default 4)")
    return own


def main() -> int:
    args = parser().parse_args()
    begun = time.monotonic()
    found = measure(args.handshakes, int(args.gib * 2**30), say=lambda line: print(line, flush=True))
    print(
        ", ".join(f"{count:,} {kind}" for kind, count in found.counts.items())
        + f"; {found.transferred / 1e9:.1f} GB; {time.monotonic() - begun:.0f} s\n"
        f"grown by {_mib(found.growth)}, at most {_mib(found.peak - found.warm)} while transfers ran\n"
        f"an idle connection has {found.idle:,} bytes, one in the clear {found.idle_plain:,}"
    )
    return 1 if found.growth > MOST_GROWTH or found.peak - found.warm > MOST_WITHIN else 0


def _mib(size: int, sign: str = "") -> str:
    return f"{size / 2**20:{sign}.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
