# How many requests a service takes at one time before they begin to wait in it, found out from their latencies.

cdef enum:
    GRADIENT_QUIET_LEAST = 50           # samples that make a baseline: four times the limit, within these
    GRADIENT_QUIET_MOST = 250
    GRADIENT_SETTLE = 4                 # latencies that must have passed in quiet before the first of them
    GRADIENT_ROOM = 250                 # of a window's samples, the last ones are kept
    GRADIENT_LEAST = 10                 # samples of a window
    GRADIENT_BEGIN = 20                 # the limit before anything is known
    GRADIENT_BLIND = 5                  # busy windows without a baseline, behind which it is measured
    GRADIENT_WINDOW_NS = 100000000
    GRADIENT_STALE_NS = 10000000000     # age of a baseline that has to be measured anew
    GRADIENT_STALE_TIMES = 100          # the same in baselines, if that is longer

@cython.final
cdef class GradientLimit:
    # -- configured
    cdef readonly int min_limit
    cdef readonly int max_limit
    # -- the limit; while `probing` half of it is in force
    cdef readonly double estimate
    cdef readonly bint probing
    # -- the baseline: what a request takes while at most half of the limit is under way; 0: not known yet
    cdef readonly int64_t baseline_ns
    cdef int64_t baseline_at_ns
    cdef double baseline_estimate           # the limit at that time
    cdef int64_t[GRADIENT_QUIET_MOST] quiet      # samples for the next one
    cdef int quiet_count
    cdef int64_t busy_ns                    # when more than half was last seen under way
    cdef int64_t usual_ns                   # the average latency of all samples, the last ones above all
    cdef readonly int64_t samples
    # -- the window under way; it begins when the requests of before the last change have mostly ended
    cdef int64_t[GRADIENT_ROOM] window
    cdef int64_t window_count
    cdef int64_t window_from_ns
    cdef int window_peak                    # the most seen under way
    cdef int64_t windows                    # that have ended
    cdef int blind                          # of them, busy ones without a baseline

    # A request has taken `latency_ns` and ends now, as one of `active`. Returns `limit`.
    cpdef int observe(self, int64_t latency_ns, int active, int64_t now) noexcept nogil
    cpdef int limit(self) noexcept nogil
    cdef int _half(self) noexcept nogil
    cdef void _probe(self) noexcept nogil
    cdef void _quiet_sample(self, int64_t latency_ns, int64_t now) noexcept nogil
    cdef void _window_begin(self, int64_t now) noexcept nogil
    cdef void _window_end(self, int64_t now) noexcept nogil
