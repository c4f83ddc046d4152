# Theory of operation.
#
#     state       event                                        then
#     closed      a report, and the window now has at least    open until now + open_time
#                 min_requests, error_percent of them failed
#     open        a report (it was sent before)                nothing
#     open        a request before until_ns                    refused
#     open        a request from until_ns on                   half-open: it is the first of `trials` trials
#     half-open   a request, trials left                       let through, one trial less
#     half-open   a request, none left                         refused
#     half-open   a request from until_ns on                   `trials` anew: nobody waits for those that never report
#     half-open   a success                                    the `trials`-th closes it, with an empty window
#     half-open   a failure                                    open until now + open_time
#
# until_ns is set to now + open_time with every step to open and half-open, so a breaker is never shut for
# longer than that without somebody having a try.
#
# Several processes do this to one record. Each step is decided by one compare-and-swap, on `state` or, for
# granting trials, on `until_ns`: exactly one of them takes it, and what the step needs is written before
# (until_ns before `open`, an empty window before `closed`, trials before `half-open`). Who dies between the
# two leaves a breaker that is as it was, at worst with another open_time to wait. Counts are exact but at the
# change of a window, where a report of another process may go with the old one. Two things are let be, since
# they cost a request or an open_time and heal themselves: a trial's end and that of a request sent before the
# breaker opened look alike, and who was stopped between the look at the counts and the swap opens a breaker
# on old evidence.
#
# The window is a plain one: it begins with the first report after the last one ended. A burst of failures
# that lies across two windows is judged in two parts; in return a report costs one addition.
#
# Defaults. min_requests 20, window 10 s and open_time 5 s (and 50 where somebody wants the breaker) are
# Hystrix's numbers; Polly waits the same 5 s, with 100 requests in 30 s and 10 %; Resilience4j has 50 % of
# the last 100 requests, 60 s, and was the first to want several trials (10) where the other two take one.
# Three are enough not to be closed by luck.

cdef enum:
    _BREAKER_MAX_TRIALS = 1000000


cdef int _check_ns(str what, object ns) except -1:
    # 30 years: sums of a few of them and the time stay in 63 bits.
    if not 1 <= ns <= 10**18:
        raise ValueError(f"{what} is a time from 1 to 10**18 ns")
    return 0


cdef class BreakerRule:
    """When a breaker opens and closes. Immutable; the counts lie in the records.

    error_percent: 0 to 100, of the requests of a window, from which on it opens; 0: never. min_requests: that a
    window must have, from 1. window, open_time: nanoseconds. trials: successes in a row that close it, and how
    many requests are let through at a time to find out; 1 to 1000000. Raises ValueError for values outside.
    """

    def __cinit__(
        self, *, error_percent: float = 0, min_requests: int = 20, window: int = 10_000_000_000,
        open_time: int = 5_000_000_000, trials: int = 3,
    ) -> None:
        if not 0 <= error_percent <= 100:
            raise ValueError("error_percent is a number from 0 to 100")
        if not 1 <= min_requests < 1 << 62:
            raise ValueError("min_requests is 1 or more")
        if not 1 <= trials <= _BREAKER_MAX_TRIALS:
            raise ValueError(f"trials is a number from 1 to {_BREAKER_MAX_TRIALS}")
        _check_ns("window", window)
        _check_ns("open_time", open_time)
        self.error_percent = error_percent
        self.min_requests = min_requests
        self.trials = trials
        self.window = window
        self.open_time = open_time

    cdef bint report(self, Breaker* breaker, UpstreamState* upstream, bint failed, int64_t now) noexcept nogil:
        if breaker.state == BREAKER_CLOSED:
            if self._count(breaker, failed, now):
                self._open(breaker, upstream, BREAKER_CLOSED, now)
            return False
        if breaker.state == BREAKER_OPEN:
            return False
        if failed:
            self._open(breaker, upstream, BREAKER_HALF_OPEN, now)
            return False
        if fg_add32(&breaker.successes, 1) < self.trials:
            return False
        # Emptied first: the old counts would open it again at the next report.
        fg_store64(&breaker.failures, 0)
        fg_store64(&breaker.requests, 0)
        fg_store64(<uint64_t*>&breaker.window_ns, <uint64_t>now)
        if not fg_cas32(&breaker.state, BREAKER_HALF_OPEN, BREAKER_CLOSED):
            return False
        upstream_changed(upstream)
        return True

    cdef bint _count(self, Breaker* breaker, bint failed, int64_t now) noexcept nogil:
        cdef int64_t began = breaker.window_ns
        cdef uint64_t requests, failures
        if now - began >= self.window and fg_cas64(
            <uint64_t*>&breaker.window_ns, <uint64_t>began, <uint64_t>now
        ):
            fg_store64(&breaker.failures, 0)
            fg_store64(&breaker.requests, 0)
        requests = fg_add64(&breaker.requests, 1)
        failures = fg_add64(&breaker.failures, 1) if failed else fg_load64(&breaker.failures)
        if failures == 0 or requests < self.min_requests or self.error_percent == 0:
            return False
        return <double>failures * 100 >= self.error_percent * <double>requests

    cdef void _open(self, Breaker* breaker, UpstreamState* upstream, uint32_t was, int64_t now) noexcept nogil:
        fg_store64(<uint64_t*>&breaker.until_ns, <uint64_t>(now + self.open_time))
        if fg_cas32(&breaker.state, was, BREAKER_OPEN):
            upstream_changed(upstream)

    cdef bint admits(self, Breaker* breaker, UpstreamState* upstream, int64_t now) noexcept nogil:
        cdef uint32_t left
        cdef int64_t until
        if breaker.state == BREAKER_CLOSED:
            return True
        until = <int64_t>fg_load64(<uint64_t*>&breaker.until_ns)
        if until <= now and self._grant(breaker, upstream, until, now):
            return True
        while breaker.state == BREAKER_HALF_OPEN:
            left = fg_add32(&breaker.trials, 0)
            if left == 0:
                return False
            if fg_cas32(&breaker.trials, left, left - 1):
                if left == 1:
                    # A balancer need not choose it any more.
                    upstream_changed(upstream)
                return True
        return breaker.state == BREAKER_CLOSED

    cdef bint _grant(self, Breaker* breaker, UpstreamState* upstream, int64_t until, int64_t now) noexcept nogil:
        # Trials for everybody, the first of them for the caller; False: another process was faster.
        if not fg_cas64(
            <uint64_t*>&breaker.until_ns, <uint64_t>until, <uint64_t>(now + self.open_time)
        ):
            return False
        if breaker.state == BREAKER_OPEN:
            breaker.successes = 0
        breaker.trials = self.trials - 1
        fg_cas32(&breaker.state, BREAKER_OPEN, BREAKER_HALF_OPEN)
        upstream_changed(upstream)
        return True
