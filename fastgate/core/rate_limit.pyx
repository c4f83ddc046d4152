# The native rate-limit filter: composes the key, asks the bucket, writes the fields.
#
# A part of the key that the request does not have (no such header or cookie, no consumer, a Unix socket's
# peer without address) counts as an empty value: all such requests share one bucket, so leaving the header
# out is no way around a limit.

import hashlib
import os

class RateResult(NamedTuple):
    """What `check_request` found. remaining: tokens; retry_after: seconds; headers: complete lines."""

    limited: bool
    refused: bool
    remaining: int
    retry_after: int
    headers: bytes


cdef enum:
    _RL_MAX_KEYS = 1 << 30


def _shared_path(config):
    # One file for each limit: another rate, or another way to make keys, is another limit.
    if not config.shared_as or not os.path.isdir("/dev/shm"):
        return ""
    identity = repr((config.shared_as, config.name, config.key, config.rate, config.burst, config.per,
                     config.ipv6_prefix, config.max_keys))
    digest = hashlib.blake2b(identity.encode(), digest_size=12).hexdigest()
    return f"/dev/shm/fastgate-{os.geteuid()}-limit-{digest}"


cdef class RateLimiter:
    """Token buckets by key, from a config RateLimit (attributes name, key, rate, burst, per, scope, ipv6_prefix,
    max_keys, report_only, headers, cost, cost_header, shared_as).

    seed: 16 bytes that key the hash; random by default. Raises ValueError for what no bucket can keep
    (`rate_error`). The buckets belong to this process, or (scope "host") to all that give the same `shared_as`.
    """

    def __init__(self, config: object, *, seed: bytes | None = None) -> None:
        if self.table.buckets != NULL:
            raise TypeError("a RateLimiter is built once")
        self.name = config.name
        self.report_only = config.report_only
        self.per_route = config.per == "route"
        self.cost = config.cost
        self.cost_header = config.cost_header.lower().encode("ascii") or None
        self.burst = config.burst
        if not 1 <= config.max_keys <= _RL_MAX_KEYS:
            raise ValueError(f"max_keys is 1 to {_RL_MAX_KEYS}")
        bucket_rule(&self.rule, config.rate.count, config.rate.per_ns, config.burst)
        if config.scope == "host":
            self.shared = SharedBuckets(
                _shared_path(config), count=config.rate.count, per_ns=config.rate.per_ns, burst=config.burst,
                capacity=config.max_keys,
            )
            seed = self.shared.seed
        elif not table_open(&self.table, config.max_keys):
            raise MemoryError
        self.key = RequestKey(
            config.key, seed=os.urandom(16) if seed is None else seed, ipv6_prefix=config.ipv6_prefix
        )
        self._lay_headers(config.headers)

    def __dealloc__(self):
        table_close(&self.table)

    def _lay_headers(self, headers: tuple[str, ...]) -> None:
        # draft-ietf-httpapi-ratelimit-headers-10, 3 and 4: an Item (RFC 9651 3.3) whose value is the policy's
        # name as a String. The quota is the burst and the window the time in which an empty bucket fills,
        # rounded up: it promises a client no more than the bucket holds.
        for header in headers:
            if header not in ("ratelimit", "x-ratelimit"):
                raise ValueError(f"{header!r} is no kind of rate limit headers")
        self.draft_headers = "ratelimit" in headers
        self.x_headers = "x-ratelimit" in headers
        if self.draft_headers and not (self.name.isascii() and self.name.isprintable()):
            raise ValueError(f"{self.name!r}: a structured field's String is ASCII (RFC 9651 3.3.3)")
        quoted = '"' + self.name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        window = self._seconds(self.rule.full)
        cdef bytes policy = f"RateLimit-Policy: {quoted};q={self.burst};w={window}\r\n".encode()
        cdef bytes state = f"RateLimit: {quoted};r=".encode()
        cdef bytes limit = f"X-RateLimit-Limit: {self.burst}\r\n".encode()
        self.header_text = (policy, state, limit)
        self.policy_line = span_of(policy, len(policy))
        self.state_start = span_of(state, len(state))
        self.limit_line = span_of(limit, len(limit))


    cdef bint check(
        self, const RequestView* view, uint64_t route_id, int64_t now_ns, RateVerdict* verdict
    ) noexcept nogil:
        cdef Hash128 key = self._key(view, route_id)
        cdef Bucket* bucket
        cdef uint64_t left = 0
        cdef bint taken
        if self.shared is not None:
            taken = self.shared.take(key.low, <uint64_t>self.cost, now_ns, &left)
            # In units of the rule, as the fields are written from them.
            verdict.level = <uint64_t>(<double>left / <double>self.shared.interval * <double>self.rule.cost)
        else:
            bucket = table_bucket(&self.table, key, self.rule.full, now_ns)
            taken = bucket_take(bucket, &self.rule, self.rule.cost * <uint64_t>self.cost, now_ns)
            verdict.level = bucket.level
        verdict.refused = 0
        if taken:
            verdict.limited = 0
            self.passed += 1
        else:
            verdict.limited = 1
            if self.report_only:
                self.reported += 1
            else:
                self.limited += 1
                verdict.refused = 1
        return verdict.refused

    def counts(self):
        return {"passed": self.passed, "refused": self.limited, "reported": self.reported}

    cdef void charge(self, const RequestView* view, uint64_t route_id, int64_t tokens, int64_t now_ns) noexcept nogil:
        cdef Hash128 key = self._key(view, route_id)
        cdef Bucket* bucket
        cdef uint64_t most
        if self.shared is not None:
            self.shared.charge(key.low, tokens, now_ns)
            return
        bucket = table_bucket(&self.table, key, self.rule.full, now_ns)
        bucket_take(bucket, &self.rule, 0, now_ns)
        # A bucket of one process owes nothing: it is empty at the worst.
        if tokens >= 0:
            most = bucket.level // self.rule.cost
            bucket.level -= min(<uint64_t>tokens, most) * self.rule.cost
        else:
            most = (self.rule.full - bucket.level) // self.rule.cost
            bucket.level += min(<uint64_t>(-tokens), most) * self.rule.cost

    cdef int64_t _seconds(self, uint64_t units) noexcept nogil:
        # The time in which `units` flow in, in seconds rounded up.
        cdef uint64_t ns = units // self.rule.gain + (units % self.rule.gain != 0)
        return <int64_t>(ns // 1000000000 + (ns % 1000000000 != 0))

    cdef int64_t retry_after_s(self, const RateVerdict* verdict) noexcept nogil:
        cdef uint64_t wanted = self.rule.cost * <uint64_t>self.cost
        if verdict.level >= wanted:
            return 1
        # RFC 9110 10.2.3 allows 0, which only makes a client come back at once.
        return max(<int64_t>1, self._seconds(wanted - verdict.level))

    cdef void write_headers(self, const RateVerdict* verdict, Out* out) noexcept nogil:
        cdef int64_t remaining, reset
        if self.report_only:
            return
        remaining = <int64_t>(verdict.level // self.rule.cost)
        # While tokens are left, "t" tells when the whole quota is there again; without, when the next token
        # is, which is what the draft asks for beside Retry-After ("SHOULD reference the same point in time").
        if remaining:
            reset = self._seconds(self.rule.full - verdict.level)
        else:
            reset = self.retry_after_s(verdict)
        if verdict.refused:
            out_put(out, b"Retry-After: ", 13)
            out_decimal(out, reset)
            out_put(out, b"\r\n", 2)
        if self.draft_headers:
            out_span(out, self.policy_line)
            out_span(out, self.state_start)
            out_decimal(out, remaining)
            out_put(out, b";t=", 3)
            out_decimal(out, reset)
            out_put(out, b"\r\n", 2)
        if self.x_headers:
            out_span(out, self.limit_line)
            out_put(out, b"X-RateLimit-Remaining: ", 23)
            out_decimal(out, remaining)
            out_put(out, b"\r\nX-RateLimit-Reset: ", 21)
            out_decimal(out, reset)
            out_put(out, b"\r\n", 2)

    def check_request(self, request: SampleRequest, int64_t now_ns, str route="") -> RateResult:
        """`check` for a request made in Python; takes a token as a real one would."""
        cdef RateVerdict verdict
        cdef Out out
        memset(&out, 0, sizeof(Out))
        self.check(
            &(<SampleRequest?>request).view, route_id(route), now_ns, &verdict
        )
        self.write_headers(&verdict, &out)
        try:
            if out.failed:
                raise MemoryError
            return RateResult(
                bool(verdict.limited),
                bool(verdict.refused),
                int(verdict.level // self.rule.cost),
                self.retry_after_s(&verdict),
                out.data[: out.len] if out.len else b"",
            )
        finally:
            out_free(&out)

    def charge_request(self, request: SampleRequest, int64_t tokens, int64_t now_ns, str route=""):
        """`charge` for a request made in Python."""
        self.charge(&(<SampleRequest?>request).view, route_id(route), tokens, now_ns)

    def key_hash(self, request: SampleRequest, str route="") -> int:
        """The 128-bit hash that stands for the request's key."""
        cdef Hash128 key = self._key(
            &(<SampleRequest?>request).view, route_id(route)
        )
        return (int(key.high) << 64) | int(key.low)

    @property
    def keys(self) -> int:
        """Buckets kept now, of this process."""
        return self.table.used

    @property
    def evicted(self) -> int:
        """Buckets dropped because max_keys was reached."""
        return self.table.evicted if self.shared is None else self.shared.evicted

    @property
    def size_bytes(self) -> int:
        """Bytes reserved for buckets and chain heads; pages that were never touched cost nothing."""
        if self.shared is not None:
            return self.shared.length
        return (self.table.capacity + 1) * sizeof(Bucket) + (<size_t>self.table.mask + 1) * sizeof(uint32_t)
