# Theory of operation.
#
# Every report of an attempt passes here. Three things make an endpoint an outlier, each as in Envoy:
#
# - `consecutive_errors` failures of any kind in a row, or `consecutive_gateway_errors` of those where nobody
#   who works is there. A success ends both rows, a plain 5xx ends that of gateway errors. Judged at once.
# - A success rate below mean - success_rate_stdev x standard deviation, over the endpoints that had at least
#   min_requests in the interval, if there are min_endpoints such. Judged once for an interval, by the process
#   whose report is the first behind it: it moves `interval_ns` on by compare-and-swap. There is no timer;
#   without reports there is nothing to judge.
#
# An outlier is ejected for base_ejection x `ejections` (how often it was, lately), at most max_ejection.
# `ejections` goes down by one for each interval that it spends outside. It comes back by time alone:
# `ejected_until_ns` passes.
#
# It is not ejected if more than max_ejected percent were (one always may, unless that is 0), if no other
# endpoint that can be used would be left, if an operator has spoken for it, or if its probes have taken it
# out already. Then, and behind every ejection, its row begins anew. While an endpoint is ejected nothing is
# counted for it: what still ends was sent before.
#
# The rule about the last one is about all endpoints, so one process decides at a time: it puts its time into
# `UpstreamState.lock`. It then looks at each endpoint once and lets go; a process that finds the lock taken
# waits for nothing and leaves the row as it is, so that the next failure asks again. Whoever died with the
# lock held it for more than a second, and it is taken from him: by compare-and-swap, so by one. (A process
# that was stopped inside for so long may eject one more than it should when it goes on. Process ids would not
# tell a dead one from a new one with its number.)

from libc.math cimport sqrt

cdef enum:
    _OUTLIER_LOCK_NS = 1000000000
    _OUTLIER_MILLION = 1000000


