# Numbers by name, which any process may begin to count: endpoints that each discovers, and what plugins count.

cdef enum:
    TALLY_TEXT = 624        # of both names together

cdef struct TallyHead:
    # Begins a record of a SharedTable; behind it `workers` blocks of `stride` bytes follow.
    SharedKey key
    uint64_t names_done     # both names are written
    uint16_t[2] lengths
    uint32_t spare
    char[TALLY_TEXT] text   # UTF-8: the first name, then the second
    uint64_t state          # of an endpoint: the place of its EndpointState in their table, and 1; 0: not known yet
    uint64_t unused

@cython.final
cdef class Tallies:
    cdef SharedTable table
    cdef size_t stride
    cdef readonly int workers

    # The numbers under these names, which are the same in every process that was forked from the maker. Raises
    # MemoryError when there are no more places, ValueError for names that are too long.
    cdef Tally hold(self, str first, str second)
    # The record of a place, if somebody holds it and its names are there; NULL: not.
    cdef TallyHead* at(self, uint64_t place) noexcept nogil
    cdef inline char* block(self, TallyHead* head, int worker) noexcept nogil:
        return <char*>head + sizeof(TallyHead) + <size_t>worker * self.stride

@cython.final
cdef class Tally:
    # Keeps a place. Another name may get it when nobody does any more.
    cdef Tallies tallies
    cdef SharedRecord record

    # This worker's numbers.
    cdef inline void* own(self, int worker) noexcept nogil:
        return self.tallies.block(<TallyHead*>self.record.at, worker)
