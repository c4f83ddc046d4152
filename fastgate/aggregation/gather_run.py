"""The run of an aggregation in Python: what is under way, what came of it, and whether there can be an
answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Literal

from fastgate import _core
from fastgate.aggregation.failures import PartFailure
from fastgate.aggregation.gather_part import Mapped, Part, PartsFailed
from fastgate.aggregation.gather_sending import Ask, KeptAnswers, Sending
from fastgate.aggregation.part_cache import PartCache
from fastgate.config.model.aggregate import MAX_PARTS
from fastgate.config.model.basics import MIB

__all__ = ["ElementsRun", "Policy", "Run"]

Policy = Literal["required", "all", "any", "first", "quorum"]


class ElementsRun:
    """How far a ``map`` is."""

    def __init__(
        self, whole: Mapped[Any], items: list[Any], make: Callable[[Any], Part[Any]], concurrency: int
    ) -> None:
        self.whole = whole
        self.items = items
        self.make = make
        self.concurrency = concurrency
        self.active = 0
        self.pumping = False


class Run:
    """What ``Gather`` stands on; see there."""

    def __init__(
        self,
        ask: Ask,
        now: Callable[[], float],
        *,
        timeout: float = 10.0,
        policy: Policy = "required",
        quorum: int = 1,
        max_parts: int = MAX_PARTS,
        max_memory: int = 16 * MIB,
        cache: PartCache | None = None,
        told: Hashable = None,
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"{timeout} is no timeout: it lies above 0")
        if policy not in ("required", "all", "any", "first", "quorum"):
            raise ValueError(f"{policy!r} is no policy")
        self._ask = ask
        self._now = now
        self._deadline = now() + timeout
        self._policy: Final = policy
        self._quorum = quorum if policy == "quorum" else 1
        self._max_parts = max_parts
        self._memory = max_memory
        self._kept = KeptAnswers(cache if cache is not None else PartCache(), told, now)
        #: All parts by name, in the order in which they were asked for; not those of a ``map``.
        self.parts: dict[str, Part[Any]] = {}
        #: With the policy "first": the one that was.
        self.first: Part[Any] | None = None
        #: Why there is no answer.
        self.failed: Exception | None = None
        self._entered = False
        self._closing = False
        self._over = False
        self._pending = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._sendings: dict[Hashable, Sending] = {}  # those that another part may share
        self._mapping: ElementsRun | None = None  # whose ``make`` runs
        self._made: list[Part[Any]] = []  # by it

    async def wait(self) -> None:
        """Until all parts that were asked for are there. Raises PartsFailed."""
        while self._pending and self.failed is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raises PartsFailed where there is no answer any more."""
        if self.failed is not None:
            raise self.failed

    @property
    def failures(self) -> dict[str, PartFailure]:
        """Of the parts that have failed, by name."""
        return {name: part.failure for name, part in self.parts.items() if part.failure is not None}

    # -- within

    def _each(self) -> Iterable[Part[Any]]:
        """All that were asked for, each element of a ``map`` too."""
        for part in self.parts.values():
            yield from part.parts if isinstance(part, Mapped) else (part,)

    def _may_ask(self) -> None:
        if not self._entered or self._over:
            raise RuntimeError("parts are asked for within the block: `async with exchange.gather() as g:`")
        self.raise_failure()

    def _name(self, name: str) -> str:
        if self._mapping is not None:
            whole = self._mapping.whole
            return f"{whole.name}[{len(whole.parts)}]"
        unique, number = name, 1
        while unique in self.parts:
            number += 1
            unique = f"{name}-{number}"
        return unique

    def _add(self, part: Part[Any]) -> None:
        mapping = part._mapping
        if mapping is not None:
            mapping.whole.parts.append(part)
            mapping.active += 1
            self._made.append(part)
        else:
            self.parts[part.name] = part
            self._pending += 1

    def _send(
        self,
        part: Part[Any],
        upstream: str,
        method: str,
        target: str,
        fields: Mapping[str, str],
        body: bytes,
        timeout: float,
        limit: int,
        retry: _core.RetryPolicy | None,
        lifetime: float,
    ) -> _core.SubResponse | None:
        """What came of the same request already, or is kept; None: it will come. Raises PartFailure, and what
        asks raises."""
        shared = method in ("GET", "HEAD") and not body
        key = (method, upstream, target, tuple(fields.items()), limit) if shared else None
        sending = self._sendings.get(key)
        if not shared or method != "GET":
            lifetime = 0.0
        if sending is None and lifetime:
            response = self._kept.get(key)
            if response is not None:
                return response if self._charge(part, response) else None
        if sending is None:
            left = min(timeout, self._deadline - self._now())
            if left <= 0:
                raise PartFailure("part-timeout", "the time of all parts is over")
            future = asyncio.ensure_future(
                self._ask(upstream, method, target, fields, body, left, limit, retry)
            )
            sending = Sending(key, future)
            if shared:
                self._sendings[key] = sending
            future.add_done_callback(partial(self._came, sending))
        if sending.response is None:
            sending.waiting.append(part)
            sending.lifetime = max(sending.lifetime, lifetime)
            part._sending = sending
        return sending.response

    def _came(self, sending: Sending, future: asyncio.Future[_core.SubResponse]) -> None:
        parts, sending.waiting = sending.waiting, []
        if not parts:
            if not future.cancelled():
                future.exception()  # nobody asks any more
            return
        try:
            response = future.result()
        except _core.SubrequestError as error:
            # Its own time, and not one of the upstream's deadlines.
            reason = "part-timeout" if error.reason == "total-timeout" else error.reason
            failure = PartFailure(reason, str(error))
        except asyncio.CancelledError:
            failure = PartFailure("internal-error", "its request was cancelled")
        except Exception as error:  # noqa: BLE001  # raised by the block
            self._end(error)
            return
        else:
            if not self._charge(parts[0], response):
                return
            sending.response = response
            for part in parts:
                self._judge_answer(part, response)
            if sending.lifetime and any(part.ok for part in parts):
                self._kept.put(sending.key, response, sending.lifetime)
            return
        self._sendings.pop(sending.key, None)
        for part in parts:
            self._settle(part, failure)

    def _charge(self, part: Part[Any], response: _core.SubResponse) -> bool:
        """False: there is no room for it, and so no answer."""
        self._memory -= len(response.body)
        if self._memory < 0:
            failure = PartFailure("aggregate-memory", "the answers together are over max_memory")
            self._end_by(part, failure)
        return self._memory >= 0

    def _judge_answer(self, part: Part[Any], response: _core.SubResponse) -> None:
        if part.done:
            return
        try:
            part._answered(response)
        except PartFailure as failure:
            self._settle(part, failure)
        except Exception as error:  # noqa: BLE001  # of a type's own code; raised by the block
            self._end(error)
        else:
            self._settle(part, None)

    def _settle(self, part: Part[Any], failure: PartFailure | None) -> None:
        """It has succeeded, or failed."""
        if part.done:
            return
        part.failure = failure
        part._over()
        if part._mapping is not None:
            self._element_over(part, part._mapping, failure)
            return
        self._pending -= 1
        if failure is None:
            if self._policy == "first" and self.first is None:
                self.first = part
                self._give_up()
        elif self._policy == "all" or (self._policy == "required" and part.required):
            self._end_by(part, failure)
        elif self._closing:
            self._judge()
        if self._pending == 0:
            self._wake()

    def _element_over(self, part: Part[Any], mapping: ElementsRun, failure: PartFailure | None) -> None:
        whole = mapping.whole
        mapping.active -= 1
        if failure is not None and part.required and not whole.done:
            whole._decisive = part
            for other in whole.parts:
                self._abandon(other)
            detail = f"{part.name}: {failure.detail}"
            self._settle(whole, PartFailure(failure.reason, detail, status=failure.status))
        else:
            self._pump(mapping)

    def _pump(self, mapping: ElementsRun) -> None:
        """Asks for as many elements as may be under way."""
        whole, items = mapping.whole, mapping.items
        if mapping.pumping or whole.done:
            return
        mapping.pumping = True
        try:
            while mapping.active < mapping.concurrency and len(whole.parts) < len(items) and not whole.done:
                self._mapping, self._made = mapping, []
                made = mapping.make(items[len(whole.parts)])
                if len(self._made) != 1 or self._made[0] is not made:
                    raise TypeError("what is given to map asks for one part, and returns it")
        except Exception as error:  # noqa: BLE001  # raised by the block
            self._end(error)
        finally:
            self._mapping = None
            mapping.pumping = False
        if mapping.active == 0 and not whole.done:
            whole._completed()
            self._settle(whole, None)

    # -- ends

    def _judge(self) -> None:
        """Whether there can still be an answer, when nothing more is asked for."""
        if self._policy in ("required", "all") or self.failed is not None:
            return
        good = sum(part.ok for part in self.parts.values())
        if good + self._pending < self._quorum:
            failures = self.failures
            decisive = next((name for name, one in failures.items() if not one.is_timeout), None)
            decisive = decisive or next(iter(failures), None)
            if decisive is None:
                self._end(PartsFailed({}, 502, "aggregate-failed"))
            else:
                self._end_by(self.parts[decisive], failures[decisive])

    def _end_by(self, part: Part[Any], failure: PartFailure) -> None:
        """There is no answer, because of this part."""
        if self.failed is not None:
            return
        name = part.name if part._mapping is None else part._mapping.whole.name
        if failure.is_timeout:
            status, code = 504, "aggregate-timeout"
        else:
            status = 502
            code = "aggregate-memory" if failure.reason == "aggregate-memory" else "aggregate-failed"
        status = part._status_for_client(failure) or status
        self._end(PartsFailed({name: failure} | self.failures, status, code))

    def _end(self, error: Exception) -> None:
        if self.failed is None:
            self.failed = error
            self._give_up()
            self._wake()

    def _give_up(self) -> None:
        for part in self.parts.values():
            self._abandon(part)

    def _abandon(self, part: Part[Any]) -> None:
        """It is not needed any more."""
        if part.done:
            return
        if isinstance(part, Mapped):
            for one in part.parts:
                self._abandon(one)
        sending = part._sending
        if sending is not None and part in sending.waiting:
            sending.waiting.remove(part)
            if not sending.waiting:
                self._sendings.pop(sending.key, None)
                sending.future.cancel()
        part._over()
        if part._mapping is None:
            self._pending -= 1

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
