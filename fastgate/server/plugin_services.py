"""What the gateway does for its plugins: ``fastgate.plugins.Host``, and the pools and clock behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

from fastgate import _core
from fastgate.config.plugin_code import portable
from fastgate.plugins.api import Busy, Clock, Plugin, Shared

if TYPE_CHECKING:
    import httpx

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 4
PROCESSES: Final = 2
# Calls that are under way or wait in one of the pools; one more is told that it is busy.
MAX_CALLS: Final = 64
MIB: Final = 1 << 20


class SystemClock:
    """The core's time: the real one, unless a test has skipped some."""

    def now(self) -> float:
        return _core.time_ns() / 1e9

    def monotonic(self) -> float:
        return _core.monotonic_ns() / 1e9


class _Call(Generic[T]):
    """A function with its arguments, as another process can unpickle it."""

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs

    def __call__(self) -> T:
        return self.function(*self.args, **self.kwargs)


class _Pool:
    """An executor that is made when it is first needed, with a bounded queue."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make
        self._executor: Executor | None = None
        self._calls = 0

    async def run(self, call: _Call[T]) -> T:
        if self._calls >= MAX_CALLS:
            raise Busy(f"{MAX_CALLS} calls are under way")
        if self._executor is None:
            self._executor = self._make()
        self._calls += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, call)
        # Of the call, not of its caller: one that has left makes no room.
        future.add_done_callback(self._ended)
        return await asyncio.shield(future)

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._calls -= 1
        if not future.cancelled():
            future.exception()  # the caller hears of it, if it is still there

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


class Services:
    """What all plugins of a worker share. worker: None until the gateway has one."""

    def __init__(self, worker: _core.Worker, clock: Clock) -> None:
        self.worker = worker
        self.clock = clock
        self.threads = _Pool(lambda: ThreadPoolExecutor(THREADS, "fastgate-plugin"))
        # Spawned, not forked: a fork would take the listening sockets and the event loop along.
        self.processes = _Pool(lambda: ProcessPoolExecutor(PROCESSES, get_context("spawn")))
        self._client: httpx.AsyncClient | None = None

    def client(self) -> httpx.AsyncClient:
        """For URLs that are no upstream. Without proxies or credentials from the environment."""
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                trust_env=False, follow_redirects=False, limits=httpx.Limits(max_connections=32)
            )
        return self._client

    async def close(self) -> None:
        self.threads.close()
        self.processes.close()
        if self._client is not None:
            await self._client.aclose()


async def _kept(coroutine: Coroutine[Any, Any, None]) -> None:
    # A task lets SystemExit through to the loop, which would end the gateway with all that runs on it.
    try:
        await coroutine
    except SystemExit as error:
        raise RuntimeError("a plugin does not end the program") from error


class PluginServices:
    """The ``Host`` of one plugin. ``find_upstream`` and ``find_plugin`` follow the configuration in force."""

    def __init__(
        self, services: Services, name: str, folder: Path, shared: Shared, counts: dict[str, int]
    ) -> None:
        self.name = name
        self.folder = folder
        self.log = logging.getLogger(f"fastgate.plugins.{name}")
        self.clock: Clock = services.clock
        self.shared = shared
        self.find_upstream: Callable[[str], _core.Upstream]
        self.find_plugin: Callable[[str], Plugin]
        self._services = services
        self._counts = counts
        self._tasks: set[asyncio.Task[None]] = set()

    def plugin(self, name: str) -> Plugin:
        return self.find_plugin(name)

    async def subrequest(
        self,
        upstream: str,
        *,
        method: str = "GET",
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 5.0,  # noqa: ASYNC109 - enforced by the core's timer wheel
        limit: int = MIB,
    ) -> _core.SubResponse:
        found = self.find_upstream(upstream)
        worker = self._services.worker
        return await _core.ask(worker, found, method, path, headers, body, timeout, limit)

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 5.0,  # noqa: ASYNC109 - as the contract has it
        limit: int = MIB,
    ) -> _core.SubResponse:
        import httpx

        parts: list[bytes] = []
        size = 0
        try:
            async with (
                asyncio.timeout(timeout),
                self._services.client().stream(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", **(headers or {})},
                    content=body or None,
                    timeout=timeout,
                ) as answer,
            ):
                # Undone codings could make megabytes of what was counted as kilobytes.
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise _core.SubrequestError("fetch-failed", "an encoded body, which nobody asked for")
                async for part in answer.aiter_raw():
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        break
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise _core.SubrequestError("fetch-failed", str(error) or type(error).__name__) from error
        whole = b"".join(parts)
        return _core.SubResponse(
            answer.status_code, answer.headers.multi_items(), whole[:limit], size > limit
        )

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._services.threads.run(_Call(function, args, kwargs))

    async def in_process(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._services.processes.run(_Call(portable(function), args, kwargs))

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str = "") -> None:
        task = asyncio.get_running_loop().create_task(_kept(coroutine), name=f"plugin {self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("%s has failed", task.get_name(), exc_info=error)

    def count(self, what: str, by: int = 1) -> None:
        self._counts[what] = self._counts.get(what, 0) + by

    async def close(self) -> None:
        """Ends what was spawned."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
