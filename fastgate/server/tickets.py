"""Session tickets that every worker takes, also behind a reload."""

from __future__ import annotations

import ctypes
import hashlib
import os
import ssl
from typing import Final

__all__ = ["TicketKeys"]

_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS; without keys it tells their length
_SET_SESSION_CACHE: Final = 44  # SSL_CTRL_SET_SESS_CACHE_MODE; 0 is off
_KEYS_LENGTH: Final = 80  # a name, a key for HMAC, a key for AES


class TicketKeys:
    """The keys of session tickets (RFC 5077, RFC 8446 4.6.1), made before the workers are forked.

    Python's ssl module has no call for them, and each context would make its own: a client that comes back
    to another worker, or behind a reload, would begin anew. The library that the module itself is linked with
    is asked. Where that can't be done, ``shared`` is False, and a ticket is good for one context alone.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._control = _find_control()

    @property
    def shared(self) -> bool:
        return self._control is not None

    def use_in(self, context: ssl.SSLContext, terms: bytes) -> None:
        """A ticket that was given by one context is good for those with equal terms alone."""
        if self._control is not None:
            # A context's own structure stands behind what every Python object begins with.
            address = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
            keys = hashlib.shake_256(self._secret + hashlib.sha256(terms).digest()).digest(_KEYS_LENGTH)
            self._control(address, _SET_TICKET_KEYS, len(keys), keys)
            # No sessions are kept here: a client without tickets would find them in one worker alone.
            self._control(address, _SET_SESSION_CACHE, 0, None)


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
