"""A strict reader of HTTP/1.1, written from RFC 9110 and 9112 alone: one of the two that must agree with the
gateway."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\Z")
_FIELD = re.compile(
    rb"("
    + TOKEN
    + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*\Z"
)
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"))?)*\Z")

Fields = list[tuple[bytes, bytes]]


class Bad(Exception):
    """The bytes are no HTTP."""


class Short(Exception):
    """The bytes end before the message does. `message`: what there is of it, once its head was read."""

    def __init__(self, message: Message | None = None) -> None:
        self.message = message


@dataclass
class Message:
    line: tuple[bytes, ...] = ()
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    framing: str = "none"
    minor: int = 1

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    def tokens(self, name: bytes) -> list[bytes]:
        return [part.strip(b" \t").lower() for value in self.values(name) for part in value.split(b",")]


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Short
        text = self.data[self.at : end]
        if not text.endswith(b"\r") or b"\r" in text[:-1]:
            raise Bad("a line that does not end in CRLF")
        self.at = end + 1
        return text[:-1]

    def exactly(self, size: int, message: Message) -> bytes:
        part = self.data[self.at : self.at + size]
        self.at += len(part)
        if len(part) < size:
            message.body += part
            raise Short(message)
        return part

    def fields(self) -> Fields:
        found: Fields = []
        while text := self.line():
            match = _FIELD.match(text)
            if not match:
                raise Bad(f"not a field line: {text!r}")
            found.append((match[1], match[2]))
        return found

    def length(self, message: Message) -> int | None:
        """Content-Length, or None; raises on anything that two readers could take in two ways."""
        lengths = message.values(b"content-length")
        codings = message.values(b"transfer-encoding")
        if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
            raise Bad("two framings")
        if codings:
            if codings[0].lower() != b"chunked" or message.minor == 0:
                raise Bad("a transfer coding")
            message.framing = "chunked"
        if lengths:
            if not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
                raise Bad("Content-Length")
            message.framing = "length"
            return int(lengths[0])
        return None

    def chunks(self, message: Message) -> None:
        try:
            while True:
                match = _CHUNK.match(self.line())
                if not match or len(match[1]) > 16 or int(match[1], 16) >= 1 << 62:
                    raise Bad("a chunk's head")
                size = int(match[1], 16)
                if size == 0:
                    message.trailers = self.fields()
                    return
                message.body += self.exactly(size, message)
                if self.exactly(2, Message()) != b"\r\n":
                    raise Bad("behind a chunk")
        except Short:
            raise Short(message) from None

    def request(self) -> Message:
        if self.data[self.at : self.at + 2] == b"\r\n":
            self.at += 2
        match = _REQUEST_LINE.match(self.line())
        if not match:
            raise Bad("the request line")
        message = Message((match[1], match[2]), minor=int(match[3]))
        message.fields = self.fields()
        if len(message.values(b"host")) > 1 or (message.minor and not message.values(b"host")):
            raise Bad("Host")
        length = self.length(message)
        if message.framing == "chunked":
            self.chunks(message)
        elif length:
            message.body = self.exactly(length, message)
        return message

    def response(self, method: bytes, *, ended: bool) -> Message:
        """One response, interim or not. `ended`: the connection has ended behind the data, in order."""
        match = _STATUS_LINE.match(self.line())
        if not match:
            raise Bad("the status line")
        message = Message((match[2], match[3] or b""), minor=int(match[1]))
        message.fields = self.fields()
        status = int(match[2])
        length = self.length(message)
        if method == b"HEAD" or status < 200 or status in (204, 304):
            message.framing = "none"
        elif message.framing == "chunked":
            self.chunks(message)
        elif length is not None:
            message.body = self.exactly(length, message)
        else:
            message.framing = "end"
            message.body = self.data[self.at :]
            self.at = len(self.data)
            if not ended:
                raise Short(message)
        return message

    @property
    def more(self) -> bool:
        return self.at < len(self.data)


def read_requests(data: bytes) -> tuple[list[Message], str]:
    """The requests that stand in a stream, and why there is no further one: "end", "short" or what is bad."""
    reader = Reader(data)
    found: list[Message] = []
    try:
        while reader.more:
            found.append(reader.request())
    except Short:
        return found, "short"
    except Bad as error:
        return found, str(error)
    return found, "end"
