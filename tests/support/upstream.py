"""A scripted upstream: real sockets, a thread for each connection, and a record of every byte received.

Each request is answered by the next script of the queue, or by the default script when the queue is empty. A
script
is a list of steps; a step is a function of the connection. The request's head has been read and recorded
when its
script starts; the body is read by the step `read_body()`, and whatever of it a script leaves is read
afterwards,
if the connection still stands.

    upstream.script(read_body(), send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"))
    upstream.script(send(b"HTTP/1.1 200 OK\\r\\nContent-Le"), reset())
    upstream.on_accept(send(b"HTTP/1.1 408 Request Timeout\\r\\n..."))     # before any request
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

from support import client
from support.wire import (
    DEFAULT_TIMEOUT,
    ConnectionEnded,
    Request,
    Stream,
    message_framing,
    read_request_head,
)
from support.wire import (
    read_body as read_message_body,
)

Step = Callable[["Connection"], None]
_ESTABLISHED = 1  # TCP_ESTABLISHED of netinet/tcp.h


class Stop(Exception):
    """A step has ended the connection; no step after it runs."""


class Connection:
    """One connection that the gateway made. `requests`: what came on it, in order; `received`: every byte."""

    def __init__(self, upstream: Upstream, sock: socket.socket, index: int) -> None:
        self.upstream = upstream
        self.sock = sock
        self.index = index
        self.stream = Stream(sock, timeout=upstream.timeout, record=upstream.record)
        self.requests: list[Request] = []
        self.ended = threading.Event()
        self.how: str | None = None

    @property
    def received(self) -> bytes:
        return bytes(self.stream.received)

    @property
    def request(self) -> Request:
        return self.requests[-1]

    def read_body(self, *, keep: bool = True) -> None:
        if not self.request.complete:
            framing, length = message_framing(self.request.fields, "request")
            read_message_body(self.stream, self.request, framing, length, keep=keep)
            self.upstream.notify()

    def send(self, data: bytes) -> None:
        self.sock.settimeout(self.upstream.timeout)
        self.sock.sendall(data)

    def encrypt(self, context: ssl.SSLContext) -> bool:
        self.sock.settimeout(self.upstream.timeout)
        try:
            self.sock = context.wrap_socket(self.sock, server_side=True, suppress_ragged_eofs=False)
        except OSError as error:
            self.upstream.handshakes.append(str(error))
            return False
        self.stream = Stream(self.sock, timeout=self.upstream.timeout, record=self.upstream.record)
        return True

    def is_cut(self) -> bool:
        """Whether the gateway has ended it, as the kernel has it (TCP alone)."""
        try:
            return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
        except OSError:
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Upstream:
    """The server. A context manager; leaving it fails the test if a connection's thread met an error of its
    own.

    address: (host, port), or a path for a Unix socket. record: False keeps no bytes (for bodies of a
    gibibyte). tls: it speaks TLS; `handshakes` holds what went wrong with those that failed.
    """

    def __init__(
        self,
        address: client.Address = ("127.0.0.1", 0),
        *,
        timeout: float = DEFAULT_TIMEOUT,
        record: bool = True,
        receive_buffer: int = 0,
        name: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.timeout = timeout
        self.record = record
        self.receive_buffer = receive_buffer
        self.name = name
        self.tls = tls
        self.handshakes: list[str] = []
        self.connections: list[Connection] = []
        self.errors: list[str] = []
        self.default: tuple[Step, ...] = (read_body(), echo())
        self._bind = address
        self._scripts: deque[tuple[Step, ...]] = deque()
        self._accept_scripts: deque[tuple[Step, ...]] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._stopping = False

    # -- life

    def __enter__(self) -> Upstream:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            assert not self.errors, f"the upstream met: {self.errors}"

    def listen(self) -> None:
        """Starts to accept, again on the same port after `refuse()`."""
        if isinstance(self._bind, str):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            listener = socket.socket(socket.AF_INET6 if ":" in self._bind[0] else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        listener.bind(self._bind)
        listener.listen(1024)
        self._listener = listener
        if not isinstance(self._bind, str):
            self._bind = (self._bind[0], listener.getsockname()[1])
        self._spawn(self._accept, listener)

    def refuse(self) -> None:
        """Stops listening: a connection is refused from now on. Those that stand are left alone."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def stop(self) -> None:
        self._stopping = True
        self.refuse()
        for connection in self.connections:
            connection.close()
        for thread in self._threads:
            thread.join(self.timeout)
            if thread.is_alive():
                self.errors.append(f"{thread.name} does not end")

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=f"upstream {self.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                connection = Connection(self, sock, len(self.connections))
                self.connections.append(connection)
                self._changed.notify_all()
            self._spawn(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            with self._changed:
                steps = self._accept_scripts.popleft() if self._accept_scripts else ()
            for step in steps:
                step(connection)
            if self.tls is not None and not connection.encrypt(self.tls):
                return
            while self._serve_one(connection):
                pass
        except Stop:
            pass
        except ConnectionEnded as ended:
            connection.how = ended.how  # cut in the middle of a request: the tests look at `complete`
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            connection.how = "reset"
        except Exception as error:  # noqa: BLE001  # told to the test by stop()
            if not self._stopping:
                self.errors.append(f"connection {connection.index}: {error!r}")
        finally:
            connection.how = connection.how or connection.stream.ended or "closed"
            connection.sock.close()
            connection.ended.set()
            self.notify()

    def _serve_one(self, connection: Connection) -> bool:
        request = read_request_head(connection.stream)
        if request is None:
            return False
        with self._changed:
            connection.requests.append(request)
            steps = self._scripts.popleft() if self._scripts else self.default
            self._changed.notify_all()
        if message_framing(request.fields, "request")[0] == "none":
            request.complete = True
        for step in steps:
            step(connection)
        connection.read_body()
        return True

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- scripts

    def script(self, *steps: Step) -> Upstream:
        """The script of the next request that has none yet, whichever connection it comes by."""
        with self._changed:
            self._scripts.append(steps)
        return self

    def on_accept(self, *steps: Step) -> Upstream:
        """What happens on the next new connection before its first request is read."""
        with self._changed:
            self._accept_scripts.append(steps)
        return self

    def clear(self) -> None:
        """Forgets scripts that no request took."""
        with self._changed:
            self._scripts.clear()
            self._accept_scripts.clear()

    @property
    def unused(self) -> int:
        return len(self._scripts) + len(self._accept_scripts)

    # -- what came

    @property
    def address(self) -> str:
        """As the configuration writes it."""
        if isinstance(self._bind, str):
            return f"unix:{self._bind}"
        host, port = self._bind
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def requests(self) -> list[Request]:
        """All requests, by connection and then in order."""
        with self._changed:
            return [request for connection in self.connections for request in connection.requests]

    @property
    def total_bytes(self) -> int:
        return sum(connection.stream.total for connection in self.connections)

    @property
    def open(self) -> list[Connection]:
        return [connection for connection in self.connections if not connection.ended.is_set()]

    def wait(self, what: str, ready: Callable[[], bool], timeout: float | None = None) -> None:
        """Waits for something that a connection brings about."""
        with self._changed:
            assert self._changed.wait_for(ready, timeout or self.timeout), (
                f"upstream: no {what}: {self.connections}"
            )

    def wait_requests(self, count: int) -> list[Request]:
        self.wait(f"{count} requests", lambda: len(self.requests) >= count)
        return self.requests

    def wait_connections(self, count: int) -> list[Connection]:
        self.wait(f"{count} connections", lambda: len(self.connections) >= count)
        return self.connections

    def wait_cut(self) -> None:
        """Waits until connections that the gateway has ended have been read to their end: a request on one of
        them that is read only now would take a later script."""
        self.wait("end of connections that were cut", lambda: not any(each.is_cut() for each in self.open))

    def mark(self) -> Mark:
        return Mark(self)


class Mark:
    """What the upstream got since this was made."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._before = {connection.index: len(connection.requests) for connection in upstream.connections}
        self._bytes = upstream.total_bytes

    @property
    def requests(self) -> list[Request]:
        return [
            request
            for connection in list(self.upstream.connections)
            for request in connection.requests[self._before.get(connection.index, 0) :]
        ]

    @property
    def connections(self) -> list[Connection]:
        return [
            connection for connection in self.upstream.connections if connection.index not in self._before
        ]

    @property
    def bytes(self) -> int:
        return self.upstream.total_bytes - self._bytes

    def wait(self, count: int = 1) -> list[Request]:
        self.upstream.wait(f"{count} requests", lambda: len(self.requests) >= count)
        return self.requests

    def one(self) -> Request:
        """The only request since the mark."""
        found = self.wait(1)
        assert len(found) == 1, f"{len(found)} requests, one was due: {found}"
        return found[0]


# -- steps


def send(data: bytes) -> Step:
    return lambda connection: connection.send(data)


def read_body(*, keep: bool = True) -> Step:
    return lambda connection: connection.read_body(keep=keep)


def read_some(count: int) -> Step:
    """Reads exactly `count` raw bytes behind the head: the rest of the body stays unread."""

    def step(connection: Connection) -> None:
        connection.stream.exactly(count, "part of a body")

    return step


def wait_for(event: threading.Event) -> Step:
    """Goes on when the test says so."""

    def step(connection: Connection) -> None:
        if not event.wait(connection.upstream.timeout):
            raise AssertionError("the test never set the event of this step")

    return step


def tell(event: threading.Event) -> Step:
    """Tells the test that the script has come so far."""
    return lambda connection: event.set()


def trickle(data: bytes, size: int = 1, pause: float = 0.0, until: threading.Event | None = None) -> Step:
    """Sends `size` bytes at a time, `pause` seconds apart: the pause is the fault, not a wait for
    something."""

    def step(connection: Connection) -> None:
        idle = until or threading.Event()
        for at in range(0, len(data), size):
            connection.send(data[at : at + size])
            if idle.wait(pause):
                return

    return step


def half_close() -> Step:
    return lambda connection: connection.sock.shutdown(socket.SHUT_WR)


def close() -> Step:
    """With FIN; under TLS without close_notify before it, as if somebody had cut it off."""
    """FIN, in order; what the gateway sends afterwards is answered with RST by the kernel."""

    def step(connection: Connection) -> None:
        connection.close()
        raise Stop

    return step


def goodbye() -> Step:
    """Ends the connection as TLS asks for: with close_notify."""

    def step(connection: Connection) -> None:
        assert isinstance(connection.sock, ssl.SSLSocket)
        with contextlib.suppress(OSError):
            connection.sock = connection.sock.unwrap()
        raise Stop

    return step


def reset() -> Step:
    def step(connection: Connection) -> None:
        client.reset(connection.sock)
        raise Stop

    return step


def wait_close() -> Step:
    """Reads until the gateway ends the connection; `Connection.how` says how it did."""

    def step(connection: Connection) -> None:
        while connection.stream.fill("the gateway's end of the connection"):
            pass
        raise Stop

    return step


def reply(status: int = 200, body: bytes = b"ok", *lines: str, close_after: bool = False) -> Step:
    """A plain response with Content-Length. `lines`: more field lines."""
    named = ("Connection: close",) if close_after else ()
    head = "\r\n".join([f"HTTP/1.1 {status} X", *lines, *named, f"Content-Length: {len(body)}", "", ""])

    def step(connection: Connection) -> None:
        connection.send(head.encode("latin-1") + (b"" if connection.request.method == "HEAD" else body))
        if close_after:
            close()(connection)

    return step


def echo() -> Step:
    """The request as JSON: method, target, version, fields, body (latin-1), trailers, connection (its
    number)."""

    def step(connection: Connection) -> None:
        request = connection.request
        body = json.dumps(
            {
                "method": request.method,
                "target": request.target,
                "version": request.version,
                "fields": request.fields,
                "body": request.body.decode("latin-1"),
                "trailers": request.trailers,
                "connection": connection.index,
                "upstream": connection.upstream.name,
            }
        ).encode()
        reply(200, body, "Content-Type: application/json")(connection)

    return step


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """An address on which connect() neither succeeds nor fails: its accept queue is full, the kernel drops
    SYNs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


def free_port() -> int:
    """A port on which nobody listens (until somebody does: for refused connections)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
