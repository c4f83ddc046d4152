"""One order, from a name to its certificate (RFC 8555 7.4). The library runs in the engine's threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar, TypeVarTuple

from acme import errors as acme_errors
from josepy.errors import Error as JoseError
from requests.exceptions import RequestException

from fastgate.config.model import Acme
from fastgate.server.acme.board import Challenge, ChallengeBoard
from fastgate.server.acme.failures import Failure, failure_of
from fastgate.server.acme.keys import Issued, make_key, make_request, read_issued
from fastgate.server.acme.talk import Account, Authorization, Talk

__all__ = ["Caller", "issue"]

A = TypeVarTuple("A")
R = TypeVar("R")

log: Final = logging.getLogger("fastgate.acme")
VALIDATION_SECONDS: Final = 120.0
ISSUE_SECONDS: Final = 300.0  # a few authorities take minutes
FIRST_POLL: Final = 0.25
MOST_POLL: Final = 10.0

# What the library raises for an answer that it does not like, and for one of the wrong shape.
EXPECTED: Final = (
    acme_errors.Error, JoseError, RequestException, Failure, ValueError, KeyError, TypeError, AttributeError,
)  # fmt: skip


class Caller:
    """Runs the blocking calls of one ``Talk`` one after the other, off the loop. A context manager."""

    def __init__(self, talk: Talk, executor: Executor) -> None:
        self.talk = talk
        self._executor = executor

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.talk.close()

    async def __call__(self, do: Callable[[*A], R], *arguments: *A) -> R:
        """Raises Failure."""
        self.talk.network.retry_after = 0.0
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, do, *arguments)
        except EXPECTED as error:
            raise failure_of(error, self.talk.network.retry_after) from error

    async def poll(self, seconds: float, what: str, ask: Callable[[], bool]) -> None:
        """Asks until it is so, at the directory's pace. Raises Failure."""
        pause = FIRST_POLL
        try:
            async with asyncio.timeout(seconds):
                while not await self(ask):
                    await asyncio.sleep(max(pause, self.talk.network.retry_after))
                    pause = min(pause * 1.5, MOST_POLL)
        except TimeoutError:
            raise Failure(f"{what} took more than {seconds:.0f} s") from None


async def issue(
    config: Acme, account: Account, domain: str, board: ChallengeBoard, executor: Executor
) -> Issued:
    """A new certificate with a new key. Raises Failure. What was put on the board is taken off it."""
    loop = asyncio.get_running_loop()
    key = await loop.run_in_executor(executor, make_key, config.key_type)
    with Caller(Talk(config, account.key, account), executor) as call:
        talk = call.talk
        try:
            order, authorizations = await call(talk.order, make_request(key, domain))
        except Failure as failure:
            # Later in an order "unauthorized" speaks of the name.
            failure.account_refused = failure.code in ("accountDoesNotExist", "unauthorized")
            raise
        for authorization in authorizations:
            if authorization.challenge is not None:
                await _prove(call, authorization, authorization.challenge, board)
        await call(talk.finalize, order)
        chain: list[str] = []

        def fetched() -> bool:
            found = talk.certificate(order)
            chain.extend([] if found is None else [found])
            return found is not None

        await call.poll(ISSUE_SECONDS, "issuing", fetched)
        try:
            return read_issued(domain, chain[0], key)
        except ValueError as error:
            raise Failure(f"the directory's certificate can't be used: {error}") from error


async def _prove(
    call: Caller, authorization: Authorization, challenge: Challenge, board: ChallengeBoard
) -> None:
    try:
        await board.put(challenge)
        await call(call.talk.answer, authorization)
        await call.poll(VALIDATION_SECONDS, "validation", lambda: call.talk.state(authorization) == "valid")
    finally:
        # Also when we are cancelled: a challenge that stays is one that anybody may ask for.
        with contextlib.suppress(OSError):
            await asyncio.shield(board.remove(challenge))
