"""Session tickets that every worker takes, also behind a reload and an upgrade, with keys that change."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from fastgate import _core

__all__ = ["TicketKeys", "TicketRotation", "TicketSecrets"]

_NAME_LENGTH: Final = 16  # of keys the name, with which a ticket begins (RFC 5077 4)


class TicketSecrets(Struct, frozen=True):
    """What all keys are made of. previous: before the last change; b"": there was none. made: when `current`
    was, by time.monotonic(), which counts on over an upgrade."""

    current: bytes
    previous: bytes
    made: float

    def __repr__(self) -> str:
        return "<secrets of tickets>"


class TicketUser(Protocol):
    """Whoever has contexts with keys."""

    def take_ticket_keys(self) -> None:
        """They have changed."""


class TicketKeys:
    """The keys of session tickets (RFC 5077, RFC 8446 4.6.1), made before the workers are forked.

    Each context would make its own: a client that comes back to another worker, or behind a reload, would
    begin anew. Where they can't be set (``_core.set_ticket_keys``), that is so: a ticket is good for
    one context alone, as long as that lives.

    OpenSSL has one key for a context, or a callback for each handshake. A callback would have to come back
    into Python, and fill OpenSSL's structures by hand; so there are two contexts, and whoever begins a
    connection looks for the name of the previous key in what the client sends.
    """

    def __init__(self, secrets: TicketSecrets | None = None) -> None:
        self.secrets = secrets or TicketSecrets(os.urandom(32), b"", time.monotonic())
        self._users: weakref.WeakSet[TicketUser] = weakref.WeakSet()

    def attach(self, user: TicketUser) -> None:
        """It is told of changes, as long as it lives."""
        self._users.add(user)

    def rotate(self) -> None:
        """New ones; those in use until now become the previous ones, and those before are forgotten."""
        self.take(TicketSecrets(os.urandom(32), self.secrets.current, time.monotonic()))

    def take(self, secrets: TicketSecrets) -> None:
        """Those that another process has made."""
        self.secrets = secrets
        for user in list(self._users):
            user.take_ticket_keys()

    def use_in(self, context: ssl.SSLContext, terms: bytes, *, previous: bool = False) -> bytes:
        """A ticket that was given by one context is good for those with equal terms alone. Returns the key's
        name; b"" where there is none to be used."""
        secret = self.secrets.previous if previous else self.secrets.current
        if not secret:
            return b""
        keys = hashlib.shake_256(secret + hashlib.sha256(terms).digest()).digest(_core.TICKET_KEYS_LENGTH)
        return keys[:_NAME_LENGTH] if _core.set_ticket_keys(context, keys) else b""


class TicketRotation:
    """Changes the keys when their time is over, in one process for all. rotated: called when they have
    changed."""

    def __init__(self, keys: TicketKeys, rotated: Callable[[], None] = lambda: None) -> None:
        self._keys = keys
        self._rotated = rotated
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, period: float) -> None:
        """How many seconds a key is in use, from now on."""
        self.close()
        left = max(0.0, self._keys.secrets.made + period - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(left, self._rotate, period)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rotate(self, period: float) -> None:
        self._keys.rotate()
        self._rotated()
        self.follow(period)
