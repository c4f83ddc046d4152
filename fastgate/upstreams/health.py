"""Active health checks of one upstream: each endpoint is asked on its own schedule, whether it can serve.

What follows from the answers - how many make an endpoint go up or down, what an operator's word means - is
decided where `report` leads, in the compiled core. Here is the schedule, the question, and the judgement of
one answer.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

import re2

from fastgate.upstreams.clock import Clock, SystemClock
from fastgate.upstreams.events import Events, log

__all__ = [
    "MAX_PARALLEL",
    "CheckSettings",
    "Checked",
    "HealthChecker",
    "ProbeAnswer",
    "ProbeError",
    "probe_head",
]

MAX_PARALLEL: Final = 64
BODY_LIMIT: Final = 64 << 10
_SPREAD: Final = 0.5
_NEWS: Final = 1.0
_NS: Final = 1e9
_CLOSING: Final = 1.0


class CheckSettings(Protocol):
    """What the table `health` of an upstream says. Times in nanoseconds."""

    @property
    def type(self) -> Literal["http", "tcp"]: ...
    @property
    def path(self) -> str: ...
    @property
    def method(self) -> Literal["GET", "HEAD"]: ...
    @property
    def host(self) -> str:
        """Of the Host field; "": the endpoint's own name or address."""

    @property
    def expect(self) -> Sequence[tuple[int, int]]:
        """Ranges of the status, both ends included."""

    @property
    def body(self) -> str:
        """RE2 that must be found in the first 64 KiB of the body; "": any body will do."""

    @property
    def interval(self) -> int: ...
    @property
    def jitter(self) -> float:
        """Percent of the interval, by which it is shorter or longer each time."""

    @property
    def timeout(self) -> int: ...


