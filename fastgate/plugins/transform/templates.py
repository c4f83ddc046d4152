"""Values with placeholders, such as "user={consumer}"."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fastgate.plugins import Exchange

# What a placeholder may give, in characters: more is refused, not cut.
MAX_VALUE: Final = 4096
_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class TemplateError(ValueError):
    """A template that can't be read."""


class TooLongError(ValueError):
    """What a placeholder gives is too long."""


def _consumer(exchange: Exchange) -> str:
    # Percent signs are encoded too: no two names may come out as one.
    return exchange.consumer.name.replace("%", "%25") if exchange.consumer is not None else ""


_PLAIN: Final[dict[str, Callable[[Exchange], str]]] = {
    "consumer": _consumer,
    "request_id": lambda exchange: exchange.id,
    "client_ip": lambda exchange: exchange.client_ip,
    "listener": lambda exchange: exchange.listener,
    "route": lambda exchange: exchange.route,
    "method": lambda exchange: exchange.request.method,
    "path": lambda exchange: exchange.request.path,
    "host": lambda exchange: exchange.request.host,
    "scheme": lambda exchange: exchange.request.scheme,
}


class Template:
    """Text with ``{placeholders}``; "{{" and "}}" are braces. Raises TemplateError.

    Calling it gives the text for an exchange: what placeholders give is printable ASCII, all else is
    percent-encoded, so that nothing in it can end a header line. Raises TooLongError.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[str | Callable[[Exchange], str]] = []
        #: Whether it tells the service who the client is.
        self.tells_who = False
        at = 0
        for match in _PART.finditer(text):
            self._parts.append(text[at : match.start()])
            at = match.end()
            if match[0] in ("{{", "}}"):
                self._parts.append(match[0][0])
            elif match[1] is None:
                raise TemplateError('a single brace: "{{" and "}}" stand for braces')
            else:
                self._parts.append(_reader(match[1]))
                self.tells_who |= match[1] in ("consumer", "client_ip")
        self._parts.append(text[at:])

    def __call__(self, exchange: Exchange) -> str:
        return "".join(part if isinstance(part, str) else _checked(part(exchange)) for part in self._parts)


def _reader(name: str) -> Callable[[Exchange], str]:
    if name in _PLAIN:
        return _PLAIN[name]
    kind, _, rest = name.partition(".")
    if kind == "capture" and _NAME.fullmatch(rest):
        return lambda exchange: exchange.captures.get(rest, "")
    if kind == "header" and _TOKEN.fullmatch(rest):
        return lambda exchange: exchange.request.headers.get(rest, "") or ""
    known = ", ".join(f"{{{one}}}" for one in _PLAIN)
    raise TemplateError(
        f"no placeholder is {{{name}}}; there is {known}, {{capture.NAME}} and {{header.NAME}}"
    )


def _checked(value: str) -> str:
    if len(value) > MAX_VALUE:
        raise TooLongError(f"a placeholder gives more than {MAX_VALUE} characters")
    if value.isascii() and value.isprintable():
        return value
    return "".join(
        char if char.isascii() and char.isprintable() else "".join(f"%{byte:02X}" for byte in _bytes(char))
        for char in value
    )


def _bytes(char: str) -> bytes:
    return char.encode("utf-8", "surrogatepass")
