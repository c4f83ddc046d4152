# See tallies.pxd for the contract. Names are written by whoever holds the record first; who comes to it at the same
# time writes the same, and a reader passes over a record until they are there.


cdef class Tallies:
    """`size` bytes of numbers for each of `workers` processes under each of up to `capacity` pairs of names.

    Made before the fork. Raises OSError if there is no memory for the mapping.
    """

    def __init__(self, workers: int, size: int, capacity: int) -> None:
        self.workers = workers
        self.stride = (<size_t>size + 63) & ~<size_t>63
        self.table = SharedTable(sizeof(TallyHead) + workers * self.stride, capacity)

    cdef Tally hold(self, str first, str second):
        cdef bytes names = first.encode("utf-8", "replace") + second.encode("utf-8", "replace")
        cdef Tally tally = Tally()
        cdef TallyHead* head
        cdef Py_ssize_t length = len(first.encode("utf-8", "replace"))
        if len(names) > TALLY_TEXT:
            raise ValueError("the names are too long")
        tally.tallies = self
        tally.record = self.table.hold((first, second))
        head = <TallyHead*>tally.record.at
        if not fg_load64(&head.names_done):
            memcpy(head.text, PyBytes_AS_STRING(names), <size_t>len(names))
            head.lengths[0] = <uint16_t>length
            head.lengths[1] = <uint16_t>(len(names) - length)
            fg_store64(&head.names_done, 1)
        return tally

    cdef TallyHead* at(self, uint64_t place) noexcept nogil:
        cdef TallyHead* head
        if fg_add32(&self.table.uses[place].holders, 0) in (0, HOLDERS_NONE_MORE):
            return NULL                     # no page of a record is touched that nobody uses
        head = <TallyHead*>self.table._key(place)
        return head if fg_load64(&head.names_done) else NULL
