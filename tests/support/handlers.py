"""Ready-made behaviour for the scripted upstream, and real services beside it."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from support.upstream import Connection, Step

BLOCK = bytes(range(256)) * 4096  # 1 MiB


class Flow:
    """Counts a stream's progress: `sent` grows as the kernel takes the bytes; `stalled()` sees it stand
    still."""

    def __init__(self) -> None:
        self.moved = 0
        self.done = threading.Event()
        self.failed: BaseException | None = None
        self._changed = threading.Condition()

    def add(self, count: int) -> None:
        with self._changed:
            self.moved += count
            self._changed.notify_all()

    def stalled(self, quiet: float = 0.3, least: int = 1) -> int:
        """Waits until at least `least` bytes moved and then none for `quiet` seconds; the count at that
        time."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.moved >= least, 10), f"only {self.moved} bytes moved"
            while True:
                before = self.moved
                if not self._changed.wait_for(lambda: self.moved != before, quiet):  # noqa: B023  # used at once
                    return self.moved


def stream_body(total: int, flow: Flow) -> Step:
    """A response of `total` bytes in blocks of a mebibyte, counted as they leave."""

    def step(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        left = total
        while left:
            block = memoryview(BLOCK)[: min(left, len(BLOCK))]
            while block:
                count = connection.sock.send(block)
                flow.add(count)
                block = block[count:]
                left -= count
        flow.done.set()

    return step


def drain_body(total: int, flow: Flow, resume: threading.Event) -> Step:
    """Reads a body of `total` bytes without keeping it, the first byte only after `resume`."""

    def step(connection: Connection) -> None:
        assert resume.wait(30), "the test never resumed this reader"
        left = total
        while left:
            count = len(connection.stream.some(left, "body"))
            assert count, f"the body ended {left} bytes early"
            left -= count
            flow.add(count)
        connection.request.complete = True
        flow.done.set()

    return step


def event_stream(events: list[bytes], gates: list[threading.Event]) -> Step:
    """Server-sent events without a length; each event waits for its gate."""

    def step(connection: Connection) -> None:
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for event, gate in zip(events, gates, strict=True):
            assert gate.wait(10), "the test never opened the gate"
            connection.send(b"%x\r\n%b\r\n" % (len(event), event))
        connection.send(b"0\r\n\r\n")

    return step


def pattern(size: int) -> bytes:
    """`size` bytes that do not repeat in step with any power of two: a lost or doubled block shows."""
    seed = hashlib.sha256(b"fastgate").digest()
    block = b"".join(hashlib.sha256(seed + bytes([number])).digest() for number in range(251))
    return (block * (size // len(block) + 1))[:size]


@contextlib.contextmanager
def websocket_echo() -> Iterator[str]:
    """The address of a real WebSocket server that echoes each message; "close" makes it close with code
    4000."""

    def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                if message == "close":
                    connection.close(4000, "asked")
                    return
                connection.send(message)

    with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever, name="websocket echo", daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(10)
