"""Why a part, or a whole aggregation, has failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastgate import _core

#: What the gateway answers 504 for where a client asks.
_TIMEOUTS: Final = frozenset(info.code for info in _core.REASONS if info.status == 504)


class PartFailure(Exception):
    """reason: a code of ``_core.REASONS``. detail: for the log, in one line, "" for none. status: of the
    part's answer; 0: there is none. of_client: it is the client's request that lacks something (then, of a
    part that is needed, 400)."""

    def __init__(self, reason: str, detail: str = "", *, status: int = 0, of_client: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.of_client = of_client

    @property
    def is_timeout(self) -> bool:
        return self.reason in _TIMEOUTS

    def mapped(self, statuses: Mapping[Any, int]) -> int | None:
        """What a part's `statuses` give the client for it: by its status (404, "404", "4xx") or "timeout",
        else by "failure". None: nothing."""
        keys: tuple[int | str, ...] = ()
        if self.is_timeout:
            keys = ("timeout",)
        elif self.status:
            keys = (self.status, str(self.status), f"{self.status // 100}xx")
        return next((statuses[key] for key in (*keys, "failure") if key in statuses), None)

    def kept(self) -> PartFailure:
        """The same for who keeps it: without the frames that it comes through, which know the run and what it
        has read. Neither would go before the garbage is collected."""
        self.__traceback__ = self.__context__ = None
        return self
