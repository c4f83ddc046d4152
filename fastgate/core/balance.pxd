# Which endpoint is next, of those that may be used: one policy a class. `core/group` says who may be used.

cdef extern from * nogil:
    """
    #include <stdint.h>
    /* Steele, Lea, Flood, "Fast splittable pseudorandom number generators": every bit of the result hangs on all of x. */
    static inline uint64_t fg_mix64(uint64_t x) {
        x += 0x9E3779B97F4A7C15u;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        return x ^ (x >> 31);
    }
    """
    uint64_t fg_mix64(uint64_t x) noexcept

cdef enum:
    NOBODY = -1
    RAMP_FULL = 1000            # a seat's ramp in thousandths of its weight; 0: it is not in use
    WEIGHT_MAX = 1000000
    SEATS_MAX = 65535           # in one group: tables hold positions in 16 bits

cdef struct Draw:
    # One question, the same for every policy and tier that is asked.
    uint64_t random             # 64 independent bits
    uint64_t key                # of the request, mixed; for hashing
    const uint64_t* mark        # by position in the group: who has `mark_from` or more is passed over. NULL: nobody
    uint64_t mark_from
    int64_t now

cdef struct Place:
    # A seat of the tier, in use or not.
    void* seat                  # Seat, borrowed: the group keeps it
    int32_t index               # its position in the group

cdef struct Member:
    # A seat in use.
    void* seat
    int32_t index
    int32_t cap                 # max_requests; 0: any number
    int64_t weight              # x ramp, so in thousandths
    double per_weight           # 1 / (weight relative to the mean): scales the load in comparisons
    # -- its column of the alias table: a draw stays here below `cut`, else goes to `other`
    uint32_t cut
    uint32_t other

cdef class Balancer:
    # -- who there is: laid once
    cdef Place* places
    cdef int place_count
    # -- who is in use: laid anew with every change. The first `count` of them
    cdef Member* members
    cdef int count
    cdef bint uniform           # all weights are alike
    cdef bint capped            # somebody has a cap
    cdef uint32_t* work         # of the alias table's making

    # Takes the tier's seats: (position in the group, Seat). `group_size`: one more than the highest position.
    cdef int lay(self, list seats, int group_size) except -1
    # Between `begin` and `end` every place is told once, in any order: weight from 1 to WEIGHT_MAX, ramp 0 to RAMP_FULL.
    cdef void begin(self) noexcept
    cdef void tell(self, int place, int64_t weight, int ramp) noexcept
    cdef void end(self) noexcept
    # A position in the group, or NOBODY: all are marked or full. Never one that is.
    cdef int choose(self, const Draw* draw) noexcept
    # What a choice of two (and the search for whom is left) compares; the lower is the better.
    cdef double cost(self, const Member* member, int64_t now) noexcept
    cdef int _cheapest(self, const Draw* draw) noexcept

@cython.final
cdef class RandomChoice(Balancer):
    pass

@cython.final
cdef class LeastRequest(Balancer):
    pass

cdef enum:
    BURDEN_MOST = 64            # failures in a row that count as requests under way

@cython.final
cdef class PeakEwma(Balancer):
    pass

@cython.final
cdef class RoundRobin(Balancer):
    cdef int64_t* current       # of the members; sums to 0 between calls while all take part
    cdef int64_t* gain          # their weights, side by side
    cdef int64_t* kept          # by position in the group: what it had when the members were laid anew

# The time from a request sent to its response's head, for PeakEwma. A failed attempt may be told as the time that a
# client would have lost by it.
cdef void ewma_observe(Seat seat, int64_t latency_ns, int64_t now) noexcept
