# Faults on purpose, for those who test how their clients and services bear them.

@cython.final
cdef class FaultRule:
    # -- what; 0: none
    cdef readonly int64_t delay_ns
    cdef readonly int abort_status
    # -- how often: shares of 2^32
    cdef uint64_t delay_share
    cdef uint64_t abort_share
    # -- to whom: requests that carry this field; ptr NULL: all
    cdef bytes header
    cdef Span header_span

    # Of one number of 64 random bits `delay` reads the lower half and `abort` the upper one, so one number serves both.
    # The pause before anything else happens to the request; 0: none.
    cdef int64_t delay(self, const RequestView* view, uint64_t random) noexcept nogil
    # The status to answer with (R_FAULT_INJECTED), behind the pause; 0: none.
    cdef int abort(self, const RequestView* view, uint64_t random) noexcept nogil
    cdef bint _concerns(self, const RequestView* view) noexcept nogil
