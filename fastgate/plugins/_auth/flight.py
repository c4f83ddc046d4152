"""One piece of work under way for each key, however many wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from fastgate.plugins import Host
from fastgate.plugins._auth.ask import Unavailable

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The work runs on the plugin's behalf: whoever waits may leave without ending it for the others.

    seconds: how long anybody waits. limit: keys under way at a time.
    """

    def __init__(self, host: Host, name: str, seconds: float, limit: int = 1000) -> None:
        self._host, self._name, self._seconds, self._limit = host, name, seconds, limit
        self._flights: dict[str, asyncio.Future[T]] = {}

    async def run(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` gives or raises. It is begun, unless it is under way for this key, before anything is
        waited for. Raises Unavailable where it takes too long, or too much is under way."""
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._limit:
                raise Unavailable(f"{self._limit} questions are under way")
            flight = self._flights[key] = asyncio.get_running_loop().create_future()
            self._host.spawn(self._fly(key, work, flight), self._name)
        await asyncio.wait([flight], timeout=self._seconds)
        if not flight.done():
            raise Unavailable(f"not done in {self._seconds:g} s")
        return flight.result()

    async def _fly(
        self, key: str, work: Callable[[], Coroutine[Any, Any, T]], flight: asyncio.Future[T]
    ) -> None:
        try:
            flight.set_result(await work())
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            flight.set_exception(error)
            flight.exception()  # it is not lost when all of them have left
        finally:
            # Cancelled: the plugin closes.
            flight.cancel()
            del self._flights[key]
