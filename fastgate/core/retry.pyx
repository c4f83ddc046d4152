# Theory of operation. A failed attempt is tried again if five say yes, in the order of their cost: attempts are left,
# `wants` (the failure is one of those configured), `allows` (sending it twice does no harm), `wait_ns` (the endpoint does
# not ask for more patience than we have), and the budget of the upstream (`UpstreamLoad.take_retry`), which is given
# back when that retry has ended.

_CONDITIONS: dict[str, int] = {
    "connect-failure": RETRY_CONNECT, "refused": RETRY_REFUSED, "reset": RETRY_RESET, "timeout": RETRY_TIMEOUT,
    "status": RETRY_STATUS,
}
_UNSAFE: dict[str, int] = {
    "never": UNSAFE_NEVER, "idempotency-key": UNSAFE_IDEMPOTENCY_KEY, "always": UNSAFE_ALWAYS,
}


cdef bint reason_undelivered(int reason) noexcept nogil:
    return reason in (
        R_CONNECT_REFUSED, R_CONNECT_FAILED, R_CONNECT_TIMEOUT, R_TLS_CERTIFICATE, R_TLS_HANDSHAKE, R_DNS_FAILURE, R_QUEUE_FULL, R_QUEUE_TIMEOUT,
        R_NO_ENDPOINT, R_ENDPOINTS_PENDING, R_OVERLOADED, R_OVERLOAD_TIMEOUT, R_BREAKER_LIMIT, R_BREAKER_OPEN,
    )


cdef int64_t parse_retry_after(Span value, int64_t wall_s) noexcept nogil:
    cdef Py_ssize_t i
    cdef int64_t seconds = 0
    if value.ptr == NULL or value.len == 0:
        return -1
    if 48 <= value.ptr[0] <= 57:
        for i in range(value.len):
            if not 48 <= value.ptr[i] <= 57:
                return -1
            seconds = min(10 * seconds + (value.ptr[i] - 48), <int64_t>RETRY_AFTER_MAX_S)
        return seconds
    seconds = parse_http_date(value, wall_s)
    if seconds < 0:
        return -1
    return min(max(<int64_t>0, seconds - wall_s), <int64_t>RETRY_AFTER_MAX_S)


cdef bint _idempotency_key(const RequestView* view) noexcept nogil:
    # draft-ietf-httpapi-idempotency-key-header: an Item whose value is a String. One field line, and not an empty one:
    # two of them would name two operations.
    cdef int i, found = 0
    cdef Span value
    for i in range(view.field_count):
        if span_is(view.fields[i].name, b"idempotency-key", 15):
            value = view.fields[i].value
            found += 1
            if value.len == 0 or (value.len == 2 and value.ptr[0] == 34 and value.ptr[1] == 34):
                return False
    return found == 1


