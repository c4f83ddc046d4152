# Token buckets.
#
# A bucket is found by a 128-bit hash of its key, and the hash stands for the key: a client can send a header
# of many kilobytes and still costs 48 bytes. Two keys with one hash would share a bucket. Among a million
# keys that happens with a chance of 2^-89, and nobody can bring it about on purpose (or flood one chain of
# the table), since SipHash is keyed with 128 random bits that never leave the process.
#
# Each key costs one Bucket (48 bytes) and, with the heads' number being the next power of two at or above the
# capacity, 4 to 8 bytes of chain head.

from math import gcd


cdef inline uint64_t _sip_rotl(uint64_t x, int by) noexcept nogil:
    return (x << by) | (x >> (64 - by))


cdef inline void _sip_round(SipState* s) noexcept nogil:
    s.v0 += s.v1
    s.v1 = _sip_rotl(s.v1, 13) ^ s.v0
    s.v0 = _sip_rotl(s.v0, 32)
    s.v2 += s.v3
    s.v3 = _sip_rotl(s.v3, 16) ^ s.v2
    s.v0 += s.v3
    s.v3 = _sip_rotl(s.v3, 21) ^ s.v0
    s.v2 += s.v1
    s.v1 = _sip_rotl(s.v1, 17) ^ s.v2
    s.v2 = _sip_rotl(s.v2, 32)


cdef void sip_begin(SipState* state, const uint64_t* key) noexcept nogil:
    # Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2.1-2.4; 128 bits as in their reference.
    state.v0 = key[0] ^ <uint64_t>0x736F6D6570736575U
    state.v1 = key[1] ^ <uint64_t>0x646F72616E646F6DU ^ 0xEE
    state.v2 = key[0] ^ <uint64_t>0x6C7967656E657261U
    state.v3 = key[1] ^ <uint64_t>0x7465646279746573U
    state.words = 0


cdef void sip_word(SipState* state, uint64_t word) noexcept nogil:
    state.v3 ^= word
    _sip_round(state)
    _sip_round(state)
    state.v0 ^= word
    state.words += 1


cdef void sip_span(SipState* state, Span span) noexcept nogil:
    cdef Py_ssize_t at = 0
    cdef uint64_t word
    sip_word(state, <uint64_t>span.len)
    while at + 8 <= span.len:
        memcpy(&word, span.ptr + at, 8)
        sip_word(state, word)
        at += 8
    if at < span.len:
        word = 0
        memcpy(&word, span.ptr + at, <size_t>(span.len - at))
        sip_word(state, word)


cdef Hash128 sip_end(SipState* state) noexcept nogil:
    cdef Hash128 out
    cdef int i
    # The last word of the original holds the message's length modulo 256 in its top byte; no bytes are left
    # over here.
    sip_word(state, (state.words * 8) << 56)
    state.v2 ^= 0xEE
    for i in range(4):
        _sip_round(state)
    out.low = state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    state.v1 ^= 0xDD
    for i in range(4):
        _sip_round(state)
    out.high = state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    return out


cdef bint table_open(BucketTable* table, uint32_t capacity) noexcept nogil:
    cdef uint64_t heads = 1
    while heads < capacity:
        heads *= 2
    table.capacity = capacity
    table.mask = <uint32_t>(heads - 1)
    table.used = 0
    table.newest = 0
    table.oldest = 0
    table.evicted = 0
    table.buckets = <Bucket*>calloc(<size_t>capacity + 1, sizeof(Bucket))
    table.heads = <uint32_t*>calloc(<size_t>heads, sizeof(uint32_t))
    return table.buckets != NULL and table.heads != NULL


cdef void table_close(BucketTable* table) noexcept nogil:
    free(table.buckets)
    free(table.heads)
    table.buckets = NULL
    table.heads = NULL


cdef inline void _table_unlink(BucketTable* table, uint32_t at) noexcept nogil:
    cdef Bucket* bucket = &table.buckets[at]
    if bucket.newer:
        table.buckets[bucket.newer].older = bucket.older
    else:
        table.newest = bucket.older
    if bucket.older:
        table.buckets[bucket.older].newer = bucket.newer
    else:
        table.oldest = bucket.newer


