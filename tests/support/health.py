"""An upstream of a few endpoints without connections, to report to."""

from __future__ import annotations

from typing import Any

from fastgate._core import (
    OUTCOMES,
    BreakerRule,
    OutlierRule,
    Seat,
    UpstreamHealth,
    endpoint_report,
    endpoint_states,
    loop_report,
    upstream_states,
)

SECOND = 1_000_000_000
START = 1000 * SECOND  # of the tests' clock


class Watched:
    """Endpoints 0..count-1 of one upstream. The time stands still until a test moves `now`."""

    def __init__(
        self,
        count: int,
        *,
        outlier: OutlierRule | None = None,
        breaker: BreakerRule | None = None,
        per: str = "both",
    ) -> None:
        self.now = START
        self._endpoints, self._upstreams = endpoint_states(64), upstream_states(8)
        self.seats = tuple(Seat("u", f"127.0.0.1:{9000 + i}", table=self._endpoints) for i in range(count))
        self.reload(outlier=outlier, breaker=breaker, per=per)

    def reload(
        self,
        *,
        outlier: OutlierRule | None = None,
        breaker: BreakerRule | None = None,
        per: str = "both",
    ) -> None:
        """New rules over the same records."""
        self.health = UpstreamHealth("u", table=self._upstreams, outlier=outlier, breaker=breaker, per=per)

    def report(self, position: int, outcome: str, times: int = 1) -> None:
        for _ in range(times):
            self.health.report(self.seats[position], self.seats, outcome, self.now)

    def report_fast(self, position: int, outcome: str, times: int) -> None:
        """Without Python in between, so that processes that do it meet in the middle of it."""
        loop_report(self.health, (self.seats[position],), OUTCOMES.index(outcome), self.now, times)

    def known(self, position: int) -> dict[str, Any]:
        return endpoint_report(self.seats[position], self.now)

    def status(self, position: int) -> str:
        return str(self.known(position)["status"])

    def statuses(self) -> list[str]:
        return [self.status(i) for i in range(len(self.seats))]

    def ejected(self) -> set[int]:
        """Those that are ejected as outliers."""
        return {i for i in range(len(self.seats)) if self.known(i)["ejected_for_s"] > 0}
