"""The endpoints of one upstream: the union of what its sources say, kept whole while they come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from fastgate.upstreams.clock import Clock, SystemClock
from fastgate.upstreams.events import Events, log
from fastgate.upstreams.names import DnsSource, Family, SrvSource
from fastgate.upstreams.source import EndpointSpec, Publish, Source, State, StaticSource, is_ip

if TYPE_CHECKING:
    from fastgate.upstreams.names import Names

__all__ = ["PATIENCE", "Discovery", "Wanted", "sources_of"]

PATIENCE: Final = 2.0
MAX_ENDPOINTS: Final = 4096
_RESTART: Final = (1.0, 30.0)


class Wanted(Protocol):
    """An endpoint as a configuration writes it: an address, a name, or (`srv`) the name of a service."""

    @property
    def address(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def unix_path(self) -> str | None: ...
    @property
    def weight(self) -> int: ...
    @property
    def region(self) -> str: ...
    @property
    def zone(self) -> str: ...
    @property
    def srv(self) -> str: ...
    @property
    def asgi(self) -> str: ...


def sources_of(
    wanted: Iterable[Wanted], names: Callable[[], Names], family: Family
) -> dict[Hashable, Source]:
    """A source for each endpoint of a configuration, by a key that is the same for the same endpoint.

    An endpoint may have a `state`, as those of a file do. "ready" is what a file says where it says nothing:
    it leaves the endpoint to health checks, and comes out as "auto". names: asked for where there is a name.
    """
    sources: dict[Hashable, Source] = {}
    for endpoint in wanted:
        state: State = getattr(endpoint, "state", "auto")
        model = EndpointSpec(
            endpoint.address,
            endpoint.host,
            endpoint.port,
            endpoint.unix_path,
            endpoint.weight,
            endpoint.region,
            endpoint.zone,
            state="auto" if state == "ready" else state,
            asgi=endpoint.asgi,
        )
        source: Source
        if endpoint.srv:
            source = SrvSource(names(), endpoint.srv, model, family)
        elif endpoint.host and not is_ip(endpoint.host):
            source = DnsSource(names(), model, family)
        else:
            source = StaticSource([model])
        sources.setdefault((model, endpoint.srv, family), source)
    return sources


class _Followed:
    """A source that is followed. endpoints: its last set. settled: it has answered or failed once. gone: it
    is not followed any more, whatever it still says."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.endpoints: tuple[EndpointSpec, ...] = ()
        self.settled = False
        self.gone = False
        self.task: asyncio.Task[None] | None = None


class Discovery:
    """Follows the sources of one upstream and publishes their union, whole.

    publish: called when the union has changed, first when every source has answered or failed once, or
    `patience` seconds after `follow()` for those that have not: a name that does not resolve, or is slow to,
    holds up nobody else. With known addresses alone it is called within `follow()`. It may be called with an
    empty set, when no source knows an endpoint; not while one of them may still be the first to know.

    An address that several sources name counts once, as the first of them says it. At most 4096 endpoints
    are used; more are told as a problem.

    inner: the set is a part of another Discovery's, which tells its changes.
    """

    def __init__(
        self,
        publish: Publish,
        events: Events,
        *,
        patience: float = PATIENCE,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        inner: bool = False,
    ) -> None:
        self._publish = publish
        self._events = events
        self._patience = patience
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._inner = inner
        self._followed: dict[Hashable, _Followed] = {}
        self._published: tuple[EndpointSpec, ...] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._patient = False

    def follow(self, sources: Mapping[Hashable, Source]) -> None:
        """From now on these. A source whose key was there before goes on, with what it knows, in place of the
        new one. What was published stays until the new sources are settled, or patience ends."""
        gone = [followed for key, followed in self._followed.items() if key not in sources]
        before = self._followed
        self._followed = {key: before.get(key) or _Followed(source) for key, source in sources.items()}
        for followed in gone:
            followed.gone = True
            if followed.task is not None:
                followed.task.cancel()
        staying = {followed.source.name for followed in self._followed.values()}
        for followed in gone:
            if followed.source.name not in staying:
                self._events.forget(followed.source.name)
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._patient = True
        loop = asyncio.get_running_loop()
        for followed in self._followed.values():
            if isinstance(followed.source, StaticSource):
                followed.endpoints, followed.settled = followed.source.endpoints, True
            elif followed.task is None:
                followed.task = loop.create_task(self._run(followed), name=followed.source.name)
        if not all(followed.settled for followed in self._followed.values()):
            self._waiting = loop.create_task(self._wait())
        self._settle()

    def publish_to(self, publish: Publish) -> None:
        """From now on to somebody else, who is told at once what is known."""
        self._publish = publish
        if self._published is not None:
            publish(self._published)

    async def close(self) -> None:
        """Stops everything; nothing is published any more."""
        tasks = [followed.task for followed in self._followed.values() if followed.task is not None]
        if self._waiting is not None:
            tasks.append(self._waiting)
        for followed in self._followed.values():
            followed.gone = True
        self._followed = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self) -> None:
        await self._clock.sleep(self._patience)
        self._patient = False
        self._settle()

    async def _run(self, followed: _Followed) -> None:
        def publish(endpoints: tuple[EndpointSpec, ...]) -> None:
            if not followed.gone:
                followed.endpoints, followed.settled = endpoints, True
                self._settle()

        def fail(text: str) -> None:
            if not followed.gone:
                self._events.problem(followed.source.name, text, len(followed.endpoints))
                followed.settled = followed.settled or bool(text)
                self._settle()

        pause, longest = _RESTART
        while True:
            try:
                await followed.source.run(publish, fail)
                return
            except Exception as error:  # noqa: BLE001  # logged, with its traceback
                # A source must not raise; one that does is our own defect, and must not take its endpoints
                # along.
                log.exception("upstream %s: %s", self._events.upstream, followed.source.name)
                fail(f"internal error: {error!r}")
            await self._clock.sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(2 * pause, longest)

    def _settle(self) -> None:
        if self._patient:
            if not all(followed.settled for followed in self._followed.values()):
                return
            self._patient = False
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None
        union: dict[str, EndpointSpec] = {}
        for followed in self._followed.values():
            for endpoint in followed.endpoints:
                union.setdefault(endpoint.address, endpoint)
        endpoints = tuple(union.values())
        if not self._inner:
            over = f"{len(endpoints)} endpoints, the first {MAX_ENDPOINTS} are used"
            self._events.problem("endpoints", over if len(endpoints) > MAX_ENDPOINTS else "", MAX_ENDPOINTS)
        endpoints = endpoints[:MAX_ENDPOINTS]
        if not endpoints and not all(followed.settled for followed in self._followed.values()):
            return
        before, self._published = self._published, endpoints
        if endpoints != before:
            if before is not None and not self._inner:
                self._events.endpoints(before, endpoints)
            self._publish(endpoints)
