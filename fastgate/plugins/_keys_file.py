"""The keys of ``api-key``, from the configuration and from a file with the same entries."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from fastgate.plugins import Consumer, doc
from fastgate.plugins._consumers import ConsumerKeys

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HOW_TO_HASH: Final = (
    "a key itself does not stand in a configuration; "
    "put what `printf %s KEY | sha256sum` prints into `sha256`"
)


class KeyEntry(ConsumerKeys, frozen=True, kw_only=True):
    """A key and whose it is."""

    sha256: Annotated[
        str, doc("SHA-256 of the key in hexadecimal, as `printf %s KEY | sha256sum` prints it.")
    ] = ""
    consumer: Annotated[str, doc("Name of the consumer whose key it is.", "name")]
    expires: Annotated[str, doc("From when on the key is refused: `2027-01-31T00:00:00Z`.")] = ""
    key: Annotated[str, doc("Not to be used: an error that says how to make `sha256` of it.")] = ""


class Key(msgspec.Struct, frozen=True):
    """expires: seconds since the epoch; infinite where it never does."""

    consumer: Consumer
    expires: float


class _KeysFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[KeyEntry, ...]


def read_entries(entries: Iterable[KeyEntry], source: str) -> dict[bytes, Key]:
    """Keys by the digest of each. source: the plugin's name. Raises ValueError, which never shows a key."""
    found: dict[bytes, Key] = {}
    for number, entry in enumerate(entries, 1):
        where = f"key {number} ({entry.consumer})"
        if entry.key:
            raise ValueError(f"{where}: {_HOW_TO_HASH}")
        # Upper case is what some tools print; a digest is the same in both.
        text = entry.sha256.lower()
        if not _SHA256.fullmatch(text):
            raise ValueError(
                f"{where}: sha256 needs the 64 hexadecimal digits of `printf %s KEY | sha256sum`"
            )
        digest = bytes.fromhex(text)
        if digest in found:
            raise ValueError(
                f"{where}: the key is listed twice, as that of {found[digest].consumer.name} too"
            )
        found[digest] = Key(entry.to_consumer(entry.consumer, source), _expiry(entry.expires, where))
    return found


def parse_file(data: bytes, suffix: str, source: str) -> dict[bytes, Key]:
    """The keys of a TOML or (suffix ".json") JSON file: ``[[keys]]`` with the entries of the configuration.
    Raises ValueError."""
    text = data.decode("utf-8-sig")
    document: Any = json.loads(text) if suffix == ".json" else tomllib.loads(text)
    return read_entries(msgspec.convert(_with_text_dates(document), _KeysFile).keys, source)


def _with_text_dates(document: Any) -> Any:
    """TOML has dates of its own; a user may write ``expires`` as one."""
    keys = document.get("keys") if isinstance(document, dict) else None
    for entry in keys if isinstance(keys, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("expires"), datetime):
            entry["expires"] = entry["expires"].isoformat()
    return document


def _expiry(text: str, where: str) -> float:
    if not text:
        return float("inf")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{where}: expires is no date and time such as 2027-01-31T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{where}: expires needs its time zone, such as the Z of 2027-01-31T00:00:00Z")
    return moment.timestamp()
