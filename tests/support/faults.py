"""A TCP proxy with faults, to stand between the gateway and an upstream, or between a client and the
gateway."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType

from support.client import Address, connect, reset
from support.wire import DEFAULT_TIMEOUT


@dataclass
class Faults:
    """What happens to one direction of each connection. Byte positions count that direction's bytes.

    delay: nothing passes before the event is set. reset_at: RST to both sides at that byte. close_at: FIN to
    the
    receiver at that byte, the rest is swallowed. truncate_at: the rest is swallowed and nothing is closed.
    trickle: at most so many bytes at a time, `pause` seconds apart. blackhole: nothing is read at all.
    """

    delay: threading.Event | None = None
    reset_at: int | None = None
    close_at: int | None = None
    truncate_at: int | None = None
    trickle: int | None = None
    pause: float = 0.0
    blackhole: bool = False


@dataclass
class Counts:
    connections: int = 0
    refused: int = 0
    to_target: int = 0  # bytes passed on
    to_source: int = 0
    swallowed: int = 0
    faults: int = 0  # resets, closes and truncations made


@dataclass
class _Pair:
    source: socket.socket
    target: socket.socket
    done: int = 0
    dead: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class FaultProxy:
    """Listens on a free port and passes on to `target`. `request` and `response` may be changed between
    connections."""

    def __init__(
        self, target: Address, *, request: Faults | None = None, response: Faults | None = None
    ) -> None:
        self.target = target
        self.request = request or Faults()
        self.response = response or Faults()
        self.counts = Counts()
        self._stop = threading.Event()
        self._pairs: list[_Pair] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._spawn(self._accept)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def refuse(self) -> None:
        """No connection is accepted from now on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut_all(self) -> None:
        """RST on every connection that stands."""
        for pair in self._pairs:
            self._reset(pair)

    def stop(self) -> None:
        self._stop.set()
        self.refuse()
        for pair in self._pairs:
            for sock in (pair.source, pair.target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEFAULT_TIMEOUT)
            assert not thread.is_alive(), "a thread of the fault proxy does not end"
        for pair in self._pairs:
            pair.source.close()
            pair.target.close()

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="fault proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                source, _ = self._listener.accept()
            except OSError:
                return
            self.counts.connections += 1
            try:
                target = connect(self.target)
            except OSError:
                self.counts.refused += 1
                reset(source)
                continue
            source.settimeout(None)
            target.settimeout(None)
            pair = _Pair(source, target)
            self._pairs.append(pair)
            self._spawn(self._pump, pair, source, target, self.request, True)
            self._spawn(self._pump, pair, target, source, self.response, False)

    def _reset(self, pair: _Pair) -> None:
        # The other pump may sit in recv(): its hold on the socket would put the RST off until it returns, so
        # wake it.
        with pair.lock:
            pair.dead = True
            for sock in (pair.source, pair.target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)
                with contextlib.suppress(OSError):
                    reset(sock)

    def _pump(
        self, pair: _Pair, taken: socket.socket, given: socket.socket, faults: Faults, to_target: bool
    ) -> None:
        try:
            self._carry(pair, taken, given, faults, to_target)
        except OSError:
            self._reset(pair)  # one side is gone: the other shall see it too
        with pair.lock:
            pair.done += 1
            if pair.done == 2:
                taken.close()
                given.close()

    def _carry(
        self, pair: _Pair, taken: socket.socket, given: socket.socket, faults: Faults, to_target: bool
    ) -> None:
        if faults.blackhole:
            self._stop.wait()
            return
        if faults.delay is not None:
            while not faults.delay.wait(0.05):
                if self._stop.is_set():
                    return
        passed, swallow = 0, False
        limit = min(
            (at for at in (faults.reset_at, faults.close_at, faults.truncate_at) if at is not None),
            default=None,
        )
        while data := taken.recv(faults.trickle or 262144):
            if swallow:
                self.counts.swallowed += len(data)
                continue
            piece = data if limit is None else data[: limit - passed]
            given.sendall(piece)
            passed += len(piece)
            if to_target:
                self.counts.to_target += len(piece)
            else:
                self.counts.to_source += len(piece)
            if faults.pause and self._stop.wait(faults.pause):
                return
            if limit is not None and passed >= limit:
                self.counts.faults += 1
                swallow = True
                self.counts.swallowed += len(data) - len(piece)
                if faults.reset_at == limit:
                    self._reset(pair)
                    return
                if faults.close_at == limit:
                    given.shutdown(socket.SHUT_WR)
        if not swallow and not pair.dead:
            given.shutdown(socket.SHUT_WR)
