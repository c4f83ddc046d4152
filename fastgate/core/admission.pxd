# Who may send a request to an upstream now, who waits for that, and who is sent away. Slots are counted per worker.

cdef enum Priority:
    PRIORITY_CRITICAL
    PRIORITY_NORMAL
    PRIORITY_SHEDDABLE
    PRIORITIES

cdef enum QueueOrder:
    ORDER_ADAPTIVE          # oldest first, and newest first while the queue does not empty
    ORDER_OLDEST_FIRST
    ORDER_NEWEST_FIRST

cdef enum:
    SHEDDABLE_PERCENT = 80          # of the slots and of the queue that sheddable requests may fill
    STANDING_NS = 100000000         # a queue that has not been empty for so long is no burst any more
    STANDING_WAIT_PART = 20         # what of queue_timeout a newcomer may wait then
    STANDING_WAIT_LEAST_NS = 5000000
    QUEUE_MOST = 100000

cdef struct WaitNode:
    # A place of the queue; 0 stands for none.
    int older
    int newer               # also links the free ones
    int priority

cdef struct WaitList:
    int oldest
    int newest
    int count
    int64_t since_ns        # when it last ceased to be empty

@cython.final
cdef class Admission:
    # -- configured
    cdef int order
    cdef readonly int queue
    cdef readonly int64_t queue_timeout_ns
    # -- the slots; `room`: how many may be taken for a request of this priority to get one more
    cdef readonly int active
    cdef readonly int limit                 # 0: none
    cdef int[PRIORITIES] room
    cdef readonly GradientLimit gradient    # None: the limit is fixed
    # -- the queue: a list for each priority, its nodes, and who stands there. `places`: who -> node
    cdef WaitList[PRIORITIES] lists
    cdef int[PRIORITIES] queue_room
    cdef readonly int waiting
    cdef WaitNode* nodes
    cdef int free
    cdef list who
    cdef dict places
    # -- counted here
    cdef readonly uint64_t queued
    cdef readonly uint64_t refused          # sent away at once
    cdef readonly uint64_t evicted          # sent away from the queue for another

    # True: a slot is taken; `leave` gives it back. False: `offer`.
    cpdef bint enter(self, int priority, int64_t now) noexcept nogil
    # None: `who` waits now; else who has to be answered R_OVERLOADED: `who` itself, or another that gave its place to it.
    # ValueError if `who` waits already.
    cpdef object offer(self, object who, int priority, int64_t now)
    # How long one that is offered now may wait: the caller's timer, then `withdraw` and R_OVERLOAD_TIMEOUT.
    cpdef int64_t wait_ns(self, int priority, int64_t now) noexcept nogil
    # Takes it out of the queue: 1 if it was there.
    cpdef int withdraw(self, object who) except -1
    # Gives a slot back. `ok`: latency_ns tells how fast the service is (an answer; also a time-out: at least so long).
    # Returns one that waited and has a slot now, or None. A limit that grew may have room for more: ask `next` until None.
    cpdef object leave(self, int64_t latency_ns, bint ok, int64_t now)
    cpdef object next(self, int64_t now)
    cdef void _set_limit(self, int limit) noexcept nogil
    cdef bint _newest_first(self, int priority, int64_t now) noexcept nogil
    cdef int _victim(self, int priority, int64_t now) noexcept nogil
    cdef object _take(self, int node)
