# Which endpoint is next: smooth weighted round robin.

@cython.final
cdef class RoundRobin:
    cdef readonly int count
    cdef int64_t total
    cdef int64_t* weight
    cdef int64_t* current       # sums to 0 between calls while all take part

    # A position among the weights. Never -1: there is at least one endpoint.
    cdef int next(self) noexcept nogil
    # The same without those whose bit is set in `excluded` (`mask_words` words, bit i % 64 of word i / 64):
    # for a retry elsewhere, for ejected endpoints. -1 if all are excluded.
    cdef int next_except(self, const uint64_t* excluded) noexcept nogil
    cdef int mask_words(self) noexcept nogil
