"""Requests out of a recording: our access log as JSON lines, or a HAR file."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from fastgate.routing.decide import Asked

__all__ = ["Recorded", "Recording"]

MAX_LINE: Final = 1024 * 1024
MAX_HAR: Final = 512 * 1024 * 1024
_REDACTED: Final = "[redacted]"


class Recorded(NamedTuple):
    """listener: "" where the recording does not tell. at: where it stands."""

    at: str
    listener: str
    asked: Asked


class _Line(Struct):
    method: str | None = None
    path: str | None = None
    query: str | None = None
    host: str | None = None
    listener: str | None = None
    client: str | None = None
    bytes_in: int = 0
    tls: str | None = None
    user_agent: str | None = None
    headers: dict[str, str | None] = {}


class _Field(Struct):
    name: str
    value: str = ""


class _HarRequest(Struct):
    method: str
    url: str
    headers: list[_Field] = []
    bodySize: int = 0


class _HarEntry(Struct):
    request: _HarRequest


class _HarLog(Struct):
    entries: list[_HarEntry]


class _Har(Struct):
    log: _HarLog


class Recording:
    """Gives each request once. path: "-" for stdin; ".gz" is unpacked; ".har" is a HAR file, everything else
    lines. Counts: ``malformed`` lines that can't be read, ``empty`` ones that hold no request (a
    connection on which none came), ``redacted`` ones with a value that was hidden. ``fields``: names of
    header fields that were seen. ``size``: in bytes, 0 where unknown; ``done``: of them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.malformed = 0
        self.empty = 0
        self.redacted = 0
        self.fields: set[str] = set()
        self.size = 0 if path == "-" else Path(path).stat().st_size
        self._file: IO[bytes] | None = None

    @property
    def done(self) -> int:
        if self._file is None:
            return 0
        raw = getattr(self._file, "fileobj", None) or self._file
        try:
            return int(raw.tell())
        except OSError:
            return 0

    def __iter__(self) -> Iterator[Recorded]:
        """Raises OSError, ValueError for what is no such file."""
        if self._path == "-":
            yield from self._lines(sys.stdin.buffer)
            return
        name = self._path.removesuffix(".gz")
        with open(self._path, "rb") as raw:
            packed = name != self._path
            # The raw file tells how far we are.
            self._file = raw
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
            yield from self._har(file) if name.endswith(".har") else self._lines(file)

    def _lines(self, file: IO[bytes]) -> Iterator[Recorded]:
        decode = msgspec.json.Decoder(_Line).decode
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if not line.endswith(b"\n") and len(line) == MAX_LINE:
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                self.malformed += 1
                continue
            if not line.strip():
                continue
            try:
                read = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.malformed += 1
                continue
            if read.method is None or read.path is None:
                self.empty += 1
                continue
            yield self._recorded(f"line {number}", read)

    def _recorded(self, at: str, read: _Line) -> Recorded:
        target = read.path or ""
        if read.query is not None:
            target += f"?{read.query}"
        fields = [(name, value) for name, value in read.headers.items() if value is not None]
        if read.user_agent is not None and "user-agent" not in read.headers:
            fields.append(("user-agent", read.user_agent))
        self.fields.update(name.lower() for name in (*read.headers, "user-agent"))
        if _REDACTED in target or any(value == _REDACTED for _, value in fields):
            self.redacted += 1
        asked = Asked(
            method=read.method or "",
            target=target,
            host=read.host,
            fields=tuple(fields),
            client=read.client or "",
            body=read.bytes_in,
            scheme="https" if read.tls else "http",
        )
        return Recorded(at, read.listener or "", asked)

    def _har(self, file: IO[bytes]) -> Iterator[Recorded]:
        data = file.read(MAX_HAR + 1)
        if len(data) > MAX_HAR:
            raise ValueError(f"a HAR file has at most {MAX_HAR >> 20} MiB")
        try:
            har: Any = msgspec.json.decode(data, type=_Har)
        except msgspec.DecodeError as error:
            raise ValueError(f"no HAR file: {error}") from None
        for number, entry in enumerate(har.log.entries, 1):
            request = entry.request
            parts = urlsplit(request.url)
            # Browsers record HTTP/2's own fields too.
            fields = tuple((one.name, one.value) for one in request.headers if not one.name.startswith(":"))
            host = next((value for name, value in fields if name.lower() == "host"), parts.netloc or None)
            self.fields.update(name.lower() for name, _ in fields)
            asked = Asked(
                method=request.method,
                target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                host=host,
                fields=tuple(one for one in fields if one[0].lower() != "host"),
                body=max(0, request.bodySize),
                scheme=parts.scheme or "http",
            )
            yield Recorded(f"entry {number}", "", asked)
