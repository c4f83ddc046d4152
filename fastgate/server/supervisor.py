"""The supervisor: what there is once for all workers, and what changes them all, or none.

It serves no traffic. It has the listening sockets, the shared memory, the admin API, and the configuration in
force, from which each new worker is forked.

Reload. Every worker prepares the configuration beside the one that runs. When all have, it is in force, and
each is told to change over; if one can't, none does. Who dies in between is forked anew from what is in
force.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import NoneType
from typing import Final

from fastgate import _core
from fastgate.config import Config, Loaded, model
from fastgate.config.spaces import said_now
from fastgate.server import carrying
from fastgate.server.acme.handle import EngineHandle
from fastgate.server.acme.plan import wanted
from fastgate.server.channel import MOST_DESCRIPTORS
from fastgate.server.common import Common, CounterPlaces
from fastgate.server.fleet import Fleet
from fastgate.server.heartbeat import Heartbeats
from fastgate.server.history import history_of
from fastgate.server.identity import identity_of
from fastgate.server.inheritance import Heirloom, Inheritance
from fastgate.server.keeper import Applied, Keeper, at_once
from fastgate.server.listeners import Key, Opened, addresses_of, listener_key, open_listener, taken_hint
from fastgate.server.operations import Cause, ReloadError, ReloadResult, no_room
from fastgate.server.side_servers import SideServers
from fastgate.server.sockets import Bind, Listening, OpenError
from fastgate.server.tickets import TicketRotation
from fastgate.server.upgrade import start_successor
from fastgate.server.watch import Watcher
from fastgate.server.worker_handle import WorkerGone, WorkerHandle
from fastgate.server.worker_process import DrainOrder, SocketSet, WorkerOrder
from fastgate.server.workers import Workers

__all__ = ["Supervisor"]

NS: Final = 1e9


class Supervisor:
    """Runs in an asyncio loop of its own. tell: takes each line that an operator should read. inheritance:
    sockets that are open already."""

    def __init__(
        self, loaded: Loaded, tell: Callable[[str], None], inheritance: Inheritance | None = None
    ) -> None:
        self._inheritance = inheritance or Inheritance()
        self.config = loaded.config
        self.version = 1  # of what the workers run; the operator's is the keeper's
        self.started = time.time()
        self._tell = tell
        # A program that takes over begins with what is in force, whatever the files say.
        taken = self._inheritance.sources
        self.keeper = Keeper(
            self.config,
            self._apply,
            tell,
            history_of(self.config, tell),
            aside=at_once,
            files=None if taken is None else said_now(taken),
        )
        self._count = count = self.config.server.workers
        # Substitutes, and those that leave, have places of their own.
        self.common = Common(self.config, 2 * count + 1, self._inheritance.tickets)
        self._beats = Heartbeats(2 * count + 1)
        self.workers = Workers(
            count,
            self._beats,
            self._order,
            self._lend,
            version=lambda: self.version,
            hang_seconds=lambda: self.config.server.hang_timeout / NS,
            tell=tell,
        )
        self._rotation = TicketRotation(self.common.ticket_keys, self._tell_tickets)
        self.acme = EngineHandle(self.common.answers, lambda: self.workers.all, tell)
        self._listening: dict[Key, Listening] = {}
        self._places: CounterPlaces = ({}, {})
        self._sides = SideServers(Fleet(self))
        self._watcher: Watcher | None = None
        self._changing = asyncio.Lock()
        self.succeeded = asyncio.Event()  # another program serves on our sockets
        self.stopping = asyncio.Event()  # somebody has told it to drain
        self.draining = False

    # -- life

    @property
    def listening(self) -> dict[str, tuple[str, ...]]:
        """The addresses of each listener, by its name, in the order of the configuration."""
        open_ones = ((each.name, self._listening.get(listener_key(each))) for each in self.config.listeners)
        return {name: tuple(listening.addresses) for name, listening in open_ones if listening is not None}

    async def start(self) -> Opened:
        """Opens every listener, forks the workers, and waits until all serve. Returns (address, name) of each
        listener. Raises OpenError; then nothing is open, and no worker is left."""
        config = self.config
        self._identity = identity_of(config.server.user)
        with ExitStack() as undo:
            for each in config.listeners:
                self._listening[listener_key(each)] = listening = self._open(each)
                undo.callback(listening.close)
            sides = await self._sides.prepare(config, self._inheritance)
            undo.callback(sides.close)
            self._inheritance.close_rest()
            self._places = self.common.assign(config, ([], []))
            await self.workers.start()
            undo.pop_all()
        self._follow(config)
        await self.keeper.begin()
        if config.server.watch:
            self._watcher = Watcher(self.keeper, self._tell, aside=at_once)
            self._watcher.start()
        return addresses_of(config, self._listening) + self._sides.follow(sides)

    def _follow(self, config: Config) -> None:
        self.acme.follow(wanted(config), self._identity)
        self._rotation.follow(config.server.ticket_rotation / NS)

    def _tell_tickets(self) -> None:
        for handle in self.workers.all:
            handle.post("take_tickets", self.common.ticket_keys.secrets)

    def _open(self, listener: model.Listener) -> Listening:
        taken = self._inheritance.take((_label(listener), listener.name), listener)
        listening = Listening(listener, taken) if taken else open_listener(listener)
        listening.spread(self._count)
        return listening

    def _order(self, seat: int, place: int, channel: socket.socket) -> WorkerOrder:
        return WorkerOrder(
            place=place,
            config=self.config,
            version=self.version,
            common=self.common,
            places=self._places,
            sockets=self._share(self._listening, seat),
            channel=channel,
            beats=self._beats,
            identity=self._identity,
        )

    def _share(self, listening: Mapping[Key, Listening], seat: int) -> SocketSet:
        return {key: each.share(seat - 1, self._count) for key, each in listening.items()}

    def _lend(self, borrower: WorkerHandle, seat: int, begins: bool) -> None:
        keys, descriptors = _sent(self._share(self._listening, seat))
        if begins and len(descriptors) <= MOST_DESCRIPTORS:
            borrower.post("borrow", seat, keys, descriptors=descriptors)
        else:
            borrower.post("give_back", seat)

    async def drain(self, timeout: float | None = None, grace: float = 0) -> dict[str, int]:  # noqa: ASYNC109
        """Takes nothing new; the workers finish what runs within ``timeout`` seconds (None:
        server.drain_timeout). Returns the sum of their reports."""
        self.draining = True
        if self._watcher is not None:
            await self._watcher.stop()
        async with self._changing:
            patience = self.config.server.drain_timeout / NS if timeout is None else timeout
            self._rotation.close()
            await self.acme.close()
            for listening in self._listening.values():
                listening.close()
            reports = await self.workers.drain(DrainOrder(patience, grace), patience + 30)
            await self._sides.stop()
        total = dict.fromkeys(("cut", "connections", "exchanges", "pooled", "timers", "log_dropped"), 0)
        for report_ in reports:
            for name, number in report_.items():
                total[name] = total.get(name, 0) + number
        return total

    async def upgrade(self) -> int:
        """Starts the program anew beside this one, on the same sockets; its process id. Whoever runs this one
        then drains it. Raises ReloadError; then nothing has changed."""
        try:
            return await self._upgrade()
        except ReloadError as error:
            self._tell(f"fastgate: not upgraded: {error}")
            raise

    async def _upgrade(self) -> int:
        if self.draining:
            raise ReloadError("it is draining")
        async with self._changing:
            heirlooms = [
                Heirloom(_label(listening.bind), sock)
                for listening in self._listening.values()
                for sock in listening.sockets
            ]
            heirlooms += self._sides.heirlooms()
            pid = await start_successor(heirlooms, self.config.sources, self.common.ticket_keys.secrets)
            for listening in self._listening.values():
                listening.hand_over()
            self._sides.hand_over()
        self._tell(f"fastgate: upgraded: the program with pid {pid} serves")
        self.succeeded.set()
        return pid

    def reopen_log(self) -> None:
        """Opens the access log's file anew, after it was renamed (SIGUSR1)."""
        for handle in self.workers.all:
            handle.post("reopen_log")

    # -- reload

    async def reload(
        self, config: Config | None = None, *, cause: Cause = "program", expected: str | None = None
    ) -> ReloadResult:
        """Puts a configuration in force in all workers; None: that of the files, read anew. How it went is
        told. expected: the etag of the one that it is to take the place of. Raises Outdated where that is not
        in force, and ReloadError; then nothing has changed in any of them."""
        return await self.keeper.reload(config, cause=cause, expected=expected)

    async def _apply(self, config: Config) -> Applied:
        before = self.config.server
        if self.draining:
            raise ReloadError("it is draining")
        async with self._changing:
            opened = await self._change(config)
        warnings = [
            f"fastgate: warning: server.{name} changes with a restart or `fastgate upgrade`"
            for name in ("workers", "user", "watch", "state_dir")
            if getattr(before, name) != getattr(config.server, name)
        ]
        return Applied(opened, warnings)

    async def _change(self, config: Config) -> Opened:
        with ExitStack() as undo:
            added: dict[Key, Listening] = {}
            try:
                for each in config.listeners:
                    if listener_key(each) not in self._listening:
                        added[listener_key(each)] = listening = self._open(each)
                        undo.callback(listening.close)
                sides = await self._sides.prepare(config)
                undo.callback(sides.close)
            except OpenError as error:
                raise ReloadError(f"{error}{taken_hint(config, self._listening)}") from error
            workers = self.workers.ready
            places = await self._assign(config, workers)
            await self._prepare(config, places, added, workers)
            undo.pop_all()
        # From here on it is in force: who is forked now has it.
        self.config, self._places = config, places
        self.version += 1
        self._listening.update(added)
        await asyncio.gather(*(self._commit(handle) for handle in workers))
        present = {listener_key(each) for each in config.listeners}
        for key in set(self._listening) - present:
            self._listening.pop(key).close()
        self.workers.replace_stale()
        self._follow(config)
        return addresses_of(config, added) + self._sides.follow(sides)

    async def _assign(self, config: Config, workers: list[WorkerHandle]) -> CounterPlaces:
        held: tuple[set[int], set[int]] = set(), set()
        for handle in workers:
            try:
                routes, upstreams = await handle.ask(tuple[list[int], list[int]], "held")
            except WorkerGone:
                continue
            held[0].update(routes)
            held[1].update(upstreams)
        try:
            return self.common.assign(config, held)
        except _core.SlotsFull as error:
            raise no_room(error) from error

    async def _prepare(
        self,
        config: Config,
        places: CounterPlaces,
        added: dict[Key, Listening],
        workers: list[WorkerHandle],
    ) -> None:
        """By all workers, or by none. Who dies meanwhile is replaced, and has no say."""
        packed = carrying.dumps(config)
        sent = [_sent(self._share(added, handle.seat)) for handle in workers]
        if any(len(descriptors) > MOST_DESCRIPTORS for _, descriptors in sent):
            raise ReloadError(f"one reload opens at most {MOST_DESCRIPTORS} sockets; a restart opens more")
        answers = await asyncio.gather(
            *(
                handle.ask(NoneType, "prepare", packed, places, keys, descriptors=descriptors)
                for handle, (keys, descriptors) in zip(workers, sent, strict=True)
            ),
            return_exceptions=True,
        )
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        refusals = [failure for failure in failures if not isinstance(failure, WorkerGone)]
        if refusals or len(failures) == len(workers):
            await asyncio.gather(
                *(handle.ask(NoneType, "abort") for handle in workers), return_exceptions=True
            )
            raise ReloadError(str(refusals[0]) if refusals else "no worker is ready to take it")

    async def _commit(self, handle: WorkerHandle) -> None:
        try:
            await handle.ask(NoneType, "commit")
            handle.version = self.version
        except WorkerGone:
            pass  # it is forked anew
        except ReloadError:
            handle.abort()  # a defect: nobody serves on with half a configuration


def _label(listener: Bind) -> str:
    assert isinstance(listener, model.Listener)
    return json.dumps(listener_key(listener))


def _sent(share: SocketSet) -> tuple[list[Key], list[int]]:
    """As a message takes them along: the listener that each belongs to, and the descriptors."""
    keys = [key for key, sockets in share.items() for _ in sockets]
    return keys, [sock.fileno() for sockets in share.values() for sock in sockets]
