# Theory of operation. Dean and Barroso, "The Tail at Scale", CACM 2013: a second request after the 95th percentile costs
# 5 % more load and cuts the tail. When everything gets slow at once, more than 5 % pass the old percentile: so hedges are
# paid from a balance to which each request brings max_percent of one (as Finagle's BackupRequestFilter does with its
# RetryBudget), and the added load never exceeds that part.


cdef class HedgePolicy:
    """When a request gets a second attempt.

    quantile: percent (0 < quantile < 100) of the latencies that are not hedged. min_delay_ns: never earlier. max_percent:
    hedges for 100 requests, 0 .. 100. latency: the samples, by default new ones; a reload passes on those that it has.
    Raises ValueError.
    """

    def __init__(
        self, *, double quantile=95, int64_t min_delay_ns=10000000, double max_percent=10, LatencyWindow latency=None,
    ):
        if not 0 < quantile < 100:
            raise ValueError("a quantile lies between 0 and 100 percent")
        if min_delay_ns < 0 or not 0 <= max_percent <= 100:
            raise ValueError("a delay is not negative, and a part is 0 to 100 percent")
        self.quantile = quantile / 100
        self.min_delay_ns = min_delay_ns
        self.deposit = llrint(max_percent * (HEDGE_TOKEN / 100))
        self.latency = LatencyWindow() if latency is None else latency

    cpdef int64_t delay(self, int64_t now) noexcept nogil:
        """Nanoseconds until this request's hedge, or -1 for none: too few samples, or no hedge is left to spend."""
        cdef int64_t known
        self.tokens = min(self.tokens + self.deposit, <int64_t>HEDGE_BURST * HEDGE_TOKEN)
        if self.tokens < HEDGE_TOKEN:
            return -1
        known = self.latency.quantile(self.quantile, now)
        return -1 if known < 0 else max(known, self.min_delay_ns)

    cpdef bint take(self) noexcept nogil:
        """Spends a hedge, if one is left."""
        if self.tokens < HEDGE_TOKEN:
            return False
        self.tokens -= HEDGE_TOKEN
        return True

    cpdef void give(self) noexcept nogil:
        """Gives a hedge back that was not sent."""
        self.tokens = min(self.tokens + HEDGE_TOKEN, <int64_t>HEDGE_BURST * HEDGE_TOKEN)
