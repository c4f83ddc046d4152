"""A small HTTP/1.1 client: one request on one connection, and an answer that is easy to look at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import h11
import orjson

__all__ = ["Answer", "CutShort", "Fields", "HeaderInput", "ask"]

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]]

_READ: Final = 65536


class Fields(Mapping[str, str]):
    """Header fields, in their order; names in any case. ``[name]`` is the first of that name."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self.fields = [(name.lower(), value) for name, value in fields]

    def __getitem__(self, name: str) -> str:
        for each, value in self.fields:
            if each == name.lower():
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.fields))

    def __len__(self) -> int:
        return len(dict(self.fields))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(each == name.lower() for each, _ in self.fields)

    def get_all(self, name: str) -> list[str]:
        """Every value of that name."""
        return [value for each, value in self.fields if each == name.lower()]

    def __repr__(self) -> str:
        return f"Fields({self.fields!r})"


class Answer:
    """A response, whole."""

    def __init__(self, status: int, headers: Fields, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        """ValueError for a body that is no JSON."""
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The reason code, where the gateway answered itself (docs/reasons.md); else ""."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(self.json().get("code", ""))

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.code or self.body[:60]!r}>"


class CutShort(Exception):
    """The connection ended before the answer was whole. ``answer``: what came of it; None: no head."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__(f"the answer was cut short: {answer}")
        self.answer = answer


async def ask(
    address: str, method: str, target: str, headers: HeaderInput = (), body: bytes = b"", host: str = ""
) -> Answer:
    """One request. address: "host:port". Raises CutShort, and OSError where nobody listens."""
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    given = {name.lower() for name, _ in fields}
    if "host" not in given:
        fields.insert(0, ("Host", host or address))
    if body and not given & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(body))))
    name, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(name.strip("[]"), int(port))
    try:
        connection = h11.Connection(h11.CLIENT)
        head = h11.Request(
            method=method, target=target, headers=[(n, v.encode("latin-1")) for n, v in fields]
        )
        data = connection.send(head) or b""
        if body:
            data += connection.send(h11.Data(data=body)) or b""
        writer.write(data + (connection.send(h11.EndOfMessage()) or b""))
        return await _read_answer(reader, connection)
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader, connection: h11.Connection) -> Answer:
    status, fields, body = 0, Fields(()), b""
    while True:
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_READ))
            elif isinstance(event, h11.Response):
                status = event.status_code
                fields = Fields(
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
                )
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, fields, body)
            elif isinstance(event, h11.ConnectionClosed):
                raise CutShort(None)
        except (h11.RemoteProtocolError, ConnectionError) as error:
            raise CutShort(Answer(status, fields, body) if status else None) from error
