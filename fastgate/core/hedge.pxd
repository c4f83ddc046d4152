# When a second attempt is sent beside the first, before that has failed.

cdef enum:
    HEDGE_TOKEN = 1000000           # one hedge
    HEDGE_BURST = 10                # hedges that may be saved up

@cython.final
cdef class HedgePolicy:
    # -- configured
    cdef double quantile
    cdef readonly int64_t min_delay_ns
    cdef int64_t deposit            # millionths of a hedge that each request earns
    # -- live, of this worker
    cdef readonly LatencyWindow latency     # fed by the caller
    cdef int64_t tokens

    # For each request that could be hedged, when it is sent: how long to wait for its response head before a second
    # attempt goes out; -1: none does.
    cpdef int64_t delay(self, int64_t now) noexcept nogil
    # When that time is over: whether the hedge may go out. `give`: it did not, after all.
    cpdef bint take(self) noexcept nogil
    cpdef void give(self) noexcept nogil
