# All that decides about the health of one upstream: its record, its rules, and who is told of an attempt's end.

@cython.final
cdef class UpstreamHealth:
    # -- who; `record` keeps its state
    cdef readonly str name
    cdef SharedRecord record
    cdef UpstreamState* state
    # -- its rules; None: off
    cdef readonly OutlierRule outlier
    cdef readonly BreakerRule breaker
    cdef bint endpoint_breakers         # the rule is applied to each endpoint
    cdef bint upstream_breaker          # and to the upstream as a whole

    # How an attempt on `seat` ended (an Outcome). `seats`: all Seats of the upstream, as the balancer has
    # them. An attempt that says nothing of the endpoint (the client left, a hedge's loser) is not reported.
    cdef void report_attempt(self, Seat seat, tuple seats, int outcome, int64_t now) noexcept
    # Whether the upstream's breaker lets an attempt through. Asked once, before an endpoint is chosen.
    cpdef bint admits(self, int64_t now) noexcept
    # Whether the endpoint's does. Asked once for the endpoint chosen; False: choose another. Not to be asked
    # in a panic, when endpoints are used whatever is known of them.
    cpdef bint admits_seat(self, Seat seat, int64_t now) noexcept
