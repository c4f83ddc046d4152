"""The account of one `[acme.NAME]`: kept in the storage, registered when there is none, renewed when lost."""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from typing import Final

from fastgate.config.model import Acme
from fastgate.server.acme.keys import make_key
from fastgate.server.acme.order import Caller
from fastgate.server.acme.storage import Damaged, Names, Storage
from fastgate.server.acme.talk import Account, Talk

__all__ = ["Accounts"]

log: Final = logging.getLogger("fastgate.acme")


class Accounts:
    """Methods are called while the storage's lock is held, and raise StorageError and Failure."""

    def __init__(self, name: str, config: Acme, storage: Storage, names: Names, executor: Executor) -> None:
        self.account: Account | None = None
        self._name, self._config = name, config
        self._storage, self._names, self._executor = storage, names, executor
        self._given_up = ""  # key of an account that the directory refuses
        self._spare = ""

    @property
    def uri(self) -> str:
        return self.account.uri if self.account is not None else ""

    @property
    def spare_key(self) -> str:
        """Of no account: for requests that nobody signs."""
        self._spare = self._spare or make_key("ecdsa-p256")
        return self._spare

    async def ready(self) -> None:
        """Loads the account, or registers one."""
        account = await self._stored()
        if account is None:
            key = make_key("ecdsa-p256")
            with Caller(Talk(self._config, key), self._executor) as call:
                account = await call(call.talk.register, key)
            log.info("acme %s: registered the account %s", self._name, account.uri)
            await self._storage.write(self._names.account, self._names.write_account(account))
        elif account.email != self._config.email:
            with Caller(Talk(self._config, account.key, account), self._executor) as call:
                account = await call(call.talk.tell_email, account)
            await self._storage.write(self._names.account, self._names.write_account(account))
        self.account = account

    async def _stored(self) -> Account | None:
        record = (await self._storage.read([self._names.account])).get(self._names.account)
        if record is None:
            return None
        try:
            account = self._names.read_account(record)
        except Damaged as error:
            log.error("acme %s: the stored account is damaged, and will be replaced: %s", self._name, error)
            return None
        return None if account.key == self._given_up else account

    def worked(self) -> None:
        """It was ordered with."""
        self._given_up = ""

    async def was_lost(self) -> bool:
        """After the directory refused an order of the account: whether it refuses the account itself. Then
        ``ready`` registers another, with a new key: one that was deactivated never comes back
        (RFC 8555 7.3.6)."""
        account = self.account
        if account is None or self._given_up:
            return False  # a directory that refuses each account is to be told of
        with Caller(Talk(self._config, account.key, account), self._executor) as call:
            if await call(call.talk.is_usable, account):
                return False
        log.warning(
            "acme %s: the directory refuses the account %s; a new one is registered", self._name, account.uri
        )
        self._given_up, self.account = account.key, None
        return True
