# Consistent hashing: the same key goes to the same endpoint, in every worker and replica, while it is in use.

cdef enum:
    MAGLEV_SIZE = 65537         # prime; see balance_maglev.pyx
    RING_POINTS = 4096          # for a weight of 1
    RING_POINTS_MAX = 524288    # of one ring; see balance_ring.pyx

cdef struct Node:
    # A seat of the tier, in use or not, by its place.
    void* seat
    int32_t index               # position in the group
    int32_t cap
    uint64_t id                 # Seat.id; told apart where two seats have one address
    int64_t weight              # without the ramp: what the table is built from
    int32_t ramp                # 0: not in use
    uint32_t accept             # of 2^31 - 1 keys that come here, how many it takes
    double share                # of the load that those in use carry

cdef class HashBalancer(Balancer):
    cdef Node* nodes
    cdef uint32_t* in_order     # places by id, so that the order of the configuration means nothing
    cdef uint32_t* in_use       # places
    cdef bint stale             # the table is older than a weight
    cdef bint built
    cdef double bound           # how far above the mean a seat's load may be; 0: any

    # Makes the table anew. False: there is no memory for it, and every key is looked up in a loop.
    cdef bint build(self) noexcept
    # The place that a key meets at its `step`-th step, from 0 on.
    cdef int met(self, uint64_t key, int step) noexcept
    cdef int64_t _active(self) noexcept
    cdef int _by_rendezvous(self, const Draw* draw, int64_t load) noexcept

@cython.final
cdef class Maglev(HashBalancer):
    cdef uint16_t* slots        # MAGLEV_SIZE places

    cdef bint _turns(self, uint16_t* turns) noexcept

@cython.final
cdef class Ring(HashBalancer):
    cdef uint64_t* points       # sorted; the lower 16 bits are the place
    cdef uint32_t count_points
    cdef uint32_t* first        # by the upper 16 bits of a key: the first point at or behind their beginning
