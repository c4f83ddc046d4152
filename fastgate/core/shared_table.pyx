# Theory of operation. A record is claimed by one compare-and-swap of its key's lower half. It outlives its holders: what a
# name once stood for (an operator's word, an ejection) is found again after a reload that took it away and brought it back.
# Endpoints come and go, though, with new addresses each time, and there is no end of them. So when no place is free any
# more, the record that nobody has held for longest is given to the new key, in its place: a search goes on over places that
# are taken, whosever they are, so none of those behind it is lost. That is done by one process at a time, under a lock; a
# holder that comes back in that moment finds HOLDERS_NONE_MORE, or another key, and looks on.

import hashlib

from libc.errno cimport ESRCH, errno
from posix.signal cimport kill
from posix.unistd cimport getpid, usleep


cdef extern from "sys/mman.h" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_ANONYMOUS, MAP_NORESERVE
    void* MAP_FAILED


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
        self.length = (self.size + sizeof(SharedUse)) * self.capacity + 2 * sizeof(uint64_t)
        mapping = mmap(
            NULL, self.length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
        )
        if mapping == MAP_FAILED:
            raise OSError(f"no {self.length} bytes of shared memory")
        self.records = <char*>mapping
        self.uses = <SharedUse*>(self.records + self.size * self.capacity)
        self.lock = <uint64_t*>(self.uses + self.capacity)
        self.turns = self.lock + 1

    def __dealloc__(self):
        if self.records != NULL:
            munmap(self.records, self.length)

    cdef SharedKey* _key(self, uint64_t at) noexcept nogil:
        return <SharedKey*>(self.records + self.size * at)

    cdef SharedRecord hold(self, tuple key):
        cdef bytes digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        cdef SharedRecord held = SharedRecord()
        cdef SharedKey wanted
        cdef int64_t place
        memcpy(&wanted, PyBytes_AS_STRING(digest), sizeof(SharedKey))
        wanted.low |= 1
        place = self._find(&wanted)
        if place < 0:
            place = self._take_over(&wanted)
        if place < 0:
            raise MemoryError(f"all {self.capacity} records of a shared table are in use")
        held.table = self
        held.maker = getpid()
        held.place = <uint64_t>place
        held.at = self._key(held.place)
        return held

    cdef bint _enter(self, uint64_t at, const SharedKey* wanted) noexcept nogil:
        # One holder more; False: it is another key's by now.
        cdef SharedUse* use = &self.uses[at]
        cdef uint32_t holders
        while True:
            holders = fg_add32(&use.holders, 0)
            if holders == HOLDERS_NONE_MORE:
                return False
            if fg_cas32(&use.holders, holders, holders + 1):
                break
        if fg_load64(&self._key(at).low) == wanted.low:
            return True
        fg_add32(&use.holders, -1)
        return False

    cdef int64_t _find(self, const SharedKey* wanted) noexcept nogil:
        # The place of this key, or the first free one, which is its own then; -1: neither is there.
        cdef SharedKey* found
        cdef uint64_t i, at
        for i in range(self.capacity):
            at = (wanted.high + i) & (self.capacity - 1)
            found = self._key(at)
            if fg_load64(&found.low) == 0 and fg_cas64(&found.low, 0, wanted.low):
                fg_store64(&found.high, wanted.high)
            # 63 bits of a hash of names that an operator chose: two of them never meet.
            if fg_load64(&found.low) == wanted.low and self._enter(at, wanted):
                return <int64_t>at
        return -1

    cdef int64_t _take_over(self, const SharedKey* wanted) noexcept nogil:
        # The place of the key that nobody has held for longest, or of `wanted`, if another process was faster; -1: all
        # are held.
        cdef int64_t oldest
        cdef uint64_t i, holder, mine = <uint64_t>getpid()
        while not fg_cas64(self.lock, 0, mine):
            holder = fg_load64(self.lock)
            # Ours: of a dead process whose id we were given.
            if holder == mine or (holder and kill(<int>holder, 0) != 0 and errno == ESRCH):
                if fg_cas64(self.lock, holder, mine):
                    break
            usleep(100)
        oldest = self._find(wanted)
        while oldest < 0:
            for i in range(self.capacity):
                if fg_add32(&self.uses[i].holders, 0) == 0 and (
                        oldest < 0 or self.uses[i].left < self.uses[oldest].left):
                    oldest = <int64_t>i
            if oldest < 0:
                break
            if not fg_cas32(&self.uses[oldest].holders, 0, HOLDERS_NONE_MORE):
                oldest = -1                 # somebody has come back for it
                continue
            memset(self.records + self.size * <uint64_t>oldest + sizeof(SharedKey), 0, self.size - sizeof(SharedKey))
            fg_store64(&self._key(<uint64_t>oldest).high, wanted.high)
            fg_store64(&self._key(<uint64_t>oldest).low, wanted.low)
            fg_cas32(&self.uses[oldest].holders, HOLDERS_NONE_MORE, 1)
        fg_cas64(self.lock, mine, 0)
        return oldest


cdef class SharedRecord:
    def __dealloc__(self):
        cdef SharedUse* use
        # What a fork has copied was never counted.
        if self.table is not None and self.maker == getpid():
            use = &self.table.uses[self.place]
            use.left = fg_add64(self.table.turns, 1)        # before: who finds no holder finds when that was
            fg_add32(&use.holders, -1)
