"""Why a part, or a whole aggregation, has failed."""

from __future__ import annotations


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

    def kept(self) -> PartFailure:
        """The same for who keeps it: without the frames that it comes through, which know the run and what it
        has read. Neither would go before the garbage is collected."""
        self.__traceback__ = self.__context__ = None
        return self
