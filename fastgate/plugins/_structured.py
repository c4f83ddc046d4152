"""Structured fields (RFC 9651): read strictly, written canonically.

Where RFC 9651 lets a parser be kind, this one is not, since what it reads decides about access: of two
members or parameters of one name the last would count (4.2.2, 4.2.3.2), and base64 may be padded badly
(4.2.7); both are errors here.

A bare item is an int, Decimal, str (String), Token, bytes, bool, Date or DisplayString.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes


class FieldError(ValueError):
    """It is no such structured field. The text says where, and shows no value."""


class Token(str):
    """A Token, which is no String."""

    __slots__ = ()


class DisplayString(str):
    """Text beyond ASCII."""

    __slots__ = ()


class Date(int):
    """Seconds since the epoch."""


Bare = int | Decimal | str | bytes
Parameters = Mapping[str, Bare]


class Item(NamedTuple):
    value: Bare
    params: Parameters


class InnerList(NamedTuple):
    items: tuple[Item, ...]
    params: Parameters


Member = Item | InnerList

_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_NUMBER: Final = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?")
_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_BYTES: Final = re.compile(r":([A-Za-z0-9+/=]*):")
_BOOLEAN: Final = re.compile(r"\?([01])")
_DATE: Final = re.compile(r"@(-?[0-9]{1,15})(?![0-9.])")
_DISPLAY: Final = re.compile(r'%"((?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
_SPACES: Final = re.compile(r" *")
_OWS: Final = re.compile(r"[ \t]*")


def parse_dictionary(text: str) -> dict[str, Member]:
    """Raises FieldError, as those below."""
    reader = _Reader(text)
    found: dict[str, Member] = {}
    while reader.more(first=not found):
        key = reader.key()
        if key in found:
            raise reader.error("a member of that name was there before")
        found[key] = reader.member() if reader.take("=") else Item(True, reader.parameters())
    return found


def parse_list(text: str) -> list[Member]:
    reader = _Reader(text)
    found: list[Member] = []
    while reader.more(first=not found):
        found.append(reader.member())
    return found


def parse_item(text: str) -> Item:
    reader = _Reader(text)
    item = reader.item()
    reader.end()
    return item


class _Reader:
    """RFC 9651 4.2."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._skip(_SPACES)

    def error(self, what: str) -> FieldError:
        return FieldError(f"{what} (at character {self._at + 1})")

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self.error(f"expected {what}")
        self._at = found.end()
        return found

    def take(self, char: str) -> bool:
        if not self._text.startswith(char, self._at):
            return False
        self._at += 1
        return True

    def end(self) -> None:
        self._skip(_SPACES)
        if self._at < len(self._text):
            raise self.error("expected the end")

    def more(self, *, first: bool) -> bool:
        """Whether another member follows; the comma in front of it is taken."""
        if first:
            return self._at < len(self._text)
        self._skip(_OWS)
        if self._at == len(self._text):
            return False
        if not self.take(","):
            raise self.error("expected a comma")
        self._skip(_OWS)
        if self._at == len(self._text):
            raise self.error("a comma at the end")
        return True

    def key(self) -> str:
        return self._match(_KEY, "a key in lower case")[0]

    def member(self) -> Member:
        if not self.take("("):
            return self.item()
        items: list[Item] = []
        while True:
            before = self._at
            self._skip(_SPACES)
            if self.take(")"):
                return InnerList(tuple(items), self.parameters())
            if items and self._at == before:
                raise self.error("expected a space")
            items.append(self.item())

    def item(self) -> Item:
        return Item(self._bare(), self.parameters())

    def parameters(self) -> dict[str, Bare]:
        found: dict[str, Bare] = {}
        while self.take(";"):
            self._skip(_SPACES)
            key = self.key()
            if key in found:
                raise self.error("a parameter of that name was there before")
            found[key] = self._bare() if self.take("=") else True
        return found

    def _bare(self) -> Bare:
        match self._text[self._at : self._at + 1]:
            case '"':
                return re.sub(r"\\(.)", r"\1", self._match(_STRING, "a string that ends")[1])
            case ":":
                return self._binary()
            case "?":
                return self._match(_BOOLEAN, "?0 or ?1")[1] == "1"
            case "@":
                return Date(self._match(_DATE, "a date")[1])
            case "%":
                try:
                    return DisplayString(
                        unquote_to_bytes(self._match(_DISPLAY, "a display string")[1]).decode()
                    )
                except UnicodeDecodeError:
                    raise self.error("a display string that is not UTF-8") from None
            case first if first == "-" or first.isdigit():
                return self._number()
            case _:
                return Token(self._match(_TOKEN, "a value")[0])

    def _number(self) -> int | Decimal:
        found = self._match(_NUMBER, "a number")
        if found[2] is None:
            if len(found[1]) > 15:
                raise self.error("an integer of more than 15 digits")
            return int(found[0])
        if len(found[1]) > 12 or len(found[2]) > 3:
            raise self.error("a decimal of more than 12 and 3 digits")
        return Decimal(found[0])

    def _binary(self) -> bytes:
        text = self._match(_BYTES, "base64 between colons")[1]
        try:
            value = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise self.error("bad base64") from None
        if base64.b64encode(value).decode() != text:
            raise self.error("base64 that is not canonical")
        return value


def write_member(member: Member) -> str:
    """RFC 9651 4.1.1.1 and 4.1.3."""
    if isinstance(member, InnerList):
        inner = " ".join(write_member(item) for item in member.items)
        return f"({inner}){write_parameters(member.params)}"
    return write_bare(member.value) + write_parameters(member.params)


def write_dictionary(members: Mapping[str, Member]) -> str:
    """RFC 9651 4.1.2: true is left out."""
    return ", ".join(
        key + write_parameters(member.params) if member[0] is True else f"{key}={write_member(member)}"
        for key, member in members.items()
    )


def write_list(members: list[Member]) -> str:
    return ", ".join(map(write_member, members))


def write_parameters(params: Parameters) -> str:
    return "".join(
        f";{key}" if value is True else f";{key}={write_bare(value)}" for key, value in params.items()
    )


def write_bare(value: Bare) -> str:
    match value:
        case bool():
            return "?1" if value else "?0"
        case Date():
            return f"@{int(value)}"
        case int():
            return str(value)
        case Decimal():
            digits = f"{value:.3f}".rstrip("0")
            return digits + "0" if digits.endswith(".") else digits
        case bytes():
            return f":{base64.b64encode(value).decode()}:"
        case Token():
            return str(value)
        case DisplayString():
            plain = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'%"')
            return f'%"{_lower(quote_from_bytes(value.encode(), safe=plain))}"'
        case _:
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'


def _lower(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text)
