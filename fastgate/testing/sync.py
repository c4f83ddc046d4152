"""The same for tests that are no coroutines: the gateway runs in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastgate.embed import ConfigSource, Explanation
from fastgate.testing.client import Answer
from fastgate.testing.gateway import GatewayUnderTest, run_gateway
from fastgate.testing.upstreams import FakeUpstream, Handler, Seen

__all__ = ["SyncGatewayUnderTest", "run_gateway_sync"]

T = TypeVar("T")


class _Thread:
    """A loop in a thread."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="fastgate.testing", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        async def called() -> T:
            return function(*arguments, **options)

        return self.run(called())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self._runner.close()


class SyncClock:
    """``Clock``, from another thread."""

    def __init__(self, thread: _Thread, gateway: GatewayUnderTest) -> None:
        self._thread = thread
        self._clock = gateway.clock
        self.now = gateway.clock.now
        self.monotonic = gateway.clock.monotonic

    def advance(self, seconds: float) -> None:
        self._thread.call(self._clock.advance, seconds)


class SyncUpstream:
    """``FakeUpstream``, from another thread."""

    def __init__(self, thread: _Thread, fake: FakeUpstream) -> None:
        self._thread = thread
        self._fake = fake
        self.name = fake.name
        self.address = fake.address

    @property
    def requests(self) -> list[Seen]:
        return self._fake.requests

    def reply(self, status: int = 200, **options: Any) -> None:
        self._thread.call(self._fake.reply, status, **options)

    def handle(self, handler: Handler, *, times: int | None = None) -> None:
        self._thread.call(self._fake.handle, handler, times=times)

    def fail(self, how: Any, **options: Any) -> None:
        self._thread.call(self._fake.fail, how, **options)

    def received(self, count: int = 1, timeout: float = 5.0) -> list[Seen]:
        return self._thread.run(self._fake.received(count, timeout))


class SyncGatewayUnderTest:
    """``GatewayUnderTest`` with plain calls in place of coroutines."""

    def __init__(self, thread: _Thread, gateway: GatewayUnderTest) -> None:
        self._thread = thread
        self._gateway = gateway
        self.url = gateway.url
        self.clock = SyncClock(thread, gateway)

    def upstream(self, name: str) -> SyncUpstream:
        return SyncUpstream(self._thread, self._gateway.upstream(name))

    def request(self, method: str, target: str, **options: Any) -> Answer:
        return self._thread.run(self._gateway.request(method, target, **options))

    def get(self, target: str, **options: Any) -> Answer:
        return self.request("GET", target, **options)

    def head(self, target: str, **options: Any) -> Answer:
        return self.request("HEAD", target, **options)

    def post(self, target: str, **options: Any) -> Answer:
        return self.request("POST", target, **options)

    def put(self, target: str, **options: Any) -> Answer:
        return self.request("PUT", target, **options)

    def patch(self, target: str, **options: Any) -> Answer:
        return self.request("PATCH", target, **options)

    def delete(self, target: str, **options: Any) -> Answer:
        return self.request("DELETE", target, **options)

    def options(self, target: str, **options: Any) -> Answer:
        return self.request("OPTIONS", target, **options)

    def explain(self, method: str, url: str, **options: Any) -> Explanation:
        return self._gateway.explain(method, url, **options)

    def count(self) -> dict[str, Any]:
        return self._thread.call(self._gateway.count)

    def reload(self, config: ConfigSource) -> None:
        self._thread.run(self._gateway.reload(config))


@contextmanager
def run_gateway_sync(config: ConfigSource, **options: Any) -> Iterator[SyncGatewayUnderTest]:
    """``run_gateway``, with the same options, in a thread."""
    thread = _Thread()
    try:
        running = run_gateway(config, **options)
        gateway = thread.run(running.__aenter__())
        try:
            yield SyncGatewayUnderTest(thread, gateway)
        finally:
            thread.run(running.__aexit__(None, None, None))
    finally:
        thread.close()