cdef class OutlierRule:
    """Which endpoints are ejected, and for how long. Immutable; what was counted lies in the records.

    consecutive_errors, consecutive_gateway_errors: in a row; 0: off. success_rate: whether rates are compared.
    success_rate_stdev: standard deviations below the mean. min_endpoints, min_requests: what a comparison
    needs, from 1. interval, base_ejection, max_ejection: ns. max_ejected: percent of the endpoints; 0: none
    is ever ejected. Raises ValueError for values outside.

    The defaults are Envoy's, but for max_ejected (Envoy: 10) and for the gateway errors, which Envoy counts
    and does not act upon.
    """

    def __cinit__(
        self, *, consecutive_errors: int = 5, consecutive_gateway_errors: int = 5, success_rate: bool = True,
        success_rate_stdev: float = 1.9, min_endpoints: int = 5, min_requests: int = 100,
        interval: int = 10_000_000_000, base_ejection: int = 30_000_000_000, max_ejection: int = 300_000_000_000,
        max_ejected: float = 50,
    ) -> None:
        if not (0 <= consecutive_errors < 1 << 31 and 0 <= consecutive_gateway_errors < 1 << 31):
            raise ValueError("consecutive errors are a number from 0")
        if not 0 <= success_rate_stdev < float("inf"):
            raise ValueError("success_rate_stdev is a number from 0")
        if not (1 <= min_endpoints < 1 << 31 and 1 <= min_requests < 1 << 31):
            raise ValueError("min_endpoints and min_requests are 1 or more")
        if not 0 <= max_ejected <= 100:
            raise ValueError("max_ejected is a number from 0 to 100")
        _check_ns("interval", interval)
        _check_ns("base_ejection", base_ejection)
        _check_ns("max_ejection", max_ejection)
        self.consecutive_errors = consecutive_errors
        self.consecutive_gateway_errors = consecutive_gateway_errors
        self.success_rate = success_rate
        self.success_rate_stdev = success_rate_stdev
        self.min_endpoints = min_endpoints
        self.min_requests = min_requests
        self.interval = interval
        self.base_ejection = base_ejection
        self.max_ejection = max(max_ejection, base_ejection)
        self.max_ejected = max_ejected
        self.steps = min((self.max_ejection + self.base_ejection - 1) // self.base_ejection, <int64_t>0xFFFFFFFF)

    cdef void report(self, Seat seat, tuple seats, UpstreamState* upstream, int outcome, int64_t now) noexcept:
        cdef EndpointState* state = seat.state
        cdef int64_t began = upstream.interval_ns
        if now - began >= self.interval:
            self._end_interval(seats, upstream, began, now)
        if state.ejected_until_ns > now:
            return
        if self.success_rate:
            fg_add64(&state.interval_requests, 1)
        if outcome != OUTCOME_OK:
            self._failed(seat, seats, upstream, outcome, now)
        elif state.errors_row != 0 or state.gateway_row != 0:
            state.errors_row = 0
            state.gateway_row = 0

    cdef void _failed(self, Seat seat, tuple seats, UpstreamState* upstream, int outcome, int64_t now) noexcept:
        cdef EndpointState* state = seat.state
        cdef uint32_t errors = fg_add32(&state.errors_row, 1)
        cdef uint32_t gateway = 0
        if self.success_rate:
            fg_add64(&state.interval_failures, 1)
        if outcome == OUTCOME_GATEWAY:
            gateway = fg_add32(&state.gateway_row, 1)
        else:
            state.gateway_row = 0
        if (
            (self.consecutive_errors != 0 and errors >= self.consecutive_errors)
            or (self.consecutive_gateway_errors != 0 and gateway >= self.consecutive_gateway_errors)
        ) and self._eject(seat, seats, upstream, now) and state.ejected_until_ns > now:
            # One that may not be ejected keeps its rows: a balancer heeds them.
            state.errors_row = 0
            state.gateway_row = 0

    cdef int allowed(self, Py_ssize_t total) noexcept nogil:
        if self.max_ejected == 0:
            return 0
        # 29 % of 100 are 28.999... in floating point.
        return max(1, <int>(<double>total * self.max_ejected / 100 + 1e-9))

    cdef bint _eject(self, Seat seat, tuple seats, UpstreamState* upstream, int64_t now) noexcept:
        # False: not decided, another process is about to.
        cdef EndpointState* state = seat.state
        cdef uint64_t since = fg_load64(&upstream.lock)
        cdef uint64_t mine = <uint64_t>max(now, 1)
        if since != 0 and now - <int64_t>since < _OUTLIER_LOCK_NS:
            return False
        if not fg_cas64(&upstream.lock, since, mine):
            return False
        if self._may_eject(seat, seats, now):
            if state.ejections < self.steps:
                state.ejections += 1
            if state.ejections >= self.steps:
                state.returned_ns = now + self.max_ejection
            else:
                state.returned_ns = now + <int64_t>state.ejections * self.base_ejection
            fg_store64(<uint64_t*>&state.ejected_until_ns, <uint64_t>state.returned_ns)
            upstream_changed(upstream)
        fg_cas64(&upstream.lock, mine, 0)
        return True

    cdef bint _may_eject(self, Seat seat, tuple seats, int64_t now) noexcept:
        cdef EndpointState* state = seat.state
        cdef EndpointState* other
        cdef Py_ssize_t i, total = len(seats)
        cdef int ejected = 1, usable = 0
        cdef bint member = False
        if (
            state.operator_state != OPERATOR_NONE or state.probe_state == PROBE_DOWN
            or state.ejected_until_ns > now
        ):
            return False
        for i in range(total):
            other = (<Seat>seats[i]).state
            if other == state:
                member = True
                continue
            if other.ejected_until_ns > now:
                ejected += 1
            if endpoint_status(other, now) == STATUS_READY:
                usable += 1
        # One that is no member has left the upstream since the attempt began.
        return member and usable > 0 and ejected <= self.allowed(total)

    cdef void _end_interval(self, tuple seats, UpstreamState* upstream, int64_t began, int64_t now) noexcept:
        cdef EndpointState* state
        cdef Py_ssize_t i, total = len(seats)
        cdef int compared = 0
        cdef double mean = 0, variance = 0, off, bound
        if not fg_cas64(<uint64_t*>&upstream.interval_ns, <uint64_t>began, <uint64_t>now):
            return
        if began == 0:
            # The first report of all: an interval begins, none ends.
            return
        for i in range(total):
            state = (<Seat>seats[i]).state
            self._forgive(state, began, now)
            if self._rate(state, now):
                compared += 1
                mean += state.success_rate
        if compared < self.min_endpoints or not self.success_rate:
            return
        mean /= compared
        for i in range(total):
            state = (<Seat>seats[i]).state
            if state.success_rate != 0:
                off = state.success_rate - mean
                variance += off * off
        bound = mean - self.success_rate_stdev * sqrt(variance / compared)
        for i in range(total):
            state = (<Seat>seats[i]).state
            if state.success_rate != 0 and state.success_rate < bound:
                self._eject(<Seat>seats[i], seats, upstream, now)

    cdef bint _rate(self, EndpointState* state, int64_t now) noexcept nogil:
        # Takes what the interval has counted. False: too little to be compared.
        cdef uint64_t requests = fg_load64(&state.interval_requests)
        cdef uint64_t failures = fg_load64(&state.interval_failures)
        fg_add64(&state.interval_requests, -<int64_t>requests)
        fg_add64(&state.interval_failures, -<int64_t>failures)
        if requests < self.min_requests or state.ejected_until_ns > now:
            state.success_rate = 0
            return False
        # The two were not read at one moment.
        failures = min(failures, requests)
        state.success_rate = <uint32_t>(1 + (requests - failures) * _OUTLIER_MILLION // requests)
        return True

    cdef void _forgive(self, EndpointState* state, int64_t began, int64_t now) noexcept nogil:
        cdef int64_t outside
        if state.ejections == 0:
            return
        outside = (now - max(began, state.ejected_until_ns)) // self.interval
        if outside > 0:
            state.ejections -= <uint32_t>min(outside, <int64_t>state.ejections)
