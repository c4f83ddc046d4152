# Which version of a service a request goes to: weighted, the same for the same user, with an override.

@cython.final
cdef class Splitter:
    # -- what it was built from: one entry for each arm
    cdef readonly str route
    cdef readonly tuple names
    cdef readonly tuple upstreams
    cdef int count
    cdef uint64_t* configured       # weights
    cdef uint64_t* hashes           # of the names; the same in every process and every replica
    cdef uint8_t* is_baseline       # of some arm's rollback rule
    # -- the override; empty: none
    cdef tuple override_text        # keeps the spans alive
    cdef Span override_header
    cdef Span override_cookie
    cdef Span* name_spans           # into override_text
    # -- shared by all workers
    cdef SplitRecords records
    cdef readonly RollbackWatch rollback    # None: no arm has a rule
    # -- the weights in force, as of the generation `seen`
    cdef uint64_t seen
    cdef uint32_t* halves
    cdef uint64_t* weight
    cdef double* inverse            # 1 / weight
    cdef uint64_t total
    cdef int only                   # the one arm with a weight; -1: there are several

    # The arm of a request, never -1. `key` stands for the user and counts if `keyed`; `random` are fresh random bits
    # and count if not.
    cdef int choose(
        self, const RequestView* view, bint keyed, uint64_t key, uint64_t random
    ) noexcept nogil
    cdef int _overridden(self, const RequestView* view) noexcept nogil
    cdef int _named(self, Span value) noexcept nogil
    cdef void _refresh(self) noexcept nogil
    cdef void _weigh(self) noexcept nogil
    cdef uint32_t _change(self, dict wanted) except? 0xFFFFFFFF