cdef inline void _table_put_newest(BucketTable* table, uint32_t at) noexcept nogil:
    cdef Bucket* bucket = &table.buckets[at]
    bucket.newer = 0
    bucket.older = table.newest
    if table.newest:
        table.buckets[table.newest].newer = at
    else:
        table.oldest = at
    table.newest = at


cdef uint32_t _table_evict(BucketTable* table) noexcept nogil:
    # Takes the longest unused bucket out of its chain and out of the order; it is to be filled anew.
    cdef uint32_t at = table.oldest
    cdef uint32_t* link = &table.heads[<uint32_t>table.buckets[at].key.low & table.mask]
    while link[0] != at:
        link = &table.buckets[link[0]].next
    link[0] = table.buckets[at].next
    _table_unlink(table, at)
    table.evicted += 1
    return at


cdef Bucket* table_bucket(BucketTable* table, Hash128 key, uint64_t full, int64_t now_ns) noexcept nogil:
    cdef uint32_t slot = <uint32_t>key.low & table.mask
    cdef uint32_t at = table.heads[slot]
    cdef Bucket* bucket
    while at:
        bucket = &table.buckets[at]
        if bucket.key.low == key.low and bucket.key.high == key.high:
            if at != table.newest:
                _table_unlink(table, at)
                _table_put_newest(table, at)
            return bucket
        at = bucket.next
    if table.used < table.capacity:
        table.used += 1
        at = table.used
    else:
        at = _table_evict(table)
    bucket = &table.buckets[at]
    bucket.key = key
    bucket.level = full
    bucket.seen_ns = now_ns
    bucket.next = table.heads[slot]
    table.heads[slot] = at
    _table_put_newest(table, at)
    return bucket


cdef bint bucket_take(Bucket* bucket, const BucketRule* rule, uint64_t units, int64_t now_ns) noexcept nogil:
    cdef int64_t passed = now_ns - bucket.seen_ns
    if passed > 0:
        # Comparing before multiplying keeps `passed * gain` below `full + gain`, inside 64 bits (see
        # bucket_rule).
        if <uint64_t>passed >= rule.full_ns:
            bucket.level = rule.full
        else:
            bucket.level += <uint64_t>passed * rule.gain
            if bucket.level > rule.full:
                bucket.level = rule.full
        bucket.seen_ns = now_ns
    if bucket.level < units:
        return False
    bucket.level -= units
    return True


def rate_error(count: int, per_ns: int, burst: int) -> str | None:
    """Why a bucket of `burst` tokens that gains `count` in `per_ns` nanoseconds cannot be kept, or None."""
    if count < 1 or per_ns < 1:
        return "a rate is at least one in a finite time"
    if burst < 1:
        return "a burst is at least 1"
    divisor = gcd(count, per_ns)
    # A level grows up to twice the full one before it is cut, so the full one stays below a quarter of 64
    # bits.
    if (burst + 1) * (per_ns // divisor) >= 1 << 62 or count // divisor >= 1 << 62:
        return f"burst {burst} is too large for this rate; below {(1 << 62) // (per_ns // divisor)} can be"
    return None


cdef int bucket_rule(BucketRule* rule, object count, object per_ns, object burst) except -1:
    cdef object error = rate_error(count, per_ns, burst)
    cdef object divisor
    if error is not None:
        raise ValueError(error)
    divisor = gcd(count, per_ns)
    rule.gain = count // divisor
    rule.cost = per_ns // divisor
    rule.full = burst * rule.cost
    rule.full_ns = (rule.full + rule.gain - 1) // rule.gain
    return 0


def sip_hash(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4-128 of a message whose length is a multiple of 8 bytes; for the tests of the hash."""
    cdef SipState state
    cdef uint64_t[2] words
    cdef Hash128 out
    cdef uint64_t word
    cdef const char* at = message
    if len(key) != 16 or len(message) % 8:
        raise ValueError("a 16-byte key and whole 8-byte words, please")
    memcpy(words, <const char*>key, 16)
    sip_begin(&state, words)
    for at_word in range(0, len(message), 8):
        memcpy(&word, at + <Py_ssize_t>at_word, 8)
        sip_word(&state, word)
    out = sip_end(&state)
    return (<const char*>&out)[:16]
