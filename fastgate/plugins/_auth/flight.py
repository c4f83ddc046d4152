"""One piece of work under way for each key, however many wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from fastgate.plugins import Busy, Host

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The work runs on the plugin's behalf: whoever waits may leave without ending it for the others.

    limit: keys under way at a time; more raise Busy.
    """

    def __init__(self, host: Host, name: str, limit: int = 1000) -> None:
        self._host, self._name, self._limit = host, name, limit
        self._flights: dict[str, asyncio.Future[T]] = {}

    async def run(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` gives or raises; it is begun unless it is under way for this key."""
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._limit:
                raise Busy(f"{self._limit} requests are under way")
            flight = self._flights[key] = asyncio.get_running_loop().create_future()
            self._host.spawn(self._fly(key, work, flight), self._name)
        return await asyncio.shield(flight)

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
