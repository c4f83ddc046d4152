"""All `[acme.NAME]` of a configuration, in one process: that of the supervisor, or of an embedded gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from fastgate.config.model import Acme
from fastgate.server.acme.board import CertificateSink, ChallengeBoard
from fastgate.server.acme.manager import Manager
from fastgate.server.acme.plan import Wanted
from fastgate.server.acme.storage import Storage
from fastgate.server.acme.storage_directory import DirectoryStorage
from fastgate.server.acme.views import AcmeView

if TYPE_CHECKING:
    from fastgate.server.acme.redis_place import Place

__all__ = ["Engine"]

log: Final = logging.getLogger("fastgate.acme")
THREADS: Final = 4


class _Running:
    """One manager with its tasks and connections."""

    def __init__(self, manager: Manager, storage: Storage, place: Place | None) -> None:
        self.manager, self.storage, self.place = manager, storage, place
        self.tasks: list[asyncio.Task[None]] = []


class Engine:
    """Nothing here waits for a directory, and nothing raises for one: what does not work is told in the log
    and in ``views``, and tried again. now: seconds since 1970."""

    def __init__(
        self, board: ChallengeBoard, sink: CertificateSink, *, now: Callable[[], float] = time.time
    ) -> None:
        self._board, self._sink, self._now = board, sink, now
        self._executor: ThreadPoolExecutor | None = None
        self._running: dict[str, _Running] = {}

    async def follow(self, plan: Mapping[str, Wanted]) -> None:
        """Begins what is new, ends what is gone; what is equal lives on, with the names of now."""
        before = {domain for one in self._running.values() for domain in one.manager.domains}
        for name in [name for name, one in self._running.items() if not _same(one, plan.get(name))]:
            await self._end(self._running.pop(name))
        for name, (config, domains) in plan.items():
            if name in self._running:
                self._running[name].manager.follow(domains)
            else:
                self._running[name] = self._begin(name, config, domains)
        for domain in before - {domain for one in plan.values() for domain in one.domains}:
            await self._sink.unset(domain)

    def _begin(self, name: str, config: Acme, domains: Iterable[str]) -> _Running:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(THREADS, "acme")
        loop = asyncio.get_running_loop()
        storage: Storage
        place, board, tasks = None, self._board, []
        if config.storage.redis is not None:
            from fastgate.server.acme.redis_place import Place, RedisStorage  # takes redis along
            from fastgate.server.acme.shared_board import SharedBoard

            place = Place(config.storage.redis)
            storage = RedisStorage(place)
            board = shared = SharedBoard(self._board, place)
            tasks.append(loop.create_task(shared.run(), name=f"acme {name} challenges"))
        else:
            storage = DirectoryStorage(config.storage.path)
        manager = Manager(
            name, config, domains,
            storage=storage, board=board, sink=self._sink, executor=self._executor, now=self._now,
        )  # fmt: skip
        running = _Running(manager, storage, place)
        running.tasks = [*tasks, loop.create_task(manager.run(), name=f"acme {name}")]
        return running

    async def _end(self, running: _Running) -> None:
        for task in running.tasks:
            task.cancel()
        for task in running.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await running.storage.close()
        if running.place is not None:
            await running.place.close()

    def views(self) -> list[AcmeView]:
        return [one.manager.view() for one in self._running.values()]

    async def close(self) -> None:
        for one in self._running.values():
            await self._end(one)
        self._running.clear()
        if self._executor is not None:
            # A request that is under way ends by its own deadline; nobody waits for it.
            self._executor.shutdown(wait=False, cancel_futures=True)


def _same(running: _Running, plan: Wanted | None) -> bool:
    return plan is not None and running.manager.config == plan.config