cdef class RetryPolicy:
    """When an attempt is tried again. Times in nanoseconds; -1 for none.

    attempts: tries in all, 2 .. 10. on: of "connect-failure", "refused", "reset", "timeout", "status". statuses: those
    that "status" means, 200 .. 599. per_try_timeout_ns: for each attempt's response head. backoff_base_ns and
    backoff_max_ns: see docs/resilience.md. budget_percent (0 .. 100) and budget_min: retries under way that the upstream
    may have, as a part of its active requests, and at least. body_limit: bytes of a request body kept to be sent again.
    retry_after_max_ns: the longest Retry-After that is waited for. unsafe: "never", "idempotency-key" or "always".
    Raises ValueError for anything else.
    """

    def __init__(
        self, *, int attempts=2, on=("connect-failure", "reset"), statuses=(502, 503, 504),
        int64_t per_try_timeout_ns=-1, int64_t backoff_base_ns=25000000, int64_t backoff_max_ns=250000000,
        double budget_percent=20, int budget_min=3, int64_t body_limit=65536, int64_t retry_after_max_ns=1000000000,
        str unsafe not None="never",
    ):
        cdef int status
        if not 2 <= attempts <= 10:
            raise ValueError("attempts are 2 to 10")
        if not 0 <= budget_percent <= 100 or budget_min < 0:
            raise ValueError("a budget is 0 to 100 percent, and at least 0")
        if backoff_base_ns < 0 or backoff_max_ns < 0 or body_limit < 0 or retry_after_max_ns < 0:
            raise ValueError("a pause or size is not negative")
        if unsafe not in _UNSAFE:
            raise ValueError(f"{unsafe!r} is not one of {', '.join(_UNSAFE)}")
        for name in on:
            if name not in _CONDITIONS:
                raise ValueError(f"{name!r} is not one of {', '.join(_CONDITIONS)}")
            self.conditions |= _CONDITIONS[name]
        for status in statuses:
            if not 200 <= status <= 599:
                raise ValueError(f"{status} is no status of a final response")
            self.statuses[status >> 6] |= <uint64_t>1 << (status & 63)
        self.unsafe_rule = _UNSAFE[unsafe]
        self.attempts = attempts
        self.per_try_ns = per_try_timeout_ns
        self.body_limit = body_limit
        self.backoff_base_ns = backoff_base_ns
        self.backoff_max_ns = backoff_max_ns
        self.retry_after_max_ns = min(retry_after_max_ns, <int64_t>RETRY_AFTER_MAX_S * 1000000000)
        self.budget_ppm = <uint64_t>llrint(budget_percent * 10000)
        self.budget_min = budget_min

    cdef bint wants(self, int reason, int status) noexcept nogil:
        cdef int conditions = 0
        if reason == R_NONE:
            if not self.conditions & RETRY_STATUS or not 0 <= status < 640:
                return False
            return (self.statuses[status >> 6] >> (status & 63)) & 1
        if reason == R_CONNECT_REFUSED:
            conditions = RETRY_REFUSED | RETRY_CONNECT
        elif reason in (R_CONNECT_FAILED, R_CONNECT_TIMEOUT, R_TLS_CERTIFICATE, R_TLS_HANDSHAKE, R_DNS_FAILURE):
            conditions = RETRY_CONNECT
        elif reason == R_UPSTREAM_RESET:
            conditions = RETRY_RESET
        elif reason == R_UPSTREAM_HEAD_TIMEOUT:
            conditions = RETRY_TIMEOUT
        return (self.conditions & conditions) != 0

    cdef bint allows(self, const RequestView* view, bint undelivered) noexcept nogil:
        # RFC 9110 9.2.2: "A proxy MUST NOT automatically retry non-idempotent requests." PUT and DELETE are idempotent, but
        # a second DELETE is answered 404, and a PUT that overtakes another undoes it: only safe methods (9.2.1) go
        # without a word of the operator or the client.
        if undelivered or view.method_id in (METHOD_GET, METHOD_HEAD, METHOD_OPTIONS):
            return True
        if self.unsafe_rule == UNSAFE_IDEMPOTENCY_KEY:
            return _idempotency_key(view)
        return self.unsafe_rule == UNSAFE_ALWAYS

    cdef int64_t back_off(self, int retry, uint64_t random) noexcept nogil:
        # "Full jitter": Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        cdef int64_t longest = self.backoff_base_ns
        while retry > 1 and longest < self.backoff_max_ns:
            # At most 63 turns, since `longest` doubles; 0 stays 0.
            if longest == 0 or longest > self.backoff_max_ns >> 1:
                longest = self.backoff_max_ns if longest else 0
                break
            longest <<= 1
            retry -= 1
        return <int64_t>fg_scale64(random, <uint64_t>min(longest, self.backoff_max_ns) + 1)

    cdef int64_t wait_ns(self, int retry, uint64_t random, Span retry_after, int64_t wall_s) noexcept nogil:
        cdef int64_t asked = parse_retry_after(retry_after, wall_s)
        if asked <= 0:
            return self.back_off(retry, random)
        asked *= 1000000000
        if asked > self.retry_after_max_ns:
            return -1
        # All whom it told the same would come at the same moment: the jitter stays.
        return asked + self.back_off(retry, random)

    def wants_retry(self, reason: str, status: int = 0) -> bool:
        """`wants` by a code of REASONS ("none" for an answer with this status)."""
        return self.wants([info.code for info in REASONS].index(reason), status)

    def allows_request(self, request: SampleRequest, undelivered: bool = False) -> bool:
        """`allows` for a request made in Python."""
        return self.allows(&(<SampleRequest?>request).view, undelivered)

    def pause_ns(
        self, int retry, random: int, retry_after: bytes | None = None, int64_t wall_s=0
    ) -> int | None:
        """`wait_ns` for Python; None: no retry. random: 64 bits."""
        cdef Span value = span_of(NULL, 0)
        cdef int64_t pause
        if retry_after is not None:
            value = span_of(retry_after, len(retry_after))
        pause = self.wait_ns(retry, random, value, wall_s)
        return None if pause < 0 else pause


def retry_after_seconds(value: bytes, int64_t wall_s) -> int | None:
    """`parse_retry_after` for Python; None for none."""
    cdef int64_t seconds = parse_retry_after(span_of(value, len(value)), wall_s)
    return None if seconds < 0 else seconds


def undelivered(reason: str) -> bool:
    """`reason_undelivered` by a code of REASONS."""
    return reason_undelivered([info.code for info in REASONS].index(reason))
