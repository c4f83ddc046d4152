# Whether, when and how often a failed attempt is tried again. See upstream_load.pxd for the budget.

cdef enum RetryCondition:
    RETRY_CONNECT = 1           # "connect-failure": no connection, refused ones included
    RETRY_REFUSED = 2           # "refused": the endpoint refused the connection
    RETRY_RESET = 4             # "reset": the connection ended before a response head
    RETRY_TIMEOUT = 8           # "timeout": no response head in time
    RETRY_STATUS = 16           # "status": an answer with one of `statuses`

cdef enum UnsafeRule:
    # Whether a request that changes something may be sent again although it may have been delivered.
    UNSAFE_NEVER
    UNSAFE_IDEMPOTENCY_KEY
    UNSAFE_ALWAYS

cdef enum:
    RETRY_AFTER_MAX_S = 1000000000      # 31 years: what is longer counts as that

# Whether this failure proves that the endpoint has seen no byte of the request: then any method may go again.
cdef bint reason_undelivered(int reason) noexcept nogil
# Seconds that a Retry-After asks for (RFC 9110 10.2.3), 0 .. RETRY_AFTER_MAX_S, or -1: there is none, or it is malformed
# and counts as none. `wall_s`: the present time, in seconds since 1970.
cdef int64_t parse_retry_after(Span value, int64_t wall_s) noexcept nogil

@cython.final
cdef class RetryPolicy:
    # -- which failures; `statuses` is a bitmap
    cdef int conditions
    cdef uint64_t[10] statuses
    cdef int unsafe_rule
    # -- how often, and within what; -1: none
    cdef readonly int attempts              # the first one included
    cdef readonly int64_t per_try_ns
    cdef readonly int64_t body_limit        # bytes of a request body kept for sending it again
    # -- when
    cdef int64_t backoff_base_ns
    cdef int64_t backoff_max_ns
    cdef readonly int64_t retry_after_max_ns
    # -- the budget, of all workers: percent of the active requests in millionths, and at least
    cdef uint64_t budget_ppm
    cdef uint64_t budget_min

    # Whether an attempt that ended so is one to try again: `reason` of a failure, or R_NONE and the answer's status.
    cdef bint wants(self, int reason, int status) noexcept nogil
    # Whether this request may be sent again; `undelivered`: it is proved that no endpoint has seen it yet.
    cdef bint allows(self, const RequestView* view, bint undelivered) noexcept nogil
    # The pause before retry number `retry` (from 1), from 64 random bits.
    cdef int64_t back_off(self, int retry, uint64_t random) noexcept nogil
    # The same behind an answer with this Retry-After (ptr NULL: none): not before the time that it names. -1: it asks for
    # more than retry_after_max, so there is no retry, and the answer is passed on.
    cdef int64_t wait_ns(self, int retry, uint64_t random, Span retry_after, int64_t wall_s) noexcept nogil
