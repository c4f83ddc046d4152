# A bucket is at most a quarter of its lower bound wide; within it the samples are taken to lie evenly. The error of a
# quantile is below that quarter, and in practice a tenth of it. Everything is halved at once, every `half_ns`, so that old
# samples weigh less and less and 1,000 buckets need not be kept for a sliding window.

from libc.math cimport ldexp


cdef inline int64_t _latency_bound(int bucket) noexcept nogil:
    # The lower bound of a bucket; that of HISTOGRAM_BUCKETS - 1 is the upper one of the last that has any.
    if bucket == 0:
        return 0
    return <int64_t>(4 + ((bucket - 1) & 3)) << (HISTOGRAM_OCTAVE + ((bucket - 1) >> 2) - 2)


cdef class LatencyWindow:
    """Latencies of one upstream, seen by this worker. half_ns: the time in which a sample loses half of its weight.
    Raises ValueError if it is not positive."""

    def __init__(self, *, int64_t half_ns=30000000000):
        if half_ns < 1:
            raise ValueError("a half-life is positive")
        self.half_ns = half_ns
        self.known_ns = -1

    cdef void _age(self, int64_t now) noexcept nogil:
        cdef int64_t halvings
        cdef double factor
        cdef int i
        if self.aged_ns == 0:
            self.aged_ns = now
        halvings = (now - self.aged_ns) // self.half_ns
        if halvings > 0:
            self.aged_ns += halvings * self.half_ns
            factor = ldexp(1.0, -<int>min(halvings, <int64_t>1000))
            self.total = 0
            for i in range(HISTOGRAM_BUCKETS):
                self.weights[i] *= factor
                self.total += self.weights[i]

    cpdef void observe(self, int64_t ns, int64_t now) noexcept nogil:
        """Takes a sample of `ns` nanoseconds."""
        if self.aged_ns == 0 or now - self.aged_ns >= self.half_ns:
            self._age(now)
        self.weights[_histogram_bucket(ns)] += 1
        self.total += 1

    cpdef int64_t quantile(self, double q, int64_t now) noexcept nogil:
        """The q-quantile in nanoseconds, at most 100 ms old; -1 while there are too few samples (that is never old)."""
        cdef double wanted, low
        cdef int i
        if now < self.known_until_ns and q == self.known_q:
            return self.known_ns
        self._age(now)
        if not 0 < q < 1 or self.total < LATENCY_LEAST or self.total * (1 - q) < 0.999:
            self.known_until_ns = 0
            return -1
        self.known_q = q
        self.known_until_ns = now + LATENCY_FRESH_NS
        wanted = self.total * q
        for i in range(HISTOGRAM_BUCKETS - 1):
            if wanted <= self.weights[i]:
                low = <double>_latency_bound(i)
                self.known_ns = <int64_t>(low + (_latency_bound(i + 1) - low) * (wanted / self.weights[i]))
                return self.known_ns
            wanted -= self.weights[i]
        self.known_ns = _latency_bound(HISTOGRAM_BUCKETS - 1)
        return self.known_ns

    @property
    def weight(self) -> float:
        """The samples, each by what it weighs now."""
        return self.total
