# The native rate-limit filter.

cdef struct RateVerdict:
    # What one check found; 16 bytes, kept by the exchange until its response head is written.
    uint64_t level          # units left after the check
    uint8_t limited         # the bucket had no whole token
    uint8_t refused         # limited, and not report-only: answer 429, R_RATE_LIMITED

@cython.final
cdef class RateLimiter:
    # -- what it was built from
    cdef readonly str name
    cdef readonly bint report_only
    cdef readonly bint per_route        # per = "route": the route is part of the key
    cdef readonly object burst
    cdef BucketRule rule
    cdef RequestKey key                 # its seed is secret
    cdef readonly int64_t cost          # tokens of a request
    cdef bytes cost_header              # of the upstream's answer: what it really cost; None: none
    # -- the buckets: of this process, or of the host
    cdef BucketTable table
    cdef readonly SharedBuckets shared  # None: of this process
    # -- how its headers begin; the numbers follow
    cdef bint draft_headers
    cdef bint x_headers
    cdef tuple header_text              # keeps the spans alive
    cdef Span policy_line               # whole
    cdef Span state_start               # RateLimit: "name";r=
    cdef Span limit_line                # X-RateLimit-Limit, whole
    # -- counted here, per process
    cdef readonly uint64_t passed
    cdef readonly uint64_t limited      # refused
    cdef readonly uint64_t reported     # report-only: would have been refused

    # Takes a token of the request's bucket. True: the exchange ends here with R_RATE_LIMITED (then
    # verdict.refused is set). `now_ns` is monotonic time. `route_id` is a Route's.
    cdef bint check(
        self, const RequestView* view, uint64_t route_id, int64_t now_ns, RateVerdict* verdict
    ) noexcept nogil
    # What a request turned out to cost beyond `cost` (or below it).
    cdef void charge(self, const RequestView* view, uint64_t route_id, int64_t tokens, int64_t now_ns) noexcept nogil
    # Whole seconds until one token is there, at least 1: the Retry-After of a refusal.
    cdef int64_t retry_after_s(self, const RateVerdict* verdict) noexcept nogil
    # Complete field lines ("Name: value" CRLF) for the response: Retry-After if refused, and those that
    # `headers` names. Nothing for a report-only limiter.
    cdef void write_headers(self, const RateVerdict* verdict, Out* out) noexcept nogil
    cdef inline Hash128 _key(self, const RequestView* view, uint64_t route_id) noexcept nogil:
        return self.key.every(view, route_id if self.per_route else 0)
    cdef int64_t _seconds(self, uint64_t units) noexcept nogil
