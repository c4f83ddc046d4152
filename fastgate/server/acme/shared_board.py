"""Challenges over several replicas: what one has ordered, any of them may be asked for.

Each replica looks into Redis twice a second, puts what is new there on its own board, and says so. Who
orders waits until all replicas that are alive have said so, and only then tells the directory to look: so
nothing has to be asked of Redis while a request waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from typing import Final

from fastgate.server.acme.board import Challenge, ChallengeBoard
from fastgate.server.acme.redis_place import Place
from fastgate.server.acme.storage import StorageError

__all__ = ["SharedBoard"]

log: Final = logging.getLogger("fastgate.acme")
LOOK: Final = 0.5  # seconds between two looks
ALIVE: Final = 3.0  # seconds after its last look in which a replica counts
PATIENCE: Final = 5.0  # seconds that an order waits for the others
KEPT: Final = 600  # seconds after which a challenge that nobody removed is gone
MOST: Final = 1000  # challenges at a time

# KEYS: replicas, challenges, seen. ARGV: replica, seconds that one counts. Redis' clock is everybody's.
_LOOK: Final = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return redis.call('HGETALL', KEYS[2])
"""
# KEYS: challenges. ARGV: field, value, seconds, most.
_PUT: Final = """
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('EXPIRE', KEYS[1], ARGV[3])
"""
# KEYS: seen of one challenge. ARGV: replica, seconds.
_SEEN: Final = """
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""
# KEYS: replicas, seen of one challenge. Those that have not seen it.
_UNSEEN: Final = """
local missing = 0
for _, each in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if redis.call('SISMEMBER', KEYS[2], each) == 0 then missing = missing + 1 end
end
return missing
"""


class SharedBoard:
    """A ``ChallengeBoard``. local: of this replica. run() is a task of whoever makes it."""

    def __init__(self, local: ChallengeBoard, place: Place) -> None:
        self._local, self._place = local, place
        self._me = secrets.token_hex(8)
        self._there: dict[str, Challenge] = {}  # what others have ordered, on our own board
        self._ours: set[str] = set()
        self._failing = False

    async def put(self, challenge: Challenge) -> None:
        field = _field(challenge)
        self._ours.add(field)
        await self._local.put(challenge)
        try:
            value = json.dumps([challenge.kind, challenge.key, challenge.authorization])
            await self._place.run(_PUT, ["challenges"], field, value, KEPT, MOST)
            await self._seen(field)
            until = time.monotonic() + PATIENCE
            while missing := await self._place.run(_UNSEEN, ["replicas", f"seen:{field}"]):
                if time.monotonic() > until:
                    log.warning("acme: %d replicas do not answer the challenge of an order yet", missing)
                    return
                await asyncio.sleep(LOOK / 5)
        except StorageError as error:
            # Perhaps the directory asks us: try, and say why it may fail.
            log.warning("acme: a challenge is not shared with other replicas: %s", error)

    async def remove(self, challenge: Challenge) -> None:
        field = _field(challenge)
        self._ours.discard(field)
        await self._local.remove(challenge)
        with contextlib.suppress(StorageError):
            await self._place.ask("HDEL", f"{self._place.prefix}challenges", field)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._look()
                self._failing = False
            except StorageError as error:
                if not self._failing:
                    log.warning("acme: challenges of other replicas are not seen: %s", error)
                self._failing = True
            await asyncio.sleep(LOOK)

    async def _look(self) -> None:
        keys = ["replicas", "challenges"]
        flat = await self._place.run(_LOOK, keys, self._me, int(ALIVE))
        found = {bytes(flat[at]).decode(): bytes(flat[at + 1]) for at in range(0, len(flat), 2)}
        for field in self._there.keys() - found.keys():
            await self._local.remove(self._there.pop(field))
        for field, value in found.items():
            if field not in self._there and field not in self._ours:
                challenge = _challenge(value)
                if challenge is None:
                    continue
                await self._local.put(challenge)
                self._there[field] = challenge
                await self._seen(field)

    async def _seen(self, field: str) -> None:
        await self._place.run(_SEEN, [f"seen:{field}"], self._me, KEPT)


def _field(challenge: Challenge) -> str:
    return f"{challenge.kind}:{challenge.key}"


def _challenge(value: bytes) -> Challenge | None:
    try:
        kind, key, authorization = json.loads(value)
    except (ValueError, TypeError):
        return None
    if kind not in ("http-01", "tls-alpn-01"):
        return None
    if not isinstance(key, str) or not isinstance(authorization, str):
        return None
    return Challenge(kind, key, authorization)
