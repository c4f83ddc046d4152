"""What OpenSSL can do and Python's ssl module has no call for.

Asked of the library that the module itself is linked with. Where that can't be reached, as in a Python that
has OpenSSL built in, each function returns False and changes nothing.
"""

from __future__ import annotations

import ctypes
import ssl
from functools import lru_cache
from typing import Final

__all__ = ["TICKET_KEYS_LENGTH", "set_ciphersuites", "set_ticket_keys"]

TICKET_KEYS_LENGTH: Final = 80  # a name, a key for HMAC, a key for AES

_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS; without keys it tells their length
_SET_SESSION_CACHE: Final = 44  # SSL_CTRL_SET_SESS_CACHE_MODE; 0 is off


def set_ciphersuites(context: ssl.SSLContext, suites: str) -> bool:
    """Those of TLS 1.3, colons between them, the preferred first (SSL_CTX_set_ciphersuites)."""
    library = _library()
    return library is not None and bool(library.SSL_CTX_set_ciphersuites(_address(context), suites.encode()))


def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> bool:
    """What it makes and reads session tickets with, ``TICKET_KEYS_LENGTH`` bytes. From then on it keeps no
    sessions itself: a client without tickets would find them in one worker alone."""
    library = _library()
    if library is None:
        return False
    library.SSL_CTX_ctrl(_address(context), _SET_SESSION_CACHE, 0, None)
    return bool(library.SSL_CTX_ctrl(_address(context), _SET_TICKET_KEYS, len(keys), keys))


def _address(context: ssl.SSLContext) -> int | None:
    # A context's own structure stands behind what every Python object begins with.
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    import _ssl

    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        control, count, suites = (
            library.SSL_CTX_ctrl,
            library.SSL_CTX_get_num_tickets,
            library.SSL_CTX_set_ciphersuites,
        )
    except (AttributeError, OSError):
        return None
    control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    control.restype = ctypes.c_long
    count.argtypes, count.restype = (ctypes.c_void_p,), ctypes.c_size_t
    suites.argtypes, suites.restype = (ctypes.c_void_p, ctypes.c_char_p), ctypes.c_int
    # What we take for OpenSSL's structure must say what Python says of it.
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for number in (7, 2):
        probe.num_tickets = number
        if not (address := _address(probe)) or count(address) != number:
            return None
    return library if control(address, _SET_TICKET_KEYS, 0, None) == TICKET_KEYS_LENGTH else None
