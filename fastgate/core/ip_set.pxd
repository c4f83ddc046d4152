# Sets of networks with longest-prefix match, and the filter made of two of them.

from libc.stdint cimport int16_t

cdef struct NetNode:
    # A path-compressed binary trie: a node stands for the first `bits` of its key; its children differ in the
    # next bit. IPv4 keys lie in the upper half of `high`.
    uint64_t high
    uint64_t low
    uint32_t[2] child       # positions in the nodes; 0: none (the node at 0 is never used)
    uint8_t bits
    uint8_t member          # a network of the set, not just a fork

cdef struct NetJump:
    # Where the walk goes on after the first bits, and the longest network met on the way there.
    uint32_t node
    int16_t best

cdef struct NetTrie:
    NetNode* nodes
    uint32_t used
    uint32_t root
    # -- the first `jump_bits` bits behind the root's own are looked up in one step; 0: too few networks
    NetJump* jumps
    int jump_bits
    int jump_at             # = bits of the root

@cython.final
cdef class IpSet:
    # Immutable once built, so the cdef methods need no lock and no GIL.
    cdef NetTrie v4
    cdef NetTrie v6
    cdef readonly Py_ssize_t count     # distinct networks
    # Prefix length of the longest network that holds the address (in its family's bits), or -1. A Unix
    # socket's is in none.
    cdef int longest(self, const Address* address) noexcept nogil
    cdef bint holds(self, const Address* address) noexcept nogil
    cdef int _add(self, const Address* address, int bits, Py_ssize_t room) except -1

@cython.final
cdef class IpFilterCore:
    cdef readonly str name
    cdef readonly bint report_only
    cdef readonly IpSet allow
    cdef readonly IpSet block
    # -- counted here since only the filter knows of a refusal that was only reported
    cdef readonly uint64_t refused
    cdef readonly uint64_t reported
    # Whether the exchange ends here with R_ADDRESS_REFUSED; counts. Report-only filters count and let pass.
    cdef bint refuses(self, const Address* address) noexcept nogil
