# Outlier detection: which endpoint behaves unlike the others and is left alone for a while.

@cython.final
cdef class OutlierRule:
    # -- what makes an outlier
    cdef readonly uint32_t consecutive_errors           # 0: off
    cdef readonly uint32_t consecutive_gateway_errors   # 0: off
    cdef readonly bint success_rate
    cdef readonly double success_rate_stdev
    cdef readonly int min_endpoints
    cdef readonly uint64_t min_requests
    cdef readonly int64_t interval                      # ns
    # -- what becomes of it
    cdef readonly int64_t base_ejection                 # ns
    cdef readonly int64_t max_ejection                  # ns; never below base_ejection
    cdef readonly double max_ejected                    # percent of the endpoints
    cdef uint32_t steps                                 # ejections in a row, until max_ejection is reached

    # How an attempt on `seat` ended (an Outcome). `seats`: all Seats of the upstream. Costs a success a few
    # loads and, with `success_rate`, one addition.
    cdef void report(self, Seat seat, tuple seats, UpstreamState* upstream, int outcome, int64_t now) noexcept
    # How many of `total` endpoints may be ejected at one time.
    cdef int allowed(self, Py_ssize_t total) noexcept nogil
    cdef void _failed(self, Seat seat, tuple seats, UpstreamState* upstream, int outcome, int64_t now) noexcept
    cdef bint _eject(self, Seat seat, tuple seats, UpstreamState* upstream, int64_t now) noexcept
    cdef bint _may_eject(self, Seat seat, tuple seats, int64_t now) noexcept
    cdef void _end_interval(self, tuple seats, UpstreamState* upstream, int64_t began, int64_t now) noexcept
    cdef bint _rate(self, EndpointState* state, int64_t now) noexcept nogil
    cdef void _forgive(self, EndpointState* state, int64_t began, int64_t now) noexcept nogil
