# Token buckets that every process of a host shares.

cdef struct SharedBucket:
    # 16 bytes, of which each is written by one compare-and-swap.
    uint64_t key            # of the request's, never 0; 0: free
    uint64_t due            # when the bucket is full again, in 1/64 ns of the monotonic clock (its "theoretical arrival time")

cdef struct SharedBucketsHeader:
    # The first bytes of the mapping; not changed any more once the file has its name.
    char[16] magic
    uint64_t sets
    uint64_t interval
    uint64_t full
    char[16] seed           # of the hash of keys: the same for all who share
    uint64_t evicted        # counted by all

@cython.final
cdef class SharedBuckets:
    # -- the mapping: a header of one page, then sets of SHARED_SET buckets
    cdef SharedBucketsHeader* header
    cdef SharedBucket* buckets
    cdef size_t length
    cdef uint64_t mask              # sets - 1
    # -- the rule, in 1/64 ns
    cdef uint64_t interval          # one token
    cdef uint64_t full              # an empty bucket's until it is full
    # -- where it is; fd -1: in no file, for this process and those that it forks
    cdef readonly str path
    cdef int fd
    cdef int maker

    cdef bint take(self, uint64_t key, uint64_t tokens, int64_t now_ns, uint64_t* left) noexcept nogil
    # Tokens that were used beyond those taken; fewer than none: given back. A bucket owes at most what it holds when full.
    cdef void charge(self, uint64_t key, int64_t tokens, int64_t now_ns) noexcept nogil
    cdef SharedBucket* _find(self, uint64_t key, uint64_t now) noexcept nogil
