# Peak EWMA (Finagle's `p2cPeakEwma`, Linkerd's default): two random choices, compared by what a request would wait.
#
#     cost = latency x (active / weight + 1)        with weights relative to their mean: all alike, latency x (active + 1)
#
# `latency` is a moving average of the time to a response's head that rises to a peak at once and comes down with the time
# constant TAU: an endpoint that got slow is avoided after one answer. It also falls while nothing is heard, so that one
# that was slow is tried again. The weight counts in the draw and in the load, see balance.pyx.
#
# An endpoint that has not answered yet costs nothing while it is idle, so it is tried, and a second for each request under
# way once it is not: somebody who takes requests and never answers gets no more (Finagle's penalty).

cdef enum:
    _EWMA_TAU_NS = 10000000000
    _EWMA_PENALTY_NS = 1000000000


cdef inline double _faded(int64_t passed_ns) noexcept:
    # exp(-passed / TAU). Between busy endpoints little time passes: two terms then do, to 1 in 20,000.
    cdef double x
    if passed_ns <= 0:
        return 1
    x = <double>passed_ns / _EWMA_TAU_NS
    return 1 - x if x < 0.01 else exp(-x)


cdef void ewma_observe(Seat seat, int64_t latency_ns, int64_t now) noexcept:
    cdef double latency = <double>max(latency_ns, <int64_t>1), weight
    if seat.ewma_at_ns == 0 or latency >= seat.ewma_ns:
        seat.ewma_ns = latency
    else:
        weight = _faded(now - seat.ewma_at_ns)
        seat.ewma_ns = seat.ewma_ns * weight + latency * (1 - weight)
    seat.ewma_at_ns = max(now, <int64_t>1)


cdef inline double _ewma_cost(const Member* member, bint forgive, int64_t now) noexcept:
    cdef double latency
    cdef int64_t active = burden(<Seat>member.seat, forgive)
    if (<Seat>member.seat).ewma_at_ns == 0:
        return <double>_EWMA_PENALTY_NS * active
    latency = (<Seat>member.seat).ewma_ns * _faded(now - (<Seat>member.seat).ewma_at_ns)
    return latency * (active * member.per_weight + 1)


cdef class PeakEwma(Balancer):
    """Of two drawn by weight the one where a request would wait less."""

    cdef double cost(self, const Member* member, int64_t now) noexcept:
        return _ewma_cost(member, False, now)

    cdef int choose(self, const Draw* draw) noexcept:
        return _better_of_two(self, draw, True)
