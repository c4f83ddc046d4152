"""A clock that goes when the test says so (`fastgate.upstreams.clock.Clock`)."""

from __future__ import annotations

import asyncio


class ManualClock:
    """Stands still until `advance()`. `asked`: every sleep's seconds, in order."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._now = 1000.0
        self._sleepers: dict[asyncio.Future[None], float] = {}
        self._arrived = asyncio.Event()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers[waiting] = self._now + seconds
        self._arrived.set()
        self._wake()
        try:
            await waiting
        finally:
            self._sleepers.pop(waiting, None)

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._wake()

    def _wake(self) -> None:
        for waiting, until in list(self._sleepers.items()):
            if until <= self._now and not waiting.done():
                waiting.set_result(None)
                del self._sleepers[waiting]

    @property
    def asleep(self) -> int:
        return len(self._sleepers)

    async def wait_asleep(self, count: int) -> None:
        """Until so many tasks sleep."""
        async with asyncio.timeout(10):
            while self.asleep < count:
                self._arrived.clear()
                await self._arrived.wait()

    async def pass_time(self, seconds: float, sleepers: int = 1) -> None:
        """Lets time pass while so many tasks sleep, and waits until as many sleep again."""
        await self.wait_asleep(sleepers)
        self.advance(seconds)
        await self.wait_asleep(sleepers)
