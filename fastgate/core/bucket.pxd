# Token buckets by the million: a keyed hash, a table that forgets the longest unused, exact integer
# arithmetic.

cdef struct SipState:
    # SipHash-2-4 with 128 bits of output, over a message of whole 64-bit words.
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3
    uint64_t words

cdef struct Hash128:
    uint64_t low
    uint64_t high

cdef void sip_begin(SipState* state, const uint64_t* key) noexcept nogil
cdef void sip_word(SipState* state, uint64_t word) noexcept nogil
# The length, then the bytes padded with zeros to words: two different lists of spans never make the same
# message.
cdef void sip_span(SipState* state, Span span) noexcept nogil
cdef Hash128 sip_end(SipState* state) noexcept nogil

cdef struct BucketRule:
    # A token is worth `cost` units and a nanosecond brings `gain`; both are whole numbers, so nothing is ever
    # rounded: "count per per_ns" reduced by their greatest common divisor.
    uint64_t gain
    uint64_t cost
    uint64_t full           # burst x cost
    uint64_t full_ns        # nanoseconds from empty to full, rounded up

cdef struct Bucket:
    # 48 bytes. The key itself is not kept, see bucket.pyx.
    Hash128 key
    uint64_t level          # units, as of `seen_ns`
    int64_t seen_ns
    uint32_t newer          # towards the most recently used; 0: none
    uint32_t older
    uint32_t next           # in the same chain
    uint32_t spare

cdef struct BucketTable:
    # -- both are reserved whole by calloc: an untouched page costs nothing, and growing no pause
    Bucket* buckets         # 1..capacity; 0 stands for none
    uint32_t* heads         # of the chains
    uint32_t mask           # heads - 1
    uint32_t capacity
    uint32_t used
    # -- the order of use
    uint32_t newest
    uint32_t oldest
    uint64_t evicted

cdef bint table_open(BucketTable* table, uint32_t capacity) noexcept nogil
cdef void table_close(BucketTable* table) noexcept nogil
# The key's bucket, made (full) if there is none, then the most recently used. Valid until the next call.
cdef Bucket* table_bucket(BucketTable* table, Hash128 key, uint64_t full, int64_t now_ns) noexcept nogil
# Takes so many units if they are there. `now_ns` before the last call's counts as no time passed.
cdef bint bucket_take(Bucket* bucket, const BucketRule* rule, uint64_t units, int64_t now_ns) noexcept nogil
# ValueError where `rate_error` has something to say.
cdef int bucket_rule(BucketRule* rule, object count, object per_ns, object burst) except -1
