"""When a certificate is renewed, and when what failed is tried again. Times: seconds since 1970."""

from __future__ import annotations

import random
from typing import Final

from fastgate.config.model import AcmeRenewal
from fastgate.server.acme.failures import Failure
from fastgate.server.acme.keys import Issued

__all__ = ["RATE_LIMITED", "after_failure", "renewal_moment"]

NS: Final = 1e9
JITTER: Final = 0.05  # of a lifetime
# A rate limit without a Retry-After: the common ones are by the hour.
RATE_LIMITED: Final = 3600.0


def renewal_moment(issued: Issued, renewal: AcmeRenewal) -> float:
    """By its lifetime, and a chance that keeps many certificates of one day from one moment."""
    lifetime = issued.not_after - issued.not_before
    share = renewal.after_percent / 100 + random.uniform(0, JITTER)
    return issued.not_before + lifetime * share


def after_failure(failures: int, failure: Failure | None, renewal: AcmeRenewal) -> float:
    """Seconds until the next try, after so many failures in a row: twice as long each time, spread by up to a
    tenth, and never sooner than the directory asked for."""
    doubled = renewal.retry / NS * 2.0 ** min(failures - 1, 30)
    pause = min(doubled, renewal.retry_max / NS) * random.uniform(1, 1.1)
    if failure is None:
        return pause
    asked = failure.retry_after or (RATE_LIMITED if failure.rate_limited else 0.0)
    return max(pause, asked)
