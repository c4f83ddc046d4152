"""Strict reading of HTTP/1.1: what RFC 9112 leaves to a tolerant recipient is an error here.

Both ends of the harness read with it: the raw client (responses) and the scripted upstream (requests). A
`FramingError` is an `AssertionError`, so that a badly framed message fails the test that met it.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any

DEFAULT_TIMEOUT = 5.0  # seconds without a byte after which a test is hung, not slow
MAX_HEAD = 1 << 20

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 5.6.2
_VALUE = re.compile(
    rb"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?\Z|\Z"
)  # RFC 9110 5.5
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)\Z")  # RFC 9112 4
_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x22\x24-\x7e]+) HTTP/1\.([01])\Z"
)  # RFC 9112 3
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")  # extensions: nobody here sends any (RFC 9112 7.1.1)
_LENGTH = re.compile(r"[0-9]{1,18}\Z")

Fields = tuple[tuple[str, str], ...]


class FramingError(AssertionError):
    """The peer sent what a strict reader may not accept."""


class PeerTimeout(AssertionError):
    """The peer sent nothing for the reader's timeout."""


class ConnectionEnded(FramingError):
    """The peer closed or reset the connection where more was due. `how`: "eof" or "reset"."""

    def __init__(self, how: str, what: str, got: bytes) -> None:
        super().__init__(f"connection ended ({how}) while reading {what}; before it: {got[-200:]!r}")
        self.how = how


class Stream:
    """A socket with a buffer. `received` keeps every byte, as it came, when `record` is set."""

    def __init__(self, sock: socket.socket, *, timeout: float = DEFAULT_TIMEOUT, record: bool = True) -> None:
        self.sock = sock
        self.timeout = timeout
        self.record = record
        self.received = bytearray()
        self.total = 0
        self.ended: str | None = None
        self._buffer = bytearray()

    @property
    def pending(self) -> bytes:
        """Bytes that came and were not read yet."""
        return bytes(self._buffer)

    def fill(self, what: str, *, patient: bool = False) -> bool:
        """Waits for more bytes, for ever when `patient`. False when the peer has ended (`ended` says how)."""
        if self.ended is not None:
            return False
        try:
            self.sock.settimeout(None if patient else self.timeout)
            data = self.sock.recv(262144)
        except TimeoutError:
            raise PeerTimeout(
                f"nothing for {self.timeout} s while reading {what}; unread: {bytes(self._buffer[-200:])!r}"
            ) from None
        except ssl.SSLZeroReturnError:  # the peer's farewell, behind our own
            data = b""
        except OSError:  # ECONNRESET, or our own side was closed under us
            self.ended = "reset"
            return False
        if not data:
            self.ended = "eof"
            return False
        self.total += len(data)
        if self.record:
            self.received += data
        self._buffer += data
        return True

    def need(self, what: str) -> None:
        if not self.fill(what):
            raise ConnectionEnded(self.ended or "eof", what, bytes(self._buffer))

    def line(self, what: str) -> bytes:
        """One line without its CRLF; a bare CR or LF is an error (RFC 9112 2.2)."""
        while True:
            at = self._buffer.find(b"\n")
            if at >= 0:
                break
            if len(self._buffer) > MAX_HEAD:
                raise FramingError(f"{what}: no end of line within {MAX_HEAD} bytes")
            self.need(what)
        whole = bytes(self._buffer[: at + 1])
        del self._buffer[: at + 1]
        if not whole.endswith(b"\r\n") or b"\r" in whole[:-2]:
            raise FramingError(f"{what}: bare CR or LF in {whole!r}")
        return whole[:-2]

    def exactly(self, count: int, what: str) -> bytes:
        while len(self._buffer) < count:
            self.need(what)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def some(self, most: int, what: str) -> bytes:
        """At least one byte, at most `most`; b"" at the end."""
        if not self._buffer and not self.fill(what):
            return b""
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        return data

    def rest(self, what: str) -> bytes:
        """Everything up to the end of the connection."""
        while self.fill(what):
            pass
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def skip_length(self, count: int, what: str) -> int:
        """Reads and forgets `count` bytes; for bodies that should not be kept."""
        left = count
        while left:
            left -= len(self.some(left, what)) or self._fail_end(what)
        return count

    def _fail_end(self, what: str) -> int:
        raise ConnectionEnded(self.ended or "eof", what, bytes(self._buffer))

    # -- messages

    def fields(self, what: str) -> Fields:
        """Field lines up to the empty line."""
        found: list[tuple[str, str]] = []
        while line := self.line(what):
            if line[:1] in b" \t":
                raise FramingError(f"{what}: obs-fold {line!r}")
            name, colon, value = line.partition(b":")
            if not colon or not _TOKEN.match(name):
                raise FramingError(f"{what}: not a field line: {line!r}")
            value = value.strip(b" \t")
            if not _VALUE.match(value):
                raise FramingError(f"{what}: bad bytes in value: {line!r}")
            found.append((name.decode("ascii"), value.decode("latin-1")))
        return tuple(found)

    def chunked(self, what: str, *, keep: bool = True) -> tuple[bytes, Fields, int]:
        """A chunked body and its trailers: (data, trailers, length)."""
        parts: list[bytes] = []
        length = 0
        while True:
            line = self.line(f"{what}: chunk size")
            if not _CHUNK_SIZE.match(line):
                raise FramingError(f"{what}: chunk size line {line!r}")
            size = int(line, 16)
            if size == 0:
                return b"".join(parts), self.fields(f"{what}: trailers"), length
            if keep:
                parts.append(self.exactly(size, f"{what}: chunk data"))
            else:
                self.skip_length(size, f"{what}: chunk data")
            length += size
            if self.exactly(2, f"{what}: end of chunk") != b"\r\n":
                raise FramingError(f"{what}: no CRLF behind a chunk")


