# The endpoints of an upstream as a choice is made among them: who may be used, how much, and which is next.

cdef enum Pick:
    PICK_NONE = -1              # there is nobody who may be used
    PICK_FULL = -2              # all who may be used are at their max_requests

cdef struct Standing:
    # What a group knows of a seat.
    void* seat
    int tier
    int place                   # in the tier's Balancer
    int ramp                    # 0: not in use, else up to RAMP_FULL
    bint ready
    bint guarded                # its breaker is not closed: it is asked before each request

@cython.final
cdef class Group:
    # -- who; the tuple keeps what the arrays borrow
    cdef readonly tuple seats           # of Seat
    cdef int count
    cdef Standing* standing
    cdef SharedRecord record            # keeps `state`
    cdef UpstreamState* state
    # -- rules
    cdef readonly str balance
    cdef double bounded_load
    cdef str region                     # the gateway's own
    cdef str zone
    cdef dict order                     # region: its tier
    cdef double spill_over
    cdef int64_t failback_after_ns
    cdef double panic_threshold
    cdef int64_t slow_start_ns
    cdef UpstreamHealth health          # None: nobody has a breaker
    # -- tiers, the nearest first
    cdef int tier_count
    cdef Tier[TIERS_MAX] tiers
    cdef list balancers                 # Balancer or None, a tier each
    cdef void* balancer[TIERS_MAX]      # the same; NULL: there is no seat
    cdef void* sole                     # the Balancer of the tier that takes all; NULL: there are several, or none
    # -- when to look anew
    cdef uint64_t generation            # of the upstream, as it was looked at
    cdef int64_t rebuild_at
    cdef bint any_guarded
    cdef int start                      # whom the first in a turn is; -1: to be drawn
    # -- who is passed over by the pick under way: those who were tried have `epoch`, those whose breaker said no one more
    cdef uint64_t* mark
    cdef uint64_t epoch

    # Which seat is next: a position in `seats`, or a Pick. The caller then counts it in the seat's `active`, until the
    # attempt ends.
    # keyed: `key` is a hash of the request's key; without, hashing goes by `random`. tried: positions that this exchange
    # has tried; they are avoided while there is anybody else, of whatever tier, and then tried again. random: 64
    # independent bits. now: monotonic.
    cdef int pick(
        self, bint keyed, uint64_t key, const int* tried, int tried_count, uint64_t random, int64_t now
    ) noexcept
    cdef int _pick_slowly(self, Draw* draw, const int* tried, int tried_count) noexcept
    cdef int _ask_tiers(self, const Draw* draw) noexcept
    cdef int _nobody(self) noexcept
    # Reads the states anew, if there is reason to.
    cdef inline void _look(self, uint64_t random, int64_t now) noexcept:
        if fg_load64(&self.state.generation) != self.generation or now >= self.rebuild_at:
            self.rebuild(random, now)
    cdef void rebuild(self, uint64_t random, int64_t now) noexcept
    cdef int64_t _weight(self, const Standing* one) noexcept
    cdef int _ramp(self, const EndpointState* state, int64_t now) noexcept
    cdef int _tier_of(self, Seat seat) except -1
