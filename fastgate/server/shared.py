"""Where plugins keep what they share, as the table `[shared]` says."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastgate.config import Config
from fastgate.plugins.api import Shared
from fastgate.server.host_store import HostTable

if TYPE_CHECKING:
    from fastgate.server.redis_store import RedisShare

__all__ = ["SharedStores"]

log: Final = logging.getLogger("fastgate.shared")
# Of this machine's memory, and gone when it restarts, as its clock.
FOLDER: Final = Path("/dev/shm")


class SharedStores:
    """Opened when the first plugin needs it, by the configuration that the gateway has started with."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open: HostTable | RedisShare | None = None

    def store(self, plugin: str) -> Shared:
        if self._open is None:
            self._open = self._make()
        return self._open.store(plugin)

    def _make(self) -> HostTable | RedisShare:
        shared = self._config.shared
        if shared.redis is not None:
            from fastgate.server.redis_store import RedisShare  # takes redis-py along, for those who need it

            return RedisShare(shared.redis)
        source = Path(self._config.source)
        # Text that came from no file belongs to nobody else.
        if self._config.source and source.is_file() and FOLDER.is_dir():
            identity = f"{source.resolve()}\0{shared.max_entries}"
            digest = hashlib.blake2b(identity.encode(), digest_size=12).hexdigest()
            path = FOLDER / f"fastgate-{os.geteuid()}-store-{digest}"
            try:
                return HostTable(path, shared.max_entries)
            except OSError as error:
                log.warning("%s: %s; plugins share within this gateway alone", path, error.strerror or error)
        return HostTable(None, shared.max_entries)

    async def close(self) -> None:
        opened, self._open = self._open, None
        if isinstance(opened, HostTable):
            opened.close()
        elif opened is not None:
            await opened.close()
