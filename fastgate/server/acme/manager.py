"""The certificates of one `[acme.NAME]`: taken from its storage, ordered when due, renewed in time.

Theory of operation. One task turns: it reads the storage, hands on what is new there, and is done when
nothing is due. Otherwise it takes the storage's lock, reads once more what another replica may have done
meanwhile, orders what is still due, writes it, and gives the lock back. What fails is tried again, each name
by its own clock; what nobody could do now (no directory, no storage, no account) holds all names of this
directory up.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, Final

from fastgate.config.model import Acme
from fastgate.server.acme.accounts import Accounts
from fastgate.server.acme.board import CertificateSink, ChallengeBoard
from fastgate.server.acme.failures import Failure
from fastgate.server.acme.keys import Issued
from fastgate.server.acme.order import Caller, issue
from fastgate.server.acme.schedule import after_failure, renewal_moment
from fastgate.server.acme.storage import Damaged, LockLost, Names, Storage, StorageError
from fastgate.server.acme.talk import Talk
from fastgate.server.acme.views import AcmeCertificateView, AcmeView

__all__ = ["Manager"]

log: Final = logging.getLogger("fastgate.acme")
NS: Final = 1e9
AT_ONCE: Final = 4  # orders under way
LOCK_PAUSE: Final = 1.0  # while another one has the lock, and up to twice as long


class _Held:
    """One name. Times: seconds since 1970."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.issued: Issued | None = None
        self.unsaved = False  # the storage does not have it yet
        self.renew_at = 0.0
        self.ask_again = 0.0  # the directory, when it should be renewed
        self.failures = 0
        self.problem = ""
        self.next_try = 0.0
        self.damaged: bytes | None = None  # what was told of

    def take(self, issued: Issued, renew_at: float) -> None:
        self.issued, self.renew_at = issued, renew_at
        self.ask_again, self.failures, self.problem, self.next_try = 0.0, 0, "", 0.0
        self.unsaved = False

    def wanting(self, now: float) -> bool:
        """Whether there is something to order or to save."""
        return self.issued is None or self.unsaved or self.renew_at <= now

    def due(self, now: float) -> bool:
        return self.next_try <= now and self.wanting(now)

    @property
    def next_event(self) -> float:
        """When it has to be looked at again."""
        return max(self.next_try, 0.0 if self.issued is None or self.unsaved else self.renew_at)


