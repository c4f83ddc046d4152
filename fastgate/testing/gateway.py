"""A gateway under test: a configuration of any kind, on free ports, before fake upstreams."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from fastgate import _core
from fastgate.config import Config, model
from fastgate.embed import ConfigSource, Explanation, Gateway
from fastgate.testing.client import Answer, HeaderInput, ask
from fastgate.testing.upstreams import FakeUpstream
from fastgate.upstreams.asgi import Application

if TYPE_CHECKING:
    from fastgate.plugins import Plugin

__all__ = ["Clock", "GatewayUnderTest", "Plugins", "run_gateway"]

Plugins = Iterable["type[Plugin]"] | Mapping[str, "type[Plugin]"]

_SECOND: Final = 1_000_000_000

#: Gateways under test of this process, which share their time.
_running = 0


class Clock:
    """The gateway's time: deadlines, buckets of rate limits, breakers, and ``Host.clock`` of plugins.

    It is that of the system, and goes ahead of it by what it was advanced; all gateways of a process share
    it, until the last one under test has ended: the next starts with the system's. The loop's own timers, as
    ``asyncio.sleep``, go by the system's.
    """

    def __init__(self, worker: _core.Worker) -> None:
        self._worker = worker

    def advance(self, seconds: float) -> None:
        """That time is over: what was due in it happens now, before this returns."""
        _core.skip_time(self._worker, int(seconds * _SECOND))

    def now(self) -> float:
        """Seconds since the epoch."""
        return _core.time_ns() / _SECOND

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        return _core.monotonic_ns() / _SECOND


class GatewayUnderTest:
    """What ``run_gateway`` yields. gateway: the ``fastgate.Gateway`` that runs."""

    def __init__(self, gateway: Gateway, fakes: dict[str, FakeUpstream], fake: _Faker) -> None:
        self.gateway = gateway
        self._fakes = fakes
        self._fake = fake
        self.clock = Clock(gateway._running().worker)

    @property
    def url(self) -> str:
        """ "http://127.0.0.1:port" of the first listener."""
        return self.gateway.url

    def upstream(self, name: str) -> FakeUpstream:
        """The one that stands in for this upstream of the configuration. Raises LookupError."""
        try:
            return self._fakes[name]
        except KeyError:
            raise LookupError(f"no upstream {name!r} is replaced by a fake one") from None

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: HeaderInput = (),
        body: bytes | str = b"",
        json: Any = None,
        host: str = "",
        listener: str = "",
    ) -> Answer:
        """Sends a request by a connection of its own.

        target: path and query. json: the body instead, with its Content-Type. host: in place of the
        listener's address. listener: its name, by default the first one. Raises CutShort.
        """
        fields = list(headers.items() if isinstance(headers, Mapping) else headers)
        if json is not None:
            body = orjson.dumps(json)
            fields.append(("Content-Type", "application/json"))
        address = self.gateway.addresses[listener][0] if listener else self.gateway.address
        return await ask(
            address, method, target, fields, body.encode() if isinstance(body, str) else body, host
        )

    async def get(self, target: str, **options: Any) -> Answer:
        """``request`` with GET; so the others."""
        return await self.request("GET", target, **options)

    async def head(self, target: str, **options: Any) -> Answer:
        return await self.request("HEAD", target, **options)

    async def post(self, target: str, **options: Any) -> Answer:
        return await self.request("POST", target, **options)

    async def put(self, target: str, **options: Any) -> Answer:
        return await self.request("PUT", target, **options)

    async def patch(self, target: str, **options: Any) -> Answer:
        return await self.request("PATCH", target, **options)

    async def delete(self, target: str, **options: Any) -> Answer:
        return await self.request("DELETE", target, **options)

    async def options(self, target: str, **options: Any) -> Answer:
        return await self.request("OPTIONS", target, **options)

    def explain(self, method: str, url: str, **options: Any) -> Explanation:
        """``Gateway.explain``."""
        return self.gateway.explain(method, url, **options)

    def count(self) -> dict[str, Any]:
        """``Gateway.count``."""
        return self.gateway.count()

    async def reload(self, config: ConfigSource) -> None:
        """``Gateway.reload``; upstreams that stay keep their fake ones."""
        await self.gateway.reload(self._fake(config))


class _Faker:
    """Makes the configuration that runs of the one that is tested."""

    def __init__(
        self, fakes: dict[str, FakeUpstream], load: Callable[[ConfigSource], Gateway], real: Collection[str]
    ) -> None:
        self._fakes = fakes
        self._load = load
        self._real = real

    def __call__(self, config: ConfigSource) -> Config:
        config = self._load(config).config
        replace = msgspec.structs.replace
        return replace(
            config,
            admin=None,
            access_log=replace(config.access_log, enabled=False),
            listeners=tuple(
                replace(each, bind="127.0.0.1:0", host="127.0.0.1", port=0, unix_path=None)
                for each in config.listeners
            ),
            upstreams={
                name: each if name in self._real else self._faked(each)
                for name, each in config.upstreams.items()
            },
        )

    def _faked(self, upstream: model.Upstream) -> model.Upstream:
        fake = self._fakes.get(upstream.name)
        if fake is None:
            fake = self._fakes[upstream.name] = FakeUpstream(upstream.name)
        host, _, port = fake.address.rpartition(":")
        endpoint = model.Endpoint(address=fake.address, host=host, port=int(port))
        return msgspec.structs.replace(
            upstream, endpoints=(endpoint,), endpoints_file=None, health=None, tls=None
        )


@asynccontextmanager
async def run_gateway(
    config: ConfigSource,
    *,
    plugins: Plugins = (),
    apps: Mapping[str, Application] | None = None,
    folder: str | os.PathLike[str] = "",
    real: Collection[str] = (),
) -> AsyncIterator[GatewayUnderTest]:
    """Runs the gateway in this loop, until the block is left.

    config: a TOML file's path, tables, or a Config. Of it these are changed: each listener is on a free port
    of 127.0.0.1; each upstream but the ``real`` ones has one endpoint, a ``FakeUpstream``, without TLS and
    active health checks; access log and admin API are off. plugins, apps, folder: as for
    ``fastgate.Gateway``.
    """
    global _running
    fakes: dict[str, FakeUpstream] = {}
    load = functools.partial(Gateway, plugins=plugins, apps=apps, folder=folder)
    fake = _Faker(fakes, load, real)
    _running += 1
    try:
        async with load(fake(config)) as gateway:
            yield GatewayUnderTest(gateway, fakes, fake)
    finally:
        _running -= 1
        if _running == 0:
            _core.restore_time()
        for each in fakes.values():
            await each.close()
