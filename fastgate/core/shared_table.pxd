# Records that all workers see: in memory that is mapped before the fork, found by key, never moved.

cdef extern from * nogil:
    """
    #include <stdint.h>
    /* Plain counters and flags that several processes write: no order between different words is promised. */
    static inline uint64_t fg_load64(const uint64_t* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline void fg_store64(uint64_t* at, uint64_t v) { __atomic_store_n(at, v, __ATOMIC_RELEASE); }
    static inline uint64_t fg_add64(uint64_t* at, int64_t by) {
        return __atomic_add_fetch(at, (uint64_t)by, __ATOMIC_ACQ_REL);
    }
    static inline int fg_cas64(uint64_t* at, uint64_t was, uint64_t now) {
        return __atomic_compare_exchange_n(at, &was, now, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    static inline uint32_t fg_add32(uint32_t* at, int32_t by) {
        return __atomic_add_fetch(at, (uint32_t)by, __ATOMIC_ACQ_REL);
    }
    static inline int fg_cas32(uint32_t* at, uint32_t was, uint32_t now) {
        return __atomic_compare_exchange_n(at, &was, now, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    uint64_t fg_load64(const uint64_t* at) noexcept
    void fg_store64(uint64_t* at, uint64_t value) noexcept
    uint64_t fg_add64(uint64_t* at, int64_t by) noexcept        # the new value
    bint fg_cas64(uint64_t* at, uint64_t was, uint64_t now) noexcept
    uint32_t fg_add32(uint32_t* at, int32_t by) noexcept
    bint fg_cas32(uint32_t* at, uint32_t was, uint32_t now) noexcept

cdef struct SharedKey:
    # The first member of every record. `low` is 0 while the record is free, and never again once it is taken.
    uint64_t low
    uint64_t high

cdef enum:
    HOLDERS_NONE_MORE = 0xFFFFFFFF      # in place of a number of holders: the record is being given to another key

cdef struct SharedUse:
    # Who needs a record; apart from it, so that a record may fill its cache lines.
    uint32_t holders        # SharedRecords of it, in all processes. Those of a process that was killed stay counted
    uint32_t spare
    uint64_t left           # when the last of them let go, in `turns`

@cython.final
cdef class SharedTable:
    # -- an anonymous shared mapping of `capacity` zeroed records of `size` bytes, a power of two of them, and of their uses.
    # `lock`: the id of the process that gives a record to another key, 0: none does. `turns`: how often one was let go
    cdef char* records
    cdef SharedUse* uses
    cdef uint64_t* lock
    cdef uint64_t* turns
    cdef size_t size
    cdef uint64_t capacity
    cdef size_t length

    # The record of this key, made (zeroed but for its key) if there is none; the same for every process that was
    # forked from the maker, as long as somebody holds it, and behind that until its place is needed. Raises
    # MemoryError when all records are held.
    cdef SharedRecord hold(self, tuple key)
    cdef int64_t _find(self, const SharedKey* wanted) noexcept nogil
    cdef int64_t _take_over(self, const SharedKey* wanted) noexcept nogil
    cdef bint _enter(self, uint64_t at, const SharedKey* wanted) noexcept nogil
    cdef SharedKey* _key(self, uint64_t at) noexcept nogil

@cython.final
@cython.no_gc
cdef class SharedRecord:
    # Keeps a record, and its table, for as long as it lives in the process that made it.
    cdef SharedTable table
    cdef int maker
    cdef uint64_t place
    cdef void* at
