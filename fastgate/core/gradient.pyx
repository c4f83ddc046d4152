# Theory of operation. A service that works on c requests at a time answers as fast with c requests as with one; what goes
# beyond waits in it, and latency grows as the number under way. So latency tells when to stop.
#
# The rule is that of Envoy's adaptive concurrency filter (its gradient controller, with its constants): every 100 ms
#
#     gradient = baseline x 1.25 / median latency of the window, within 0.5 .. 2
#     limit    = limit x gradient + sqrt(limit x gradient)
#
# which settles where latency is 1.25 times the baseline, and a little above it (the square root is the room in which it
# finds out that more is possible). Three things differ:
#
# - Netflix's Gradient2 does not change a limit of which less than half is in use, since its latencies say nothing about
#   it; nor do we. So the limit of a quiet service does not grow beyond all bounds (and let everything in when it gets
#   busy).
# - Envoy measures the baseline once a minute by letting 3 requests through at a time, busy or not. Here every sample of a
#   time in which at most half of the limit was under way is one for the baseline: where the limit is right, half of it is
#   below c. A service that has such times is never disturbed.
# - One that has none is measured by halving the limit until there are enough samples, as BBRv3's ProbeRTT (half of the
#   bandwidth-delay product) does: every 10 s, or every 100 baselines if that is longer, and as soon as the limit has
#   fallen to half of what it was at the last baseline. That latter is what lets it grow again after a service has become
#   slower for another reason than load: then half of the limit is as slow as all of it, and becomes the baseline.
#
# A baseline taken with too high a limit is too high, but less than in proportion, so each probe brings the limit closer.

from libc.math cimport sqrt


cdef int64_t _gradient_median(int64_t* samples, int count) noexcept nogil:
    # Hoare's selection; it reorders the samples. At most 250 of them, once in a window.
    cdef int low = 0, high = count - 1, middle = count >> 1, i, k
    cdef int64_t pivot, kept
    while low < high:
        pivot = samples[(low + high) >> 1]
        i = low
        k = high
        while i <= k:
            while samples[i] < pivot:
                i += 1
            while samples[k] > pivot:
                k -= 1
            if i <= k:
                kept = samples[i]
                samples[i] = samples[k]
                samples[k] = kept
                i += 1
                k -= 1
        if k < middle:
            low = i
        if middle < i:
            high = k
    return samples[middle]


cdef class GradientLimit:
    """An adaptive concurrency limit between min_limit and max_limit (1 <= min_limit <= max_limit, else ValueError).

    begin: the limit before anything is known; 0: 20 (as Netflix's limits), within the bounds.
    """

    def __init__(self, *, int min_limit=4, int max_limit=1000, int begin=0):
        if not 1 <= min_limit <= max_limit or begin < 0:
            raise ValueError("the limits are 1 <= min <= max")
        self.min_limit = min_limit
        self.max_limit = max_limit
        self.estimate = min(max(begin or GRADIENT_BEGIN, min_limit), max_limit)
        self.baseline_estimate = self.estimate

    cdef int _half(self) noexcept nogil:
        return max(self.min_limit, <int>(self.estimate / 2))

    cpdef int limit(self) noexcept nogil:
        """The limit now in force."""
        return self._half() if self.probing else <int>self.estimate

    cdef void _probe(self) noexcept nogil:
        self.probing = True
        self.quiet_count = 0

    cpdef int observe(self, int64_t latency_ns, int active, int64_t now) noexcept nogil:
        """Takes a sample: a request that ends now as one of `active`; returns the limit."""
        if latency_ns < 1:
            latency_ns = 1
        if self.samples == 0:
            self.window_from_ns = now
        if self.samples < 64:
            self.samples += 1
        self.usual_ns += (latency_ns - self.usual_ns) // self.samples
        if active > self._half() or self.windows == 0:
            self.busy_ns = now
        elif now - latency_ns > self.busy_ns and now - self.busy_ns > GRADIENT_SETTLE * self.usual_ns:
            self._quiet_sample(latency_ns, now)
        if self.probing or now < self.window_from_ns:
            return self.limit()
        self.window[self.window_count % GRADIENT_ROOM] = latency_ns
        self.window_count += 1
        self.window_peak = max(self.window_peak, active)
        if self.window_count >= GRADIENT_LEAST and now - self.window_from_ns >= max(
            <int64_t>GRADIENT_WINDOW_NS, self.usual_ns
        ):
            self._window_end(now)
            self._window_begin(now)
        return self.limit()

    cdef void _window_begin(self, int64_t now) noexcept nogil:
        self.window_from_ns = now + self.usual_ns
        self.window_count = 0
        self.window_peak = 0

    cdef void _quiet_sample(self, int64_t latency_ns, int64_t now) noexcept nogil:
        # The whole life of this request was quiet: it began behind the last time that more than half was under way. (The
        # number under way only falls when a request ends, so every peak is seen by the next one that ends.) Those that end
        # soon behind that time are the quick ones, which is why the first ones do not count.
        cdef int64_t median
        self.quiet[self.quiet_count] = latency_ns
        self.quiet_count += 1
        if self.quiet_count < min(max(4 * <int>self.estimate, GRADIENT_QUIET_LEAST), GRADIENT_QUIET_MOST):
            return
        median = _gradient_median(self.quiet, self.quiet_count)
        self.quiet_count = 0
        if self.probing or self.baseline_ns == 0:
            self.baseline_ns = median
        else:
            self.baseline_ns += (median - self.baseline_ns) // 4
        self.baseline_at_ns = now
        self.baseline_estimate = self.estimate
        if self.probing:
            self.probing = False
            self._window_begin(now)

    cdef void _window_end(self, int64_t now) noexcept nogil:
        cdef double gradient = 1, latency
        self.windows += 1
        if self.window_peak <= self.estimate / 2:
            return
        latency = _gradient_median(self.window, <int>min(self.window_count, <int64_t>GRADIENT_ROOM))
        if self.baseline_ns:
            gradient = min(2.0, max(0.5, 1.25 * self.baseline_ns / latency))
        else:
            # Busy from the first moment: to grow a little is better than to hold a service back of which nothing is known.
            self.blind += 1
            if self.blind >= GRADIENT_BLIND:
                self._probe()
        self.estimate *= gradient
        self.estimate = min(<double>self.max_limit, max(<double>self.min_limit, self.estimate + sqrt(self.estimate)))
        if self.baseline_ns == 0:
            return
        if self.estimate < self.baseline_estimate / 2 or now - self.baseline_at_ns > max(
            <int64_t>GRADIENT_STALE_NS, GRADIENT_STALE_TIMES * self.baseline_ns
        ):
            self._probe()
