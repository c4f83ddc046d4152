# The key of a request: some of its parts, hashed. A hash stands for the key wherever one is kept or compared, so a long
# header costs its reading and no memory.
#
# Two uses, two seeds. A rate limit's seed is secret: nobody can look for two keys that share a bucket. Hash balancing and
# splits need the same hash in every worker, every replica and after every restart; theirs is all zeros and known. Whoever
# chooses a key freely can then aim at an endpoint, which is what bounded load is for.


import hashlib


def _key_part(part: str) -> tuple[int, bytes]:
    kind, _, name = part.partition(":")
    plain = {"client-ip": KEY_CLIENT_IP, "consumer": KEY_CONSUMER, "global": KEY_GLOBAL}
    named = {"header": KEY_HEADER, "cookie": KEY_COOKIE, "path": KEY_PATH, "query": KEY_QUERY}
    if part in plain:
        return plain[part], b""
    if kind in named and name:
        return named[kind], name.lower().encode() if kind == "header" else name.encode()
    raise ValueError(f"{part!r} is not a part of a key")


cdef uint64_t route_id(str name) except 0:
    cdef bytes digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return (<const uint64_t*>PyBytes_AS_STRING(digest))[0] | 1


cdef Span request_cookie(const RequestView* view, Span wanted) noexcept nogil:
    # Of the first cookie of that name; names are case-sensitive.
    cdef Span name, value
    cdef Py_ssize_t at
    cdef int i
    for i in range(view.field_count):
        if not span_is(view.fields[i].name, b"cookie", 6):
            continue
        at = 0
        while _next_cookie(view.fields[i].value, &at, &name, &value):
            if span_equal(name, wanted):
                return value
    return span_of(NULL, 0)


cdef Span request_parameter(const RequestView* view, Span wanted) noexcept nogil:
    # Of the first parameter of that name, as it came: nothing is percent-decoded.
    cdef Span name, value
    cdef Py_ssize_t at = 0
    if view.query.ptr != NULL:
        while _next_parameter(view.query, &at, &name, &value):
            if span_equal(name, wanted):
                return value
    return span_of(NULL, 0)


cdef class RequestKey:
    """A key of 1 to 16 parts: "client-ip", "consumer", "header:NAME", "cookie:NAME", "path:NAME" (a {NAME} segment of the
    route), "query:NAME" (the first parameter of that name, not decoded), "global" (the same for all).

    seed: 16 bytes; zeros, the default, hash alike everywhere. ipv6_prefix: IPv6 clients of one network of this length are
    one client (a single host usually has a /64 to choose addresses from). Raises ValueError for a part that is none.
    """

    def __init__(self, parts: Sequence[str], *, seed: bytes = bytes(16), ipv6_prefix: int = 64) -> None:
        cdef int i
        cdef list names = []
        cdef bytes name
        if self.part_count:
            raise TypeError("a RequestKey is built once")
        if not 1 <= len(parts) <= KEY_PARTS_MAX:
            raise ValueError(f"a key has 1 to {KEY_PARTS_MAX} parts")
        if not 0 <= ipv6_prefix <= 128:
            raise ValueError("ipv6_prefix is 0 to 128")
        if len(seed) != 16:
            raise ValueError("a seed is 16 bytes")
        for part in parts:
            kind, name = _key_part(part)
            self.part_kind[len(names)] = kind
            names.append(name)
        self.part_name = tuple(names)
        for i in range(len(names)):
            name = self.part_name[i]
            self.part_span[i] = span_of(name, len(name))
        self.part_count = len(names)
        self.ipv6_prefix = ipv6_prefix
        memcpy(self.seed, <const char*>seed, 16)

    cdef Span _value(self, int part, const RequestView* view) noexcept nogil:
        cdef int kind = self.part_kind[part], i
        if kind == KEY_HEADER:
            return request_field(view, self.part_span[part])
        if kind == KEY_CONSUMER:
            return view.consumer
        if kind == KEY_COOKIE:
            return request_cookie(view, self.part_span[part])
        if kind == KEY_QUERY:
            return request_parameter(view, self.part_span[part])
        if kind == KEY_PATH and view.capture_names != NULL:
            for i in range(view.capture_count):
                if span_equal(view.capture_names[i], self.part_span[part]):
                    return view.captures[i]
        return span_of(NULL, 0)

    cdef void _client(self, SipState* state, const RequestView* view) noexcept nogil:
        # Always two words, so it needs no length; IPv4 has its mapped form, a Unix socket's peer all zeros.
        cdef Address address = view.client
        cdef uint64_t word
        if address.family == 6:
            mask_address(&address, self.ipv6_prefix)
        elif address.family == 0:
            mask_address(&address, 0)
        memcpy(&word, &address.bytes[0], 8)
        sip_word(state, word)
        memcpy(&word, &address.bytes[8], 8)
        sip_word(state, word)

    cdef Hash128 every(self, const RequestView* view, uint64_t scope) noexcept nogil:
        cdef SipState state
        cdef int part
        sip_begin(&state, self.seed)
        if scope:
            sip_word(&state, scope)
        for part in range(self.part_count):
            if self.part_kind[part] == KEY_CLIENT_IP:
                self._client(&state, view)
            else:
                sip_span(&state, self._value(part, view))
        return sip_end(&state)

    cdef bint first(self, const RequestView* view, Hash128* out) noexcept nogil:
        # An empty value identifies nobody and counts as absent. Which part it was is not hashed: a user whose id comes
        # in a header here and in a cookie there is the same user.
        cdef SipState state
        cdef Span value
        cdef int part, kind
        for part in range(self.part_count):
            kind = self.part_kind[part]
            value = self._value(part, view)
            if kind == KEY_CLIENT_IP:
                if view.client.family == 0:
                    continue
            elif kind != KEY_GLOBAL and value.len == 0:
                continue
            sip_begin(&state, self.seed)
            if kind == KEY_CLIENT_IP:
                self._client(&state, view)
            else:
                sip_span(&state, value)
            out[0] = sip_end(&state)
            return True
        return False

    def hash_every(self, request: SampleRequest, uint64_t scope=0) -> int:
        """The 128-bit hash of all parts of a request made in Python."""
        cdef Hash128 key = self.every(&(<SampleRequest?>request).view, scope)
        return (int(key.high) << 64) | int(key.low)

    def hash_first(self, request: SampleRequest) -> int | None:
        """The 128-bit hash of the first part that the request has, or None."""
        cdef Hash128 key
        if not self.first(&(<SampleRequest?>request).view, &key):
            return None
        return (int(key.high) << 64) | int(key.low)
