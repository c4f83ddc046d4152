# What one worker does for all (active checks, say): a lease decides which.

cdef struct LeaseState:
    SharedKey key
    uint64_t word           # whose, and until when; see lease.pyx

@cython.final
cdef class Lease:
    cdef readonly str name
    cdef SharedRecord record            # keeps `state`
    cdef LeaseState* state
