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

@cython.final
cdef class SharedTable:
    # -- an anonymous shared mapping of `capacity` zeroed records of `size` bytes, a power of two of them
    cdef char* records
    cdef size_t size
    cdef uint64_t capacity
    cdef size_t length

    # The record of this key, made (zeroed but for its key) if there is none; the same for every process that was
    # forked from the maker, for as long as the table lives. Raises MemoryError when the table is full.
    cdef void* record(self, tuple key) except NULL
