"""Session tickets that every worker takes, also behind a reload and an upgrade, with keys that change."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import ssl
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

__all__ = ["TicketKeys", "TicketRotation", "TicketSecrets"]

_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS; without keys it tells their length
_SET_SESSION_CACHE: Final = 44  # SSL_CTRL_SET_SESS_CACHE_MODE; 0 is off
_KEYS_LENGTH: Final = 80  # a name, a key for HMAC, a key for AES
_NAME_LENGTH: Final = 16  # of them the name, with which a ticket begins (RFC 5077 4)


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

    Python's ssl module has no call for them, and each context would make its own: a client that comes back
    to another worker, or behind a reload, would begin anew. The library that the module itself is linked with
    is asked. Where that can't be done, ``shared`` is False, and a ticket is good for one context alone, as
    long as that lives.

    OpenSSL has one key for a context, or a callback for each handshake. A callback would have to come back
    into Python, and fill OpenSSL's structures by hand; so there are two contexts, and whoever begins a
    connection looks for the name of the previous key in what the client sends.
    """

    def __init__(self, secrets: TicketSecrets | None = None) -> None:
        self.secrets = secrets or TicketSecrets(os.urandom(32), b"", time.monotonic())
        self._control = _find_control()
        self._users: weakref.WeakSet[TicketUser] = weakref.WeakSet()

    @property
    def shared(self) -> bool:
        return self._control is not None

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
        if self._control is None or not secret:
            return b""
        # A context's own structure stands behind what every Python object begins with.
        address = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
        keys = hashlib.shake_256(secret + hashlib.sha256(terms).digest()).digest(_KEYS_LENGTH)
        self._control(address, _SET_TICKET_KEYS, len(keys), keys)
        # No sessions are kept here: a client without tickets would find them in one worker alone.
        self._control(address, _SET_SESSION_CACHE, 0, None)
        return keys[:_NAME_LENGTH]


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


def _find_control() -> ctypes._NamedFuncPointer | None:
    import _ssl

    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        control, count = library.SSL_CTX_ctrl, library.SSL_CTX_get_num_tickets
    except (AttributeError, OSError):
        return None
    control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    control.restype = ctypes.c_long
    count.argtypes, count.restype = (ctypes.c_void_p,), ctypes.c_size_t
    # What we take for OpenSSL's structure must say what Python says of it.
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    address = ctypes.c_void_p.from_address(id(probe) + object.__basicsize__).value
    for number in (7, 2):
        probe.num_tickets = number
        if address is None or count(address) != number:
            return None
    return control if control(address, _SET_TICKET_KEYS, 0, None) == _KEYS_LENGTH else None