class Manager:
    """run() is a task of whoever makes it. now: seconds since 1970."""

    def __init__(
        self,
        name: str,
        config: Acme,
        domains: Iterable[str],
        *,
        storage: Storage,
        board: ChallengeBoard,
        sink: CertificateSink,
        executor: Executor,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.config = name, config
        self._held = {domain: _Held(domain) for domain in domains}
        self._storage, self._board, self._sink, self._executor = storage, board, sink, executor
        self._now = now
        self._names = Names(config.directory)
        self._accounts = Accounts(name, config, storage, self._names, executor)
        self._woken = asyncio.Event()
        self._problem = ""  # of all names
        self._failures = 0
        self._next_try = 0.0

    @property
    def domains(self) -> Iterable[str]:
        return self._held

    def follow(self, domains: Iterable[str]) -> None:
        """What names there are now. Certificates of those that stay, stay."""
        self._held = {domain: self._held.get(domain) or _Held(domain) for domain in domains}
        self.wake()

    def wake(self) -> None:
        """Looks at everything now; what has failed keeps its pause."""
        self._woken.set()

    def view(self) -> AcmeView:
        now = self._now()
        return AcmeView(
            name=self.name,
            directory=self.config.directory,
            account=self._accounts.uri,
            problem=self._problem,
            certificates=tuple(self._view(held, now) for held in self._held.values()),
        )

    def _view(self, held: _Held, now: float) -> AcmeCertificateView:
        failures, problem, next_try = held.failures, held.problem, held.next_try
        if self._problem and held.wanting(now):
            failures, problem = max(failures, self._failures), problem or self._problem
            next_try = max(next_try, self._next_try)
        failed: dict[str, Any] = {"failures": failures, "problem": problem, "next_try": next_try or None}
        if held.issued is None:
            return AcmeCertificateView(domain=held.domain, state="pending", **failed)
        issued = held.issued
        return AcmeCertificateView(
            domain=held.domain,
            state="valid" if issued.not_after > now else "expired",
            serial=issued.serial,
            issuer=issued.issuer,
            key=issued.algorithm,
            sha256=issued.sha256,
            not_before=issued.not_before,
            not_after=issued.not_after,
            renew_at=held.renew_at,
            **failed,
        )

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._woken.clear()
            try:
                pause = await self._turn()
                self._clear()
            except (StorageError, Failure) as error:
                pause = self._fail(error)
            except Exception as error:  # a defect of ours must not end renewal for good
                log.exception("acme %s: a defect", self.name)
                pause = self._fail(Failure(f"a defect: {error!r}"))
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _clear(self) -> None:
        if self._problem and self._next_try <= self._now():
            self._problem, self._failures = "", 0

    def _fail(self, error: StorageError | Failure) -> float:
        """Something that all names meet."""
        failure = error if isinstance(error, Failure) else None
        self._failures += 1
        pause = after_failure(self._failures, failure, self.config.renewal)
        self._problem, self._next_try = str(error), self._now() + pause
        what = "storage" if failure is None else "directory"
        log.error("acme %s: %s: %s; again in %.0f s", self.name, what, error, pause)
        return min(pause, self.config.renewal.check / NS)

    async def _turn(self) -> float:
        """Returns after how many seconds there is something to do. Raises StorageError, Failure."""
        await self._load()
        if self._next_try <= self._now() and any(self._due()):
            if not await self._storage.acquire():
                return LOCK_PAUSE * random.uniform(1, 2)
            try:
                await self._load()
                await self._order(list(self._due()))
            finally:
                await self._storage.release()
        await self._ask_when()
        now = self._now()
        events = [max(held.next_event, self._next_try) - now for held in self._held.values()]
        return max(0.05, min([self.config.renewal.check / NS, *events]))

    def _due(self) -> Iterable[_Held]:
        now = self._now()
        return (held for held in self._held.values() if held.due(now))

    # -- what the storage has

    async def _load(self) -> None:
        held = self._held
        names = {self._names.certificate(domain): domain for domain in held}
        for name, record in (await self._storage.read(list(names))).items():
            await self._loaded(held[names[name]], record)

    async def _loaded(self, held: _Held, record: bytes) -> None:
        try:
            issued = self._names.read_certificate(held.domain, record)
        except Damaged as error:
            if held.damaged != record:
                held.damaged = record
                log.error(
                    "acme %s: the stored certificate of %s is damaged, and will be replaced: %s",
                    self.name, held.domain, error,
                )  # fmt: skip
            return
        before = held.issued
        # An older one than ours is what could not be overwritten.
        if before is None or (issued.serial != before.serial and issued.not_before >= before.not_before):
            await self._use(held, issued)

    async def _use(self, held: _Held, issued: Issued) -> str:
        """ "", or why it can't be shown."""
        renewed = held.issued is not None
        held.take(issued, renewal_moment(issued, self.config.renewal))
        try:
            await self._sink.set(held.domain, issued.chain.encode(), issued.key.encode())
        except ValueError as error:
            held.problem = f"its certificate is not used: {error}"
            log.error("acme %s: %s: %s", self.name, held.domain, held.problem)
            return held.problem
        log.info(
            "acme %s: %s certificate of %s: serial %s, until %s",
            self.name, "a new" if renewed else "the", held.domain, issued.serial,
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(issued.not_after)),
        )  # fmt: skip
        return ""

    # -- orders, under the lock

    async def _order(self, due: list[_Held]) -> None:
        for held in due:
            if held.unsaved and held.issued is not None and held.renew_at > self._now():
                self._saved(held, await self._save(held.domain, held.issued))
        due = [held for held in due if held.due(self._now())]
        if not due:
            return
        await self._accounts.ready()
        places = asyncio.Semaphore(AT_ONCE)
        stopped: list[Failure] = []

        async def one(held: _Held) -> None:
            async with places:
                if not stopped:
                    failure = await self._issue(held)
                    if failure is not None and (failure.everyone or failure.account_refused):
                        stopped.append(failure)

        async with asyncio.TaskGroup() as group:
            for held in due:
                group.create_task(one(held))
        if stopped:
            if stopped[0].account_refused and await self._accounts.was_lost():
                for held in due:
                    held.next_try = 0.0  # with a new account at once
                return
            if stopped[0].everyone:
                raise stopped[0]

    async def _issue(self, held: _Held) -> Failure | None:
        account = self._accounts.account
        assert account is not None
        log.info("acme %s: ordering a certificate for %s", self.name, held.domain)
        try:
            issued = await issue(self.config, account, held.domain, self._board, self._executor)
        except Failure as failure:
            held.failures += 1
            pause = after_failure(held.failures, failure, self.config.renewal)
            held.problem, held.next_try = str(failure), self._now() + pause
            log.error(
                "acme %s: no certificate for %s: %s; again in %.0f s",
                self.name, held.domain, failure, pause,
            )  # fmt: skip
            return failure
        self._accounts.worked()
        # Saved first: who is stopped in between does not order it again.
        problem = await self._save(held.domain, issued)
        refused = await self._use(held, issued)
        self._saved(held, problem)
        held.problem = refused or problem
        return None

    async def _save(self, domain: str, issued: Issued) -> str:
        """ "", or why it could not be saved."""
        try:
            await self._storage.write(self._names.certificate(domain), self._names.write_certificate(issued))
        except LockLost as error:
            # Another one may have ordered as well; the later of both is what all will use.
            log.warning("acme %s: the certificate of %s is not kept: %s", self.name, domain, error)
        except StorageError as error:
            return f"in use, but not saved: {error}"
        return ""

    def _saved(self, held: _Held, problem: str) -> None:
        """What can't be saved is used all the same, and saved later: it is not ordered twice."""
        held.unsaved, held.problem = bool(problem), problem
        if problem:
            held.failures += 1
            held.next_try = self._now() + after_failure(held.failures, None, self.config.renewal)
            log.error("acme %s: certificate of %s %s", self.name, held.domain, problem)
        else:
            held.failures, held.next_try = 0, 0.0

    # -- renewal information

    async def _ask_when(self) -> None:
        """The directory's word on when to renew (RFC 9773), where it has one. What fails here is no failure:
        the certificate's lifetime decides then."""
        now = self._now()
        asked = [
            held for held in self._held.values()
            if held.issued is not None and held.ask_again <= now and held.renew_at > now
        ]  # fmt: skip
        account = self._accounts.account
        if not (self.config.renewal.ari and asked) or self._next_try > now:
            return
        key = account.key if account is not None else self._accounts.spare_key
        with Caller(Talk(self.config, key), self._executor) as call:
            for held in asked:
                assert held.issued is not None
                held.ask_again = now + 6 * 3600  # RFC 9773 4.3.3, where nothing else is said
                try:
                    when, held.ask_again = await call(call.talk.renewal_time, held.issued.chain)
                except Failure as failure:
                    log.warning("acme %s: renewal information of %s: %s", self.name, held.domain, failure)
                    return
                if when is not None and when != held.renew_at:
                    # Never behind its end, whatever is suggested.
                    held.renew_at = min(when, held.issued.not_after)
