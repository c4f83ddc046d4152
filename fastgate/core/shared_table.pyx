# A record is claimed by one compare-and-swap of its key's lower half, and is never given back: what a name once stood
# for (an operator's word, an ejection) is found again after a reload that took it away and brought it back. The
# number of records is therefore bounded by the different names that a process sees in its life.

import hashlib


cdef class SharedTable:
    """Zeroed records of `size` bytes (the first 16 are the key's), shared with every process forked afterwards.

    capacity: how many there may be; rounded up to a power of two. Raises OSError if there is no memory for the mapping.
    """

    def __cinit__(self, size: int, capacity: int) -> None:
        cdef void* mapping
        if size < 16 or capacity < 1:
            raise ValueError("a record holds its key, and there is at least one")
        # Whole cache lines: two records never share one.
        self.size = (<size_t>size + 63) & ~<size_t>63
        self.capacity = 1
        while self.capacity < 2 * <uint64_t>capacity:       # at most half full, so that a search is short
            self.capacity *= 2
        self.length = self.size * self.capacity
        mapping = mmap(
            NULL, self.length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
        )
        if mapping == MAP_FAILED:
            raise OSError(f"no {self.length} bytes of shared memory")
        self.records = <char*>mapping

    def __dealloc__(self):
        if self.records != NULL:
            munmap(self.records, self.length)

    cdef void* record(self, tuple key) except NULL:
        cdef bytes digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        cdef SharedKey wanted
        cdef SharedKey* found
        cdef uint64_t i
        memcpy(&wanted, PyBytes_AS_STRING(digest), sizeof(SharedKey))
        wanted.low |= 1
        for i in range(self.capacity):
            found = <SharedKey*>(self.records + self.size * ((wanted.high + i) & (self.capacity - 1)))
            if fg_load64(&found.low) == 0 and fg_cas64(&found.low, 0, wanted.low):
                fg_store64(&found.high, wanted.high)
                return found
            if fg_load64(&found.low) == wanted.low:
                # 63 bits of a hash of names that an operator chose: two of them never meet.
                return found
        raise MemoryError("the shared table is full")