class Checked(Protocol):
    """An endpoint, as far as a check needs it; `source.EndpointSpec` is one."""

    @property
    def address(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def unix_path(self) -> str | None: ...
    @property
    def name(self) -> str: ...
    @property
    def alternates(self) -> tuple[str, ...]: ...


E = TypeVar("E", bound=Checked)


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """A response. body: as much of it as was asked for."""

    status: int
    headers: Mapping[str, str] | Sequence[tuple[str, str]]
    body: bytes


class ProbeError(Exception):
    """No response; ``str()`` says why, such as "refused"."""


# (endpoint, head of the request, seconds, bytes of the body that are wanted) -> response; raises ProbeError.
Probe = Callable[[E, bytes, float, int], Awaitable[ProbeAnswer]]
# (endpoint, whether it answered as it should, why not) -> True: it has come up by this, False: it has gone
# down, None: nothing has changed.
Report = Callable[[E, bool, str], bool | None]


class HealthChecker(Generic[E]):
    """Checks the endpoints of one upstream until `run()` is cancelled.

    endpoints: gives those of this moment; asked once a second and after `look_again()`. A new one is checked
    at once (within half a second, so that not all are asked in the same moment), then every interval, give or
    take the jitter; one that is gone is forgotten, its check under way is given up unreported. There is never
    more than one check of an endpoint under way; one that takes longer than the interval delays the next one.

    probe, report: see their types. may_run: asked before each check; while it is false (another worker
    checks) none is made. slots: how many checks run at one time; one for all upstreams bounds them together.

    Raises ValueError for a path or host that no request can carry.
    """

    def __init__(
        self,
        settings: CheckSettings,
        endpoints: Callable[[], Iterable[E]],
        probe: Probe[E],
        report: Report[E],
        events: Events,
        *,
        may_run: Callable[[], bool] = lambda: True,
        slots: asyncio.Semaphore | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        probe_head(settings.method, settings.path, settings.host or "x")
        self._settings = settings
        self._endpoints = endpoints
        self._probe = probe
        self._report = report
        self._events = events
        self._may_run = may_run
        self._slots = slots or asyncio.Semaphore(MAX_PARALLEL)
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._interval = settings.interval / _NS
        self._timeout = settings.timeout / _NS
        self._body = _compiled(settings.body) if settings.body else None
        self._latest: dict[str, E] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        try:
            while True:
                self._news.clear()
                self._adopt()
                news = asyncio.ensure_future(self._news.wait())
                pause = asyncio.ensure_future(self._clock.sleep(_NEWS))
                try:
                    await asyncio.wait((news, pause), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                    pause.cancel()
        finally:
            tasks = list(self._tasks.values())
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def look_again(self) -> None:
        """The endpoints have changed."""
        self._news.set()

    def _adopt(self) -> None:
        self._latest = {endpoint.address: endpoint for endpoint in self._endpoints()}
        for address in self._tasks.keys() - self._latest.keys():
            self._tasks.pop(address).cancel()
        for address in self._latest.keys() - self._tasks.keys():
            self._tasks[address] = asyncio.get_running_loop().create_task(self._watch(address))

    async def _watch(self, address: str) -> None:
        clock, jitter = self._clock, self._settings.jitter / 100
        broken = False
        await clock.sleep(self._rng.uniform(0.0, min(_SPREAD, self._interval)))
        while True:
            due = clock.now() + self._interval * self._rng.uniform(1.0 - jitter, 1.0 + jitter)
            try:
                await self._check(address)
                broken = False
            except Exception:  # noqa: BLE001  # logged, with its traceback
                # Our own defect says nothing about the endpoint.
                if not broken:
                    log.exception("upstream %s: the check of %s failed", self._events.upstream, address)
                broken = True
            await clock.sleep(due - clock.now())

    async def _check(self, address: str) -> None:
        async with self._slots:
            # Asked when its turn has come, for which it may have waited.
            if not self._may_run():
                return
            endpoint = self._latest[address]
            try:
                async with asyncio.timeout(self._timeout):
                    why = await self._ask(endpoint)
            except ProbeError as error:
                why = str(error) or "no answer"
            except TimeoutError:
                why = f"no answer within {self._timeout:g} s"
        change = self._report(endpoint, not why, why)
        if change is not None:
            self._events.probed(address, change, why)

    async def _ask(self, endpoint: E) -> str:
        """What is wrong with it, "" for nothing."""
        settings = self._settings
        if settings.type == "tcp":
            await _connect(endpoint)
            return ""
        head = probe_head(settings.method, settings.path, settings.host or _authority(endpoint))
        answer = await self._probe(endpoint, head, self._timeout, BODY_LIMIT if self._body else 0)
        if not any(low <= answer.status <= high for low, high in settings.expect):
            return f"status {answer.status}"
        if self._body is not None and self._body.search(answer.body) is None:
            return "the body does not have what is expected"
        return ""


def probe_head(method: str, path: str, authority: str) -> bytes:
    """The head of a check's request (RFC 9112 3, 3.2: exactly one Host; no body, so no framing field).

    path: origin-form, with a query if there is one. Raises ValueError for what no head can carry.
    """
    if method not in ("GET", "HEAD"):
        raise ValueError(f"a check is a GET or a HEAD, not {method!r}")
    if not re.fullmatch(r"/[!-~]*", path) or "#" in path:
        raise ValueError(f"not a path that a request can carry: {path!r}")
    if not re.fullmatch(r"[!-~]+", authority) or re.search(r"[/?#@,]", authority):
        raise ValueError(f"not a host: {authority!r}")
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: fastgate-health\r\nAccept: */*\r\n\r\n"
    ).encode("ascii")


def _authority(endpoint: Checked) -> str:
    """The endpoint's name, or its address; the port is left out where it is http's own (RFC 9110 4.2.1,
    7.2)."""
    if not endpoint.host:
        return "localhost"  # a Unix socket, or an application in this process
    host = endpoint.name or endpoint.host
    shown = f"[{host}]" if ":" in host else host
    return shown if endpoint.port == 80 else f"{shown}:{endpoint.port}"


def _compiled(pattern: str) -> Any:
    # As routing does: bytes are matched as they are, whatever their encoding.
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2.compile(pattern.encode(), options)


# -- TCP


async def _connect(endpoint: Checked) -> None:
    """Opens a connection, to an alternate address if need be, and closes it. Raises ProbeError."""
    problem = ""
    for address in (endpoint.address, *endpoint.alternates):
        try:
            if endpoint.unix_path is not None:
                _, writer = await asyncio.open_unix_connection(endpoint.unix_path)
            else:
                host, _, port = address.rpartition(":")
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError as error:
            problem = problem or _reason(error)
            continue
        try:
            # Where a port of the ephemeral range has no listener, a connection within one machine can be
            # given this very port as its own, and meets itself.
            itself = writer.get_extra_info("sockname") == writer.get_extra_info("peername") != ""
        finally:
            await _close(writer)
        if not itself:
            return
        problem = problem or "refused"
    raise ProbeError(problem)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(_CLOSING):
            await writer.wait_closed()
    except OSError:  # TimeoutError is one
        writer.transport.abort()


def _reason(error: OSError) -> str:
    return "refused" if isinstance(error, ConnectionRefusedError) else (error.strerror or str(error))
