"""Replicas of the ACME engine without a gateway: what they answer is served here, what they show is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from cryptography import x509

from fastgate.config import model
from fastgate.config.loading import load_tables
from fastgate.server.acme.board import Challenge, LocalBoard
from fastgate.server.acme.engine import Engine
from fastgate.server.acme.plan import Wanted
from fastgate.server.acme.views import AcmeCertificateView, AcmeView
from support.pebble import Pebble

TIMEOUT = 20.0
T = TypeVar("T")


def acme_config(directory: str, ca_file: Path, storage: dict[str, Any], **more: Any) -> model.Acme:
    """As from a file; failures are tried again soon, and the storage is looked at soon."""
    table = {
        "directory": directory,
        "terms_agreed": True,
        "ca_file": str(ca_file),
        "storage": storage,
        "renewal": {"retry": "1s", "check": "1s", **more.pop("renewal", {})},
        **more,
    }
    plain = {"listeners": [{"bind": "127.0.0.1:0"}], "acme": {"test": table}}
    return load_tables(plain).config.acme["test"]


async def until(ready: Callable[[], T]) -> T:
    """What it gives, once that is true. For what nobody tells of: looked at every 10 ms."""
    async with asyncio.timeout(TIMEOUT):
        while not (found := ready()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return found


class Clock:
    """The time of the engine: ours, and so many seconds later."""

    def __init__(self) -> None:
        self.later = 0.0

    def __call__(self) -> float:
        return time.time() + self.later


class Replica:
    """An engine with a board and a sink of its own. An async context manager."""

    def __init__(self, config: model.Acme, *domains: str) -> None:
        self.config, self.domains = config, domains
        self.board = LocalBoard()
        self.clock = Clock()
        self.shown: dict[str, tuple[bytes, bytes]] = {}
        self.history: list[tuple[str, str]] = []  # domain, serial
        self.on_set: Callable[[str], None] = lambda domain: None
        self.engine = Engine(self, self, now=self.clock)
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Replica:
        await self.engine.follow({"test": Wanted(self.config, self.domains)})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.engine.close()

    # -- what an engine needs

    async def put(self, challenge: Challenge) -> None:
        await self.board.put(challenge)

    async def remove(self, challenge: Challenge) -> None:
        await self.board.remove(challenge)

    async def set(self, domain: str, chain_pem: bytes, key_pem: bytes) -> None:
        self.on_set(domain)
        self.shown[domain] = (chain_pem, key_pem)
        self.history.append((domain, serial_of(chain_pem)))
        async with self._changed:
            self._changed.notify_all()

    async def unset(self, domain: str) -> None:
        self.shown.pop(domain, None)

    # -- what tests ask

    def view(self) -> AcmeView:
        (view,) = self.engine.views()
        return view

    def of(self, domain: str) -> AcmeCertificateView:
        return next(one for one in self.view().certificates if one.domain == domain)

    async def wait_shown(self, *domains: str, times: int = 1) -> None:
        """Until each of them (none named: all) was shown so often."""
        wanted = domains or self.domains

        def there() -> bool:
            return all([name for name, _ in self.history].count(each) >= times for each in wanted)

        async with asyncio.timeout(TIMEOUT), self._changed:
            await self._changed.wait_for(there)

    async def wait_view(self, ready: Callable[[AcmeView], bool]) -> AcmeView:
        """Until it is so."""
        await until(lambda: ready(self.view()))
        return self.view()

    def wake(self) -> None:
        for one in self.engine._running.values():
            one.manager.wake()


def serial_of(chain_pem: bytes) -> str:
    return f"{x509.load_pem_x509_certificates(chain_pem)[0].serial_number:x}"


class Responder:
    """Answers http-01 on the port where the directory looks, from a board. Who asks for a host of `refuses`
    gets 404."""

    def __init__(self, pebble: Pebble, board: LocalBoard) -> None:
        self._port, self._board = pebble.http_port, board
        self.refuses: set[str] = set()
        self.before: Callable[[], Awaitable[None]] | None = None

    async def __aenter__(self) -> Responder:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.before is not None:
            await self.before()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        host = head.partition("\r\nHost: ")[2].partition("\r\n")[0].partition(":")[0]
        token = head.split()[1].removeprefix("/.well-known/acme-challenge/")
        found = None if host in self.refuses else self._board.tokens.get(token)
        status, body = ("200 OK", found) if found is not None else ("404 Not Found", "")
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()
