"""The keys of one issuer: loaded in the background, kept in an outage, loaded anew when a token names a key
that is not among them.

All loading is done by one task (``KeySet.run``), so there is never more than one load under way; requests
that need it wait for the same one. A rate bounds what tokens with made-up key ids can make the gateway ask
for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from fastgate.plugins import Host
from fastgate.plugins._auth.ask import Unavailable
from fastgate.plugins._auth.jwk import Key, key_from_pem, key_from_secret, keys_from_jwks
from fastgate.plugins._auth.jws import Token, TokenError, candidates
from fastgate.plugins._auth.sources import Source, SourceError

# Seconds that a request waits for a load. Less than the time that a plugin gets by default.
PATIENCE: Final = 3.0
# The first pause after a load that failed, in seconds; it doubles up to the second.
RETRY: Final = (1.0, 60.0)

Parse = Callable[[bytes], tuple[tuple[Key, ...], list[str]]]


class StaticKeys:
    """Keys that never change: a shared secret."""

    def __init__(self, secret: str) -> None:
        self.keys = (key_from_secret(secret),)

    async def find(self, token: Token) -> list[Key]:
        """The keys that may have signed ``token``."""
        return _by_algorithm(token, self.keys)


class KeySet:
    """Keys from a source.

    refresh: seconds between two loads, give or take a tenth, so that replicas don't ask at once. refetch:
    seconds between two loads that requests ask for. by_kid: False for a source that is one key, whatever a
    token calls it. on_change: called when other keys are in force than before.
    """

    def __init__(
        self,
        host: Host,
        source: Source,
        *,
        refresh: float = 600.0,
        refetch: float = 10.0,
        parse: Parse = keys_from_jwks,
        by_kid: bool = True,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        #: The keys in force; None before the first load that succeeded.
        self.keys: tuple[Key, ...] | None = None
        #: Why the last load failed; "" if it did not.
        self.failing = ""
        self._host, self._source, self._parse, self._by_kid = host, source, parse, by_kid
        self._refresh, self._refetch, self._on_change = refresh, refetch, on_change
        self._digest = b""
        self._failures = 0
        self._begun = float("-inf")
        self._asked = asyncio.Event()
        self._flight: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Loads now and then, for ever: for ``host.spawn``."""
        try:
            while True:
                self._flight = self._flight or asyncio.get_running_loop().create_future()
                self._asked.clear()
                await self.load()
                self._landed()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._asked.wait()
        finally:
            self._landed()

    async def load(self) -> None:
        """One load. Failures keep the keys that are there, and are logged and counted."""
        self._begun = self._host.clock.monotonic()
        try:
            data = await self._source.load()
            keys, skipped = self._parse(data)
        except (SourceError, ValueError) as error:
            self._failed(str(error))
            return
        if self.failing:
            self._host.log.info("the keys from %s can be had again", self._source.label)
        self.failing, self._failures = "", 0
        digest = sha256(data).digest()
        if digest == self._digest and self.keys is not None:
            return
        self.keys, self._digest = keys, digest
        for why in skipped:
            self._host.log.warning("keys from %s: %s", self._source.label, why)
        self._host.count("keys_changed")
        self._on_change()

    async def find(self, token: Token) -> list[Key]:
        """The keys that may have signed ``token``, at least one. Raises TokenError, Unavailable."""
        if self.keys is None:
            await self._ask()
            if self.keys is None:
                raise Unavailable(f"no keys from {self._source.label}: {self.failing or 'not yet'}")
        if not self._by_kid:
            return _by_algorithm(token, self.keys)
        found = candidates(token, self.keys)
        if not found and token.kid:
            await self._ask()
            found = candidates(token, self.keys)
        if found:
            return found
        if token.kid and self.failing:
            raise Unavailable(f"an unknown kid, and no news from {self._source.label}: {self.failing}")
        raise TokenError(f"no key for alg {token.alg} and kid {token.kid[:64]!r}")

    async def _ask(self) -> None:
        """Waits for the load that is under way, or for one that it begins if the rate allows it."""
        if self._flight is None:
            if self._host.clock.monotonic() - self._begun < self._refetch:
                self._host.count("refetch_limited")
                return
            self._flight = asyncio.get_running_loop().create_future()
            self._asked.set()
        # Not `asyncio.timeout`: a plugin's coroutine may run outside of a task until it first waits.
        await asyncio.wait([self._flight], timeout=PATIENCE)

    def _landed(self) -> None:
        if self._flight is not None and not self._flight.done():
            self._flight.set_result(None)
        self._flight = None

    def _pause(self) -> float:
        if self._failures:
            first, longest = RETRY
            return min(first * 2.0 ** min(self._failures - 1, 16), longest, self._refresh)
        return self._refresh * random.uniform(0.9, 1.1)

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._host.count("keys_failed")
        if why != self.failing:  # once, not with every try of a long outage
            kept = "" if self.keys is None else "; the keys of before are kept"
            self._host.log.warning("no keys from %s: %s%s", self._source.label, why, kept)
        self.failing = why


def parse_pem(data: bytes) -> tuple[tuple[Key, ...], list[str]]:
    """``KeySet``'s ``parse`` for a PEM file."""
    return (key_from_pem(data),), []


def _by_algorithm(token: Token, keys: tuple[Key, ...]) -> list[Key]:
    found = [key for key in keys if key.fits(token.alg)]
    if not found:
        raise TokenError(f"no key for alg {token.alg}")
    return found
