"""A raw client: it sends the bytes that it is given and reads the answers strictly."""

from __future__ import annotations

import socket
import ssl
import struct
from types import TracebackType
from typing import Self

from support.wire import (
    DEFAULT_TIMEOUT,
    ConnectionEnded,
    Response,
    Stream,
    read_response,
    read_response_head,
)

Address = tuple[str, int] | str  # (host, port), or the path of a Unix socket


def connect(address: Address, *, timeout: float = DEFAULT_TIMEOUT, receive_buffer: int = 0) -> socket.socket:
    """A connected socket; `receive_buffer` (bytes) must be set before the handshake to bound the window."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Closes with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Client:
    """One connection to the gateway. A context manager; `close()` may be called twice."""

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        receive_buffer: int = 0,
        record: bool = True,
    ) -> None:
        self.sock = connect(address, timeout=timeout, receive_buffer=receive_buffer)
        self.stream = Stream(self.sock, timeout=timeout, record=record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def local_port(self) -> int:
        return int(self.sock.getsockname()[1])

    def send(self, data: bytes) -> Client:
        self.sock.settimeout(self.stream.timeout)
        self.sock.sendall(data)
        return self

    def send_pieces(self, *pieces: bytes) -> Client:
        """Each piece in a segment of its own (TCP_NODELAY is on, and the pieces are small)."""
        for piece in pieces:
            self.send(piece)
        return self

    def try_send(self, data: bytes) -> bool:
        """False when the peer has already closed; for uploads that an early answer may cut."""
        try:
            self.send(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            return False
        return True

    def response(self, method: str = "GET", *, keep: bool = True, http10: bool = False) -> Response:
        return read_response(self.stream, method, keep=keep, http10=http10)

    def head(self) -> Response:
        """The next response head (interim or not) alone."""
        return read_response_head(self.stream)

    def request(self, data: bytes) -> Response:
        """Sends one request and reads its answer; method and version are taken from the bytes."""
        line = data.lstrip(b"\r\n").split(b"\r\n", 1)[0].rstrip()
        self.send(data)
        return self.response(line.split(b" ", 1)[0].decode("latin-1"), http10=line.endswith(b"HTTP/1.0"))

    def get(self, target: str = "/", *lines: str) -> Response:
        return self.request(request(target=target, lines=lines))

    def ended(self) -> str:
        """Waits for the end of the connection and fails on any byte before it: "eof" or "reset"."""
        rest = self.stream.rest("end of connection")
        assert not rest, f"bytes where the connection had to end: {rest[:500]!r}"
        assert self.stream.ended is not None
        return self.stream.ended

    def cut_response(self, method: str = "GET") -> ConnectionEnded:
        """Reads a response that must not come to its end."""
        try:
            response = self.response(method)
        except ConnectionEnded as error:
            return error
        raise AssertionError(f"the response looks whole: {response}")

    def half_close(self) -> Client:
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        reset(self.sock)

    def close(self) -> None:
        self.sock.close()


def request(
    method: str = "GET",
    target: str = "/",
    *,
    body: bytes | None = None,
    chunks: list[bytes] | None = None,
    version: str = "1.1",
    host: str | None = "test.example",
    lines: tuple[str, ...] = (),
    **fields: str,
) -> bytes:
    """A well-formed request. `fields`: underscores stand for hyphens; `lines`: raw field lines, put last."""
    head = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        head.append(f"Host: {host}")
    head += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    head += lines
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    if chunks is not None:
        head.append("Transfer-Encoding: chunked")
    payload = body or b""
    if chunks is not None:
        payload = chunked(*chunks)
    return "\r\n".join([*head, "", ""]).encode("latin-1") + payload


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """The chunked coding of the chunks, with raw trailer lines (each with its CRLF)."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"
