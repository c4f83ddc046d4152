"""TLS of the listeners: which certificate is shown to whom, and tickets that every worker takes."""

from __future__ import annotations

import ctypes
import os
import ssl
from typing import Final

from fastgate.config import Config, model
from fastgate.config.tls_context import server_context

__all__ = ["TicketKeys", "https_redirect", "listener_context"]

_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS; without keys it tells their length

_SET_CACHE_MODE: Final = 44  # SSL_CTRL_SET_SESS_CACHE_MODE
_CACHE_OFF: Final = 0


class TicketKeys:
    """The keys of session tickets (RFC 5077, RFC 8446 4.6.1), made before the workers are forked.

    Python's ssl module has no call for them, and each context would make its own: a client that comes back
    to another worker, or behind a reload, would begin anew. The library that the module itself is linked with
    is asked. Where that can't be done, ``shared`` is False, and a ticket is good for one context alone.
    """

    def __init__(self) -> None:
        self._keys = os.urandom(80)
        self._control = _find_control()

    @property
    def shared(self) -> bool:
        return self._control is not None

    def use_in(self, context: ssl.SSLContext) -> None:
        if self._control is not None:
            # A context's own structure stands behind what every Python object begins with.
            address = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
            self._control(address, _SET_TICKET_KEYS, len(self._keys), self._keys)
            # A ticket is all that is needed: nothing has to be kept for clients that may never come back.
            self._control(address, _SET_CACHE_MODE, _CACHE_OFF, None)


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
    return control if control(address, _SET_TICKET_KEYS, 0, None) == 80 else None


def listener_context(tls: model.ListenerTls, keys: TicketKeys) -> ssl.SSLContext:
    """That all connections of a listener begin with; by the name that a client asks for (SNI, RFC 6066 3) it
    gives way to another. Raises ssl.SSLError."""
    contexts: dict[tuple[model.Certificate, ...], ssl.SSLContext] = {}

    def context_of(name: str, first: model.Certificate) -> ssl.SSLContext:
        both = tuple(each for each in tls.certificates if each is first or name in each.names)
        if both not in contexts:
            contexts[both] = context = server_context(both, tls.profile, tls.client_auth)
            keys.use_in(context)
        return contexts[both]

    by_name: dict[str, ssl.SSLContext] = {}
    for each in tls.certificates:
        for name in each.names:
            if name not in by_name:
                by_name[name] = context_of(name, each)
    first = tls.certificates[0]
    default = context_of(first.names[0] if first.names else "", first)
    if len(contexts) > 1:
        default.sni_callback = _Chooser(by_name, default)
    return default


class _Chooser:
    """Called by OpenSSL with each ClientHello."""

    def __init__(self, by_name: dict[str, ssl.SSLContext], default: ssl.SSLContext) -> None:
        self._by_name = by_name
        self._default = default

    def __call__(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name:
            name = name.lower()
            # A wildcard stands for one label (RFC 9525 6.3).
            found = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
            if found is not None and found is not self._default:
                connection.context = found


def https_redirect(listener: model.Listener, config: Config) -> model.Route:
    """The one route of a plain listener that `tls.redirect_from` has made."""
    target = next(each for each in config.listeners if each.name == listener.redirects_to)
    port = None if target.port == 443 else target.port or None
    redirect = model.Redirect(status=308, scheme="https", port=port or 443)
    return model.Route(name=f"{listener.name} to https", match=model.Match(), redirect=redirect)
