# What latency an upstream has lately: a histogram that forgets, and a quantile of it that costs nothing to ask for.

cdef enum:
    LATENCY_FRESH_NS = 100000000        # how old the answer of `quantile` may be
    LATENCY_LEAST = 20                  # samples

@cython.final
cdef class LatencyWindow:
    # -- the buckets of counters.pxd; a sample weighs 1 and half of that every `half_ns`
    cdef double[HISTOGRAM_BUCKETS] weights
    cdef double total
    cdef int64_t half_ns
    cdef int64_t aged_ns            # when it was last halved; 0: no sample yet
    # -- the last answer
    cdef double known_q
    cdef int64_t known_ns
    cdef int64_t known_until_ns

    cpdef void observe(self, int64_t ns, int64_t now) noexcept nogil
    # The latency that the part `q` (0 < q < 1) of the samples does not exceed; -1 while there are not enough to tell:
    # LATENCY_LEAST, and one that is expected above it.
    cpdef int64_t quantile(self, double q, int64_t now) noexcept nogil
    cdef void _age(self, int64_t now) noexcept nogil
