"""What storage is to the engine, and how accounts and certificates are written in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from fastgate.server.acme.keys import Issued, read_issued
from fastgate.server.acme.network import account_key
from fastgate.server.acme.talk import Account

__all__ = ["Damaged", "LockLost", "Names", "Storage", "StorageError"]

MOST_BYTES: Final = 256 * 1024  # of one record
_VERSION: Final = 1


class StorageError(Exception):
    """The storage can't be read or written. str() says why."""


class LockLost(StorageError):
    """Another one holds the lock by now; nothing was written."""


class Damaged(ValueError):
    """A record that is not what it should be. str() says what is wrong."""


class Storage(Protocol):
    """Records by name, and one lock for all who use the same place. Every method raises StorageError."""

    async def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Those that are there."""

    async def write(self, name: str, value: bytes) -> None:
        """All of it or nothing, and it outlives a crash. Only while the lock is held: LockLost."""

    async def acquire(self) -> bool:
        """The lock; False: another one has it. It does not wait."""

    async def release(self) -> None:
        """Gives the lock back, if it is still held."""

    async def close(self) -> None: ...


class Names:
    """Names and forms of the records for one directory: the account of one is unknown to another."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        host = re.sub(r"[^a-z0-9.-]", "_", (urlsplit(directory).hostname or "").lower())
        self._folder = f"{host}-{hashlib.sha256(directory.encode()).hexdigest()[:8]}"

    @property
    def account(self) -> str:
        return f"{self._folder}/account.json"

    def certificate(self, domain: str) -> str:
        return f"{self._folder}/certificates/{domain}.json"

    def write_account(self, account: Account) -> bytes:
        return self._write(key=account.key, uri=account.uri, email=account.email)

    def read_account(self, record: bytes) -> Account:
        """Raises Damaged."""
        found = self._read(record, "key", "uri", "email")
        try:
            account_key(found["key"])
        except ValueError as error:
            raise Damaged(f"the key can't be used: {error}") from error
        return Account(key=found["key"], uri=found["uri"], email=found["email"])

    def write_certificate(self, issued: Issued) -> bytes:
        return self._write(domain=issued.domain, chain=issued.chain, key=issued.key)

    def read_certificate(self, domain: str, record: bytes) -> Issued:
        """Raises Damaged."""
        found = self._read(record, "domain", "chain", "key")
        try:
            return read_issued(domain, found["chain"], found["key"])
        except ValueError as error:
            raise Damaged(str(error)) from error

    def _write(self, **fields: str) -> bytes:
        return json.dumps({"version": _VERSION, "directory": self._directory, **fields}, indent=1).encode()

    def _read(self, record: bytes, *fields: str) -> dict[str, str]:
        try:
            found: Any = json.loads(record)
        except ValueError as error:
            raise Damaged(f"it is no JSON: {error}") from error
        if not isinstance(found, dict) or found.get("version") != _VERSION:
            raise Damaged(f"it is no record of version {_VERSION}")
        missing = [field for field in fields if not isinstance(found.get(field), str)]
        if missing:
            raise Damaged(f"it has no {missing[0]}")
        return found
