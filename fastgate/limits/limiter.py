"""A limit that Redis decides, and what is done while there is no Redis."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import hiredis

from fastgate import _core
from fastgate.config import model
from fastgate.limits.places import Place
from fastgate.limits.resp import command
from fastgate.limits.scripts import CHARGE, QUOTA, SLIDING_WINDOW, TOKEN_BUCKET, digest

log: Final = logging.getLogger("fastgate.limits")

# A key that is asked for again within this is hot, and a lease is good for as long.
HOT_SECONDS: Final = 0.1
MAX_LEASES: Final = 10_000


class LocalBuckets:
    """Token buckets of this worker, for as long as nothing else can be asked."""

    def __init__(self, rate: float, burst: int, most: int) -> None:
        self._rate, self._burst, self._most = rate, burst, most  # rate: tokens a second
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, key: bytes, cost: int, now: float) -> tuple[bool, float]:
        """Whether it passes, and the tokens that are left."""
        level, seen = self._buckets.pop(key, (float(self._burst), now))
        level = min(self._burst, level + (now - seen) * self._rate)
        passes = level >= cost
        if passes:
            level -= cost
        self._buckets[key] = (level, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return passes, level


class RedisLimiter:
    """What `_core.PendingFilter` asks. now: seconds of the wall clock, for the periods of quotas."""

    def __init__(self, config: model.RateLimit, place: Place, now: Callable[[], float] = time.time) -> None:
        assert config.redis is not None
        self.config = config
        self.counts = dict.fromkeys(
            ("asked", "leased", "refused", "reported", "late", "local", "open", "closed"), 0
        )
        self._place = place
        self._now = now
        self._down = False
        self._leases: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # key: (tokens, until)
        count, per_us = config.rate.count, config.rate.per_ns / 1000
        self._interval = per_us / count
        self._words: tuple[str, ...]
        if config.algorithm == "token-bucket":
            self._script = TOKEN_BUCKET
            self._words = (repr(self._interval), repr(self._interval * config.burst))
            self._limit, self._window = config.burst, max(1, -(-config.burst * per_us // (count * 1_000_000)))
        elif config.algorithm == "sliding-window":
            self._script = SLIDING_WINDOW
            self._words = (repr(per_us), str(count))
            self._limit, self._window = count, max(1, per_us / 1_000_000)
        else:
            self._script = QUOTA
            self._words = (str(config.quota_count),)
            self._limit = config.quota_count
            self._window = {"hour": 3600, "day": 86400, "month": 2_592_000}[config.quota_period]
        shape = repr((config.algorithm, config.rate, config.burst, config.quota_count, config.quota_period))
        shape = hashlib.blake2b(shape.encode(), digest_size=4).hexdigest()
        self._prefix = f"{config.redis.prefix}{config.name}:{shape}:".encode()
        self._sha = digest(self._script)
        self._local = LocalBuckets(1e6 / self._interval, config.burst, config.max_keys)
        if config.algorithm != "token-bucket":
            self._local = LocalBuckets(self._limit / self._window, self._limit, config.max_keys)

    @property
    def code(self) -> str:
        return "quota-exceeded" if self.config.algorithm == "quota" else "rate-limited"

    # -- decisions

    def begin(self, key: bytes, ticket: _core.Ticket) -> None:
        cost = ticket.cost
        now = time.monotonic()
        most = cost
        if self.config.lease:
            tokens, until = self._leases.get(key, (0, 0.0))
            if now < until:
                if tokens >= cost:
                    self._leases[key] = (tokens - cost, until)
                    self.counts["leased"] += 1
                    ticket.settle(False, lines=self._lines(tokens - cost, 0, 0))
                    return
                most = cost + self.config.lease  # it was asked for a moment ago: it is hot
            self._remember(key, 0, now)
        name = self._name(key)
        connection = self._place.connection(name)
        if connection is None or not connection.ready:
            self._without(key, ticket)
            return
        words: list[str | int] = [*self._words, cost]
        if self._script is TOKEN_BUCKET:
            words.append(most)
        elif self._script is QUOTA:
            words.append(self._ends_ms())
        told = functools.partial(self._decided, key, ticket, words)
        if connection.send(command("EVALSHA", self._sha, 1, name, *words), told):
            self.counts["asked"] += 1
        else:
            self._without(key, ticket)

    def _decided(self, key: bytes, ticket: _core.Ticket, words: list[str | int], reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == 4 and all(isinstance(each, int) for each in reply):
            granted, left, retry_ms, reset_ms = reply
            self._is_up()
            if granted > ticket.cost:
                self._remember(key, granted - ticket.cost, time.monotonic())
            self._settle(ticket, not granted, left, retry_ms, reset_ms)
            return
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith("NOSCRIPT"):
                # Redis was started anew, or its scripts were flushed.
                name = self._name(key)
                connection = self._place.connection(name)
                again = functools.partial(self._decided, key, ticket, words)
                if connection is not None and connection.send(
                    command("EVAL", self._script, 1, name, *words), again
                ):
                    return
            elif text.startswith(("MOVED", "ASK", "CLUSTERDOWN")):
                self._place.moved()
            else:
                log.error("limit %s: redis says: %s", self.config.name, text)
        else:
            self.counts["late"] += 1
        self._without(key, ticket)

    def _without(self, key: bytes, ticket: _core.Ticket) -> None:
        """There is nobody to ask."""
        how = self.config.on_error
        if not self._down:
            self._down = True
            log.warning("limit %s: Redis can't be asked, on_error is %s", self.config.name, how)
        self.counts[how] += 1
        if how == "open":
            ticket.settle(False)
        elif how == "closed":
            ticket.settle(True, "limit-unavailable")
        else:
            passes, left = self._local.take(key, ticket.cost, time.monotonic())
            wait = 0 if passes else (ticket.cost - left) * self._window / self._limit * 1000
            self._settle(
                ticket, not passes, int(left), wait, (self._limit - left) * self._window / self._limit * 1000
            )

    def _settle(
        self, ticket: _core.Ticket, refused: bool, left: int, retry_ms: float, reset_ms: float
    ) -> None:
        lines = self._lines(left, retry_ms if refused else 0, reset_ms)
        if refused:
            self.counts["reported" if self.config.report_only else "refused"] += 1
        ticket.settle(refused and not self.config.report_only, self.code, lines)

    def _is_up(self) -> None:
        if self._down:
            self._down = False
            log.warning("limit %s: Redis decides again", self.config.name)

    def charge(self, key: bytes, tokens: int) -> None:
        """What a request turned out to cost beyond what was taken."""
        name = self._name(key)
        connection = self._place.connection(name)
        if tokens and connection is not None and self._script is TOKEN_BUCKET:
            connection.send(command("EVAL", CHARGE, 1, name, *self._words, tokens), _ignore)

    # -- names and fields

    def _name(self, key: bytes) -> bytes:
        name = self._prefix + key.hex().encode()
        if self.config.algorithm == "quota":
            return name + b":" + self._period().encode()
        return name

    def _period(self) -> str:
        form = {"hour": "%Y%m%d%H", "day": "%Y%m%d", "month": "%Y%m"}[self.config.quota_period]
        return datetime.fromtimestamp(self._now(), UTC).strftime(form)

    def _ends_ms(self) -> int:
        """Until the hour, day or month ends (UTC)."""
        now = datetime.fromtimestamp(self._now(), UTC)
        begin = now.replace(minute=0, second=0, microsecond=0)
        if self.config.quota_period == "hour":
            end = begin + timedelta(hours=1)
        elif self.config.quota_period == "day":
            end = begin.replace(hour=0) + timedelta(days=1)
        else:
            end = (begin.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1)
        return max(1, round((end - now).total_seconds() * 1000))

    def _remember(self, key: bytes, tokens: int, now: float) -> None:
        self._leases[key] = (tokens, now + HOT_SECONDS)
        self._leases.move_to_end(key)
        if len(self._leases) > MAX_LEASES:
            self._leases.popitem(last=False)

    def _lines(self, left: int, retry_ms: float, reset_ms: float) -> bytes:
        """The fields, as those of core/rate_limit.pyx."""
        if self.config.report_only:
            return b""
        reset = max(1, -int(-reset_ms // 1000)) if reset_ms else 0
        text = ""
        if retry_ms:
            reset = max(1, -int(-retry_ms // 1000))
            text = f"Retry-After: {reset}\r\n"
        if "ratelimit" in self.config.headers:
            name = self.config.name.replace("\\", "\\\\").replace('"', '\\"')
            text += f'RateLimit-Policy: "{name}";q={self._limit};w={int(self._window)}\r\n'
            text += f'RateLimit: "{name}";r={left};t={reset}\r\n'
        if "x-ratelimit" in self.config.headers:
            text += f"X-RateLimit-Limit: {self._limit}\r\nX-RateLimit-Remaining: {left}\r\n"
            text += f"X-RateLimit-Reset: {reset}\r\n"
        return text.encode("ascii")


def _ignore(reply: object) -> None:
    """What is charged afterwards is lost where Redis is."""