def values(fields: Fields, name: str) -> list[str]:
    """All values of a field, in order; the name's case does not matter."""
    return [value for key, value in fields if key.lower() == name.lower()]


def tokens(fields: Fields, name: str) -> list[str]:
    """The members of a list field, lower case."""
    return [
        part.strip().lower() for value in values(fields, name) for part in value.split(",") if part.strip()
    ]


@dataclass
class Message:
    """What requests and responses have in common. `framing`: "none", "length", "chunked" or "eof"."""

    version: str
    fields: Fields
    body: bytes = b""
    length: int = 0
    trailers: Fields = ()
    framing: str = "none"
    complete: bool = False

    def all(self, name: str) -> list[str]:
        return values(self.fields, name)

    def get(self, name: str) -> str | None:
        """The one value of a field, None when absent; a repeated field is an error."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} came {len(found)} times: {found}"
        return found[0] if found else None

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Response(Message):
    status: int = 0
    phrase: str = ""
    interim: list[Response] = field(default_factory=list)

    @property
    def closes(self) -> bool:
        """Whether the server said that it would close (RFC 9112 9.3)."""
        named = tokens(self.fields, "connection")
        return "close" in named or (self.version == "1.0" and "keep-alive" not in named)


@dataclass
class Request(Message):
    method: str = ""
    target: str = ""
    head: bytes = b""  # as received, with its empty line


def message_framing(fields: Fields, what: str) -> tuple[str, int]:
    """("chunked", 0), ("length", n) or ("none", 0), and an error for whatever two readers could read in two
    ways."""
    codings, lengths = values(fields, "transfer-encoding"), values(fields, "content-length")
    if codings and lengths:
        raise FramingError(f"{what}: Transfer-Encoding with Content-Length: {fields}")
    if len(codings) > 1 or len(lengths) > 1:
        raise FramingError(f"{what}: repeated framing field: {fields}")
    if codings:
        if codings[0].lower() != "chunked":
            raise FramingError(f"{what}: Transfer-Encoding {codings[0]!r}")
        return "chunked", 0
    if lengths:
        if not _LENGTH.match(lengths[0]):
            raise FramingError(f"{what}: Content-Length {lengths[0]!r}")
        return "length", int(lengths[0])
    return "none", 0


def read_response_head(stream: Stream) -> Response:
    line = stream.line("status line")
    match = _STATUS_LINE.match(line)
    if not match:
        raise FramingError(f"not a status line: {line!r}")
    fields = stream.fields("response fields")
    return Response(
        version=f"1.{match[1].decode()}",
        fields=fields,
        status=int(match[2]),
        phrase=match[3].decode("latin-1"),
    )


def read_response(stream: Stream, method: str, *, keep: bool = True, http10: bool = False) -> Response:
    """The final response to one request, its interim responses in `interim` (RFC 9112 6.3)."""
    interim: list[Response] = []
    while True:
        response = read_response_head(stream)
        framing, length = message_framing(response.fields, f"response {response.status}")
        if 100 <= response.status < 200:
            if framing != "none":
                raise FramingError(
                    f"{response.status} with a framing field: {response.fields}"
                )  # RFC 9112 6.1, 9110 8.6
            if http10:
                raise FramingError(f"{response.status} to an HTTP/1.0 client")  # RFC 9110 15.2
            if response.status == 101:
                response.interim, response.complete = interim, True
                return response
            response.complete = True
            interim.append(response)
            continue
        break
    response.interim = interim
    if http10 and framing == "chunked":
        raise FramingError("chunked to an HTTP/1.0 client")  # RFC 9112 6.1
    if response.status == 204 and framing != "none":
        raise FramingError(f"204 with a framing field: {response.fields}")  # RFC 9112 6.1, RFC 9110 8.6
    if method == "HEAD" or response.status in (204, 304):
        response.complete = True
        return response
    read_body(stream, response, framing, length, keep=keep)
    return response


def read_body(stream: Stream, message: Message, framing: str, length: int, *, keep: bool = True) -> None:
    """Reads the body into `message`; a response without a length runs to the end of the connection."""
    what = f"body ({framing})"
    if framing == "none" and isinstance(message, Response):
        framing = "eof"
    message.framing = framing
    if framing == "chunked":
        message.body, message.trailers, message.length = stream.chunked(what, keep=keep)
    elif framing == "length":
        message.body = stream.exactly(length, what) if keep else b""
        message.length = length if keep else stream.skip_length(length, what)
    elif framing == "eof":
        while data := stream.some(262144, what):
            message.length += len(data)
            if keep:
                message.body += data
        if stream.ended == "reset":
            raise ConnectionEnded("reset", what, message.body)
    message.complete = True


def read_request_head(stream: Stream) -> Request | None:
    """The next request's head; None when the connection ended cleanly between two requests."""
    if not stream.pending and not stream.fill("request line", patient=True):
        return None
    start = stream.total - len(stream.pending)
    line = stream.line("request line")
    match = _REQUEST_LINE.match(line)
    if not match:
        raise FramingError(f"not a request line: {line!r}")
    fields = stream.fields("request fields")
    head = bytes(stream.received[start : stream.total - len(stream.pending)]) if stream.record else b""
    if len(values(fields, "host")) != 1:
        raise FramingError(f"a request without exactly one Host: {fields}")  # RFC 9112 3.2
    return Request(
        version=f"1.{match[3].decode()}",
        fields=fields,
        method=match[1].decode(),
        target=match[2].decode(),
        head=head,
    )
