# Client sides of exchanges that no client asked for.

cdef class InnerSide(ClientSide):
    cdef Address address                # of the peer that asked, told to the upstream; family 0: nobody's
    cdef bint retried                   # a try that failed is followed by others, as `retry` says
    cdef RetryPolicy retry              # None: the upstream's

@cython.final
cdef class Discard(InnerSide):
    cdef Mirror mirror

@cython.final
cdef class Mirror:
    cdef Upstream upstream
    cdef uint64_t share                 # of 2^32
    cdef int max_active
    cdef readonly int active            # copies under way
    cdef int64_t body_limit

    cdef bint has_room(self, Exchange x) noexcept       # for one more copy
    cdef bint wants(self, Exchange x) noexcept
    cdef int start(self, Exchange copy, const char* body, size_t length, int64_t now) except -1

@cython.final
cdef class HedgeSide(InnerSide):
    cdef Exchange main                  # None: it has an answer already, or is over
    cdef bint answered                  # the client is being sent our answer
    cdef bint cut_short

    cdef int pass_trailers(self, Exchange hedge) except -1

@cython.final
cdef class Subrequest(InnerSide):
    cdef object future
    cdef int64_t limit
    cdef int64_t taken
    cdef int status                     # 0: no whole answer
    cdef list fields
    cdef list parts
    cdef bint truncated
    cdef Exchange asked                 # None once it is over
