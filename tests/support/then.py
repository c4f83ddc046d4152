"""The plugin hmac at a moment of 2021: when the examples of RFC 9421 were signed."""

from __future__ import annotations

from fastgate.plugins import Host
from fastgate.plugins.hmac_signature import HmacSignature


class Clock:
    def now(self) -> float:
        return 1618884483.0

    def monotonic(self) -> float:
        return 0.0


class Then(HmacSignature):
    async def provision(self, host: Host) -> None:
        await super().provision(host)
        self._clock = Clock()
