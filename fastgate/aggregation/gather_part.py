"""One part of an aggregation in Python: what is asked for, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator, Mapping
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from fastgate import _core
from fastgate.aggregation.answer import failures_of
from fastgate.aggregation.failures import PartFailure

if TYPE_CHECKING:
    from fastgate.aggregation.gather_run import ElementsRun, Run
    from fastgate.aggregation.gather_sending import Sending

__all__ = ["Judging", "Mapped", "Part", "PartsFailed"]

T = TypeVar("T")
U = TypeVar("U")

_NO_HEADERS: Final = _core.Headers()


class PartsFailed(_core.Refusal):
    """There is no answer. Where nothing catches it, the gateway answers so: problem+json with ``code``, and
    the reason of each part.

    parts: why they failed, by name, the one that decided it first. status, code: of the answer.
    """

    def __init__(self, parts: Mapping[str, PartFailure], status: int, code: str) -> None:
        said = "; ".join(f"{name}: {failure}" for name, failure in parts.items())
        super().__init__(said or "too few parts")
        self.parts = dict(parts)
        self.status = status
        self.code = code

    def answer(self, exchange: _core.ExchangeView) -> _core.Response:
        response = exchange.refuse(self.status, self.code, str(self))
        if response.headers.get("content-type") == "application/problem+json":
            problem = msgspec.json.decode(response.body)
            problem["parts"] = failures_of(self.parts.items())
            response.body = msgspec.json.encode(problem)
        return response


class Judging(NamedTuple):
    """What is good enough, and what is made of it; see ``Gather.request``."""

    type: Any
    success: Collection[int]
    statuses: Mapping[int | str, int]


class Part(Generic[T]):
    """One request, and what became of it. ``await part`` gives its value, as soon as it is there."""

    def __init__(self, gather: Run, name: str, judging: Judging, required: bool, default: Any) -> None:
        self.name: Final = name
        self.required: Final = required
        self.failure: PartFailure | None = None
        self.done = False
        #: The status of its answer; 0 while there is none.
        self.status = 0
        #: Those of its answer.
        self.headers: _core.Headers = _NO_HEADERS
        self._gather: Run | None = gather  # until the block is left
        self._judging = judging
        self._value = default
        self._ok = False
        self._waiters: list[asyncio.Future[None]] = []
        self._sending: Sending | None = None
        self._mapping: ElementsRun | None = None  # that it is an element of

    @property
    def ok(self) -> bool:
        """It is there, and good. False with ``failure`` None: it was given up, since it was not needed any
        more."""
        return self._ok

    @property
    def value(self) -> T:
        """Of one that has failed or was given up: its default. RuntimeError while it is under way."""
        if not self.done:
            raise RuntimeError(f"part {self.name} is under way: await it, or leave the block first")
        value: T = self._value
        return value

    def __await__(self) -> Generator[Any, None, T]:
        """Raises PartsFailed when there will be no answer, because of this part or another."""
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self._gather is not None:
            self._gather.raise_failure()
        return self.value

    def __repr__(self) -> str:
        state = "under way" if not self.done else "ok" if self._ok else str(self.failure or "given up")
        return f"<Part {self.name}: {state}>"

    # -- from its Gather

    def _answered(self, response: _core.SubResponse) -> None:
        """Raises PartFailure. Whatever else comes is a defect of the program."""
        self.status, self.headers = response.status, response.headers
        if response.status not in self._judging.success:
            raise PartFailure("part-status", f"status {response.status}", status=response.status)
        if response.truncated:
            raise PartFailure("part-too-large", "its body is over max_body", status=response.status)
        try:
            self._value = _decoded(self._judging.type, response)
        except PartFailure as failure:
            failure.status = response.status
            raise
        self._ok = True

    def _over(self) -> None:
        self.done = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _leave(self) -> None:
        """The block is left: no circle stays for the collector to find."""
        self._gather = self._sending = self._mapping = None

    def _status_for_client(self, failure: PartFailure) -> int | None:
        return failure.mapped(self._judging.statuses)


class Mapped(Part[list[U]], Generic[U]):
    """Parts of one for each element of a list. ``value``: theirs, in the order of the elements."""

    #: One for each element, in their order; those that were not asked for any more are missing.
    parts: list[Part[U]]

    def __init__(self, gather: Run, name: str, required: bool, default: Any) -> None:
        super().__init__(gather, name, Judging(Any, (), {}), required, default)
        self.parts = []
        self._decisive: Part[U] | None = None  # why it has failed

    def _completed(self) -> None:
        self._value = [part.value for part in self.parts]
        self._ok = True

    def _status_for_client(self, failure: PartFailure) -> int | None:
        return None if self._decisive is None else self._decisive._status_for_client(failure)


# -- values --------------------------------------------------------------------------------------------------


def _decoded(kind: Any, response: _core.SubResponse) -> Any:
    body = response.body
    if kind is bytes:
        return body
    if kind is None or kind is NoneType:
        return None
    coding = response.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise PartFailure("part-body", f"Content-Encoding {coding!r}, which nobody asked for")
    try:
        if kind is str:
            return body.decode()
        if not body and kind is Any:
            return None
        if not body.isascii():
            body.decode()  # msgspec does not look into what no type asks for
        return _decoder(kind).decode(body)
    except UnicodeDecodeError:
        raise PartFailure("part-body", "it is no UTF-8") from None
    except RecursionError:
        raise PartFailure("part-body", "its JSON is too deep") from None
    except msgspec.ValidationError as error:
        raise PartFailure("part-type", str(error)) from None
    except msgspec.DecodeError as error:
        raise PartFailure("part-body", str(error)) from None


@lru_cache(maxsize=256)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
