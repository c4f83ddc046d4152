"""Durations, sizes and rates: text to integers."""

from __future__ import annotations

import os
import re
from typing import Any, Final

from fastgate.config.model import UNLIMITED, Rate, StatusRange
from fastgate.config.problems import quote

MOST_WORKERS: Final = 256


class BadValue(ValueError):
    """A text that is not in its form; ``hint`` is empty or a suggestion."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


_NS: Final = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_BYTES: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
# What people write for each unit, folded to lower case.
_DURATION_WORDS: Final = {
    "": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m",
    "minutes": "m", "hour": "h", "hours": "h", "hr": "h", "msec": "ms", "millis": "ms", "milliseconds": "ms",
    "s": "s", "m": "m", "h": "h", "ms": "ms",
}  # fmt: skip
_SIZE_WORDS: Final = {
    "": "B", "b": "B",
    "byte": "B", "bytes": "B", "k": "KiB", "kb": "KB", "kib": "KiB", "m": "MiB", "mb": "MB",
    "mib": "MiB", "g": "GiB", "gb": "GB", "gib": "GiB",
}  # fmt: skip

_NUMBER_UNIT: Final = re.compile(r"\s*([0-9]{1,15})(?:\.([0-9]{1,9}))?\s*([A-Za-z]*)\s*")
DURATION_PATTERN: Final = r"^[0-9]{1,15}(ms|s|m|h)$"
SIZE_PATTERN: Final = r"^[0-9]{1,15}(B|KB|MB|GB|KiB|MiB|GiB)$"
RATE_PATTERN: Final = r"^[0-9]{1,10}/(s|m|h)$"
BYTE_RATE_PATTERN: Final = r"^[0-9]{1,15}(B|KB|MB|GB|KiB|MiB|GiB)/s$"

MAX_NS: Final = 8760 * _NS["h"]  # a year: far from where int64 nanoseconds end
MAX_BYTES: Final = 2**50
MAX_RATE: Final = 1_000_000_000

_DURATION_FORM: Final = 'expected a duration such as "250ms", "5s", "1m" or "1h"'
_SIZE_FORM: Final = 'expected a size such as "512B", "64KiB", "10MiB" or "1GB"'
_RATE_FORM: Final = 'expected a rate such as "100/s", "10/m" or "1000/h"'
_BYTE_RATE_FORM: Final = 'expected bytes per second such as "500B/s" or "64KiB/s"'


def parse_duration(text: str, options: dict[str, Any]) -> int:
    """Nanoseconds."""
    match = re.fullmatch(r"([0-9]{1,15})(ms|s|m|h)", text)
    if not match:
        raise BadValue(f"{_DURATION_FORM}, got {quote(text)}", _suggest(text, _DURATION_WORDS, _NS))
    value = int(match[1]) * _NS[match[2]]
    minimum = options.get("minimum", 0)
    if value < minimum:
        raise BadValue(f"must be at least {format_duration(minimum)}, got {quote(text)}")
    if value > MAX_NS:
        raise BadValue(f'must be at most "8760h" (a year), got {quote(text)}')
    return value


def parse_size(text: str, options: dict[str, Any]) -> int:
    """Bytes; UNLIMITED for "unlimited" where ``options`` allow it."""
    unlimited = options.get("unlimited", False)
    if text == "unlimited" and unlimited:
        return UNLIMITED
    match = re.fullmatch(r"([0-9]{1,15})(B|KB|MB|GB|KiB|MiB|GiB)", text)
    if not match:
        if text == "unlimited":
            raise BadValue(f"{_SIZE_FORM}; it cannot be unlimited")
        hint = 'did you mean "unlimited"?' if unlimited and text.lower() in _ENDLESS else ""
        also = ', or "unlimited"' if unlimited else ""
        raise BadValue(f"{_SIZE_FORM}{also}, got {quote(text)}", hint or _suggest(text, _SIZE_WORDS, _BYTES))
    value = int(match[1]) * _BYTES[match[2]]
    minimum = options.get("minimum", 0)
    if value < minimum:
        raise BadValue(f"must be at least {quote(format_size(minimum))}, got {quote(text)}")
    if value > MAX_BYTES:
        raise BadValue(f'must be at most "{MAX_BYTES // 2**30}GiB", got {quote(text)}')
    return value


_ENDLESS: Final = {"unlimited", "infinite", "inf", "none", "no", "off", "max", "-1"}


def parse_status_range(text: str, options: dict[str, Any]) -> StatusRange:
    """One status code, or a range of them."""
    match = re.fullmatch(r"([0-9]{3})(?:-([0-9]{3}))?", text)
    if not match:
        family = re.fullmatch(r"([1-5])[xX]{2}", text)
        hint = f'did you mean "{family[1]}00-{family[1]}99"?' if family else ""
        raise BadValue(f'expected a status code or a range such as "200-299", got {quote(text)}', hint)
    low, high = int(match[1]), int(match[2] or match[1])
    if low < 100 or high > 599:
        raise BadValue(f"a status code is between 100 and 599, got {quote(text)}")
    if low > high:
        raise BadValue(f"{quote(text)} begins above its end", f'did you mean "{high}-{low}"?')
    return StatusRange(low, high)


def format_status_range(span: StatusRange) -> str:
    return f'"{span.low}-{span.high}"' if span.high != span.low else f'"{span.low}"'


def parse_rate(text: str, options: dict[str, Any]) -> Rate:
    match = re.fullmatch(r"([0-9]{1,10})/(s|m|h)", text)
    if not match:
        raise BadValue(f"{_RATE_FORM}, got {quote(text)}", _suggest_rate(text))
    count = int(match[1])
    if not 1 <= count <= MAX_RATE:
        raise BadValue(f"the count of a rate must be between 1 and {MAX_RATE}, got {quote(text)}")
    return Rate(count, _NS[match[2]])


QUOTA_PERIODS = ("hour", "day", "month")


def parse_workers(text: str, options: dict[str, Any]) -> int:
    """How many processes: "auto" is one for each core that this one may use."""
    if text == "auto":
        return len(os.sched_getaffinity(0))
    if not re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) or not 1 <= int(text) <= MOST_WORKERS:
        raise BadValue(f'expected a number from 1 to {MOST_WORKERS} or "auto", got {quote(text)}')
    return int(text)


def parse_quota(text: str, options: dict[str, Any]) -> str:
    """As it is written; ``split_quota`` takes it apart."""
    match = re.fullmatch(r"([0-9]{1,12})/([a-z]+)", text)
    if not match or match[2] not in QUOTA_PERIODS or int(match[1]) < 1:
        raise BadValue(
            f'expected a number, "/" and hour, day or month, such as "10000/day", got {quote(text)}'
        )
    return text


def split_quota(text: str) -> tuple[int, str]:
    count, _, period = text.partition("/")
    return int(count), period


def format_rate(rate: Rate) -> str:
    unit = next(unit for unit, ns in _NS.items() if ns == rate.per_ns)
    return f'"{rate.count}/{unit}"'


def parse_byte_rate(text: str, options: dict[str, Any]) -> int:
    """Bytes per second."""
    amount, slash, per = text.partition("/")
    try:
        value = parse_size(amount, {})
    except BadValue as bad:
        hint = bad.hint.removesuffix('"?') + '/s"?' if bad.hint else ""
        raise BadValue(f"{_BYTE_RATE_FORM}, got {quote(text)}", hint) from None
    if not slash or per != "s":
        raise BadValue(
            f"{_BYTE_RATE_FORM}, got {quote(text)}", f'did you mean "{amount}/s"?' if not slash else ""
        )
    return value


def _suggest(text: str, words: dict[str, str], scale: dict[str, int]) -> str:
    """The same amount in the form that is wanted, where the text is near enough to tell."""
    compound = re.fullmatch(r"([0-9]{1,9}\s*(?:ms|s|m|h)\s*){2,4}", text)
    if compound and scale is _NS:
        total = sum(int(n) * _NS[u] for n, u in re.findall(r"([0-9]+)\s*(ms|s|m|h)", text))
        return f"did you mean {format_duration(total)}?" if total <= MAX_NS else ""
    match = _NUMBER_UNIT.fullmatch(text)
    unit = words.get(match[3].lower()) if match else None
    if not match or not unit:
        return ""
    number = match[1]
    if match[2]:
        exact = int(match[1]) * scale[unit] * 10 ** len(match[2]) + int(match[2]) * scale[unit]
        exact //= 10 ** len(match[2])
        unit = max((u for u in scale if exact % scale[u] == 0), key=lambda u: scale[u], default="")
        if not unit:
            return ""
        number = str(exact // scale[unit])
    if int(number) * scale[unit] > (MAX_NS if scale is _NS else MAX_BYTES):
        return ""
    return f'did you mean "{number}{unit}"?'


def _suggest_rate(text: str) -> str:
    match = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:r/|/|per|rp)?\s*([A-Za-z]*)\s*", text)
    unit = _DURATION_WORDS.get(match[2].lower()) if match else None
    if not match or unit not in ("s", "m", "h") or not 1 <= int(match[1]) <= MAX_RATE:
        return ""
    return f'did you mean "{match[1]}/{unit}"?'


def format_duration(ns: int) -> str:
    """The shortest way to write it, as for docs: ``"30s"``."""
    unit = max((u for u in _NS if ns % _NS[u] == 0), key=lambda u: _NS[u]) if ns else "s"
    return f'"{ns // _NS[unit]}{unit}"'


def format_size(size: int) -> str:
    if size == UNLIMITED:
        return "unlimited"
    unit = max((u for u in ("B", "KiB", "MiB", "GiB") if size % _BYTES[u] == 0), key=lambda u: _BYTES[u])
    return f"{size // _BYTES[unit]}{unit}" if size else "0B"
