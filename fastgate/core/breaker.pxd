# The error-ratio circuit breaker: one rule, any number of `Breaker` records in shared memory.

@cython.final
cdef class BreakerRule:
    cdef readonly double error_percent  # 0: never opens
    cdef readonly uint64_t min_requests
    cdef readonly uint32_t trials
    cdef readonly int64_t window        # ns
    cdef readonly int64_t open_time     # ns

    # How a request that was let through ended. True: that closed a half-open breaker.
    cdef bint report(self, Breaker* breaker, UpstreamState* upstream, bint failed, int64_t now) noexcept nogil
    # Whether a request may go. Takes a trial where there are only trials: to be asked once, for a request that
    # will be sent.
    cdef bint admits(self, Breaker* breaker, UpstreamState* upstream, int64_t now) noexcept nogil
    cdef bint _count(self, Breaker* breaker, bint failed, int64_t now) noexcept nogil
    cdef void _open(self, Breaker* breaker, UpstreamState* upstream, uint32_t was, int64_t now) noexcept nogil
    cdef bint _grant(self, Breaker* breaker, UpstreamState* upstream, int64_t until, int64_t now) noexcept nogil
