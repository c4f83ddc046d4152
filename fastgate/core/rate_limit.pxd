# The native rate-limit filter.

cdef enum KeyPart:
    # What a bucket's key is made of, in the order of the configuration.
    KEY_CLIENT_IP
    KEY_CONSUMER
    KEY_HEADER
    KEY_COOKIE
    KEY_PATH
    KEY_GLOBAL

cdef struct RateVerdict:
    # What one check found; 16 bytes, kept by the exchange until its response head is written.
    uint64_t level          # units left after the check
    uint8_t limited         # the bucket had no whole token
    uint8_t refused         # limited, and not report-only: answer 429, R_RATE_LIMITED

cdef struct RouteShare:
    # What a limiter must know of the route in front of which it stands. It belongs to the route, since that goes
    # with its snapshot while the limiter and its buckets live on.
    uint64_t id             # scope = "route": a part of the key, made of the route's name alone
    int16_t[16] captures    # for each KEY_PATH part: where its {NAME} is among the captures; -1: the route has none

@cython.final
cdef class RouteBinding:
    cdef RouteShare share

@cython.final
cdef class RateLimiter:
    # -- what it was built from
    cdef readonly str name
    cdef readonly bint report_only
    cdef readonly bint per_route        # scope = "route": the route is part of the key
    cdef readonly object burst
    cdef BucketRule rule
    # -- the key: kinds, and the name of each (bytes, b"" where it has none)
    cdef int part_count
    cdef int[16] part_kind
    cdef tuple part_name
    cdef Span[16] part_span             # into part_name
    cdef int ipv6_prefix
    cdef uint64_t[2] secret
    cdef RouteShare unbound             # of a route without name and captures
    # -- the buckets
    cdef BucketTable table
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
    # verdict.refused is set). `now_ns` is monotonic time. `route` is of a RouteBinding made by `bind`.
    cdef bint check(
        self, const RequestView* view, const RouteShare* route, int64_t now_ns, RateVerdict* verdict
    ) noexcept nogil
    # Whole seconds until one token is there, at least 1: the Retry-After of a refusal.
    cdef int64_t retry_after_s(self, const RateVerdict* verdict) noexcept nogil
    # Complete field lines ("Name: value" CRLF) for the response: Retry-After if refused, and those that
    # `headers` names. Nothing for a report-only limiter.
    cdef void write_headers(self, const RateVerdict* verdict, Out* out) noexcept nogil
    cdef Hash128 _key(self, const RequestView* view, const RouteShare* route) noexcept nogil
    cdef int64_t _seconds(self, uint64_t units) noexcept nogil
