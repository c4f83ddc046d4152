# A hash table of byte strings that is built once and then only read: hosts, whole paths, path segments.

from libc.stdint cimport int32_t

cdef extern from *:
    """
    #include <stdint.h>
    /* The 128-bit product folded to 64 bits: the mixing step of the multiply-fold family of hashes. */
    static inline uint64_t fg_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t fg_fold(uint64_t a, uint64_t b) noexcept nogil

cdef struct TableSlot:
    uint32_t tag            # the upper half of the hash
    uint32_t key            # 1 + position in `keys`; 0: empty

cdef struct TableKey:
    uint32_t owner          # what the string belongs to (a host group, a tree node); part of the key
    uint32_t at             # its bytes: arena[at : at + length]
    uint32_t length
    int32_t value

cdef struct KeyTable:
    # Open addressing, at most half full. Owned by whoever built it: key_table_free.
    TableSlot* slots
    TableKey* keys
    char* arena
    uint64_t mask

# The hash of the bytes alone; the owner is mixed in at the look-up, so that one hash serves several owners.
# `seed` is secret and random per table: whoever sends requests cannot aim at one chain. The keys come from the
# configuration alone, so a request cannot lengthen a chain either.
cdef uint64_t bytes_hash(uint64_t seed, Span text) noexcept nogil
# The value of (owner, text), or -1. Adds the number of slots looked at to `*probes`.
cdef int32_t key_table_get(
    const KeyTable* table, uint64_t hashed, uint32_t owner, Span text, uint64_t* probes
) noexcept nogil
# Builds from {(owner, bytes): value}; the table must be zeroed.
cdef int key_table_build(KeyTable* table, uint64_t seed, dict entries) except -1
cdef void key_table_free(KeyTable* table) noexcept nogil
