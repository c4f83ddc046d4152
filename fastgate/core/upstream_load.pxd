# How much an upstream has to do, counted over all workers: for the retry budget and the limits of the circuit breaker.

cdef enum LoadCount:
    LOAD_REQUESTS           # exchanges under way
    LOAD_RETRIES            # attempts behind an exchange's first, under way
    LOAD_PENDING            # exchanges that wait for a connection
    LOAD_CONNECTIONS        # open or being made
    LOAD_COUNT

cdef struct LoadState:
    # One cache line for each (upstream, worker), written by that worker alone: so a dead worker's share can be taken away
    # again, which one sum for all would not allow.
    SharedKey key
    uint64_t[LOAD_COUNT] counts
    uint64_t refused        # by one of the caps, ever
    uint64_t retries_refused   # by the budget or max_retries, ever

cdef extern from * nogil:
    """
    /* Sequentially consistent: of two workers that raise their numbers and then look at each other's, at least one sees
       what the other wrote. (x86: the same instructions as fg_add64 and fg_load64.) */
    static inline void fg_raise64(uint64_t* at, int64_t by) { __atomic_fetch_add(at, (uint64_t)by, __ATOMIC_SEQ_CST); }
    static inline uint64_t fg_see64(const uint64_t* at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    """
    void fg_raise64(uint64_t* at, int64_t by) noexcept
    uint64_t fg_see64(const uint64_t* at) noexcept

@cython.final
cdef class UpstreamLoad:
    # -- shared by all workers; `records` keep them
    cdef list records           # of SharedRecord
    cdef LoadState* own
    cdef LoadState** all        # of every worker, `own` included
    cdef readonly int workers
    # -- caps over all workers; 0: none
    cdef readonly uint64_t max_connections
    cdef readonly uint64_t max_pending
    cdef readonly uint64_t max_requests
    cdef readonly uint64_t max_retries

    # Each `enter_` that returns True is followed by one `leave_`; False: the cap is reached (R_BREAKER_LIMIT), and nothing
    # was counted.
    cpdef bint enter_request(self) noexcept nogil
    cpdef void leave_request(self) noexcept nogil
    cpdef bint enter_pending(self) noexcept nogil
    cpdef void leave_pending(self) noexcept nogil
    cpdef bint enter_connection(self) noexcept nogil
    cpdef void leave_connection(self) noexcept nogil
    # A retry within the policy's budget and max_retries; given back when the attempt has ended.
    cpdef bint take_retry(self, RetryPolicy policy) noexcept nogil
    cpdef void give_retry(self) noexcept nogil
    cdef uint64_t sum(self, int which) noexcept nogil
    cdef bint _enter(self, int which, uint64_t cap) noexcept nogil
    cdef void _leave(self, int which) noexcept nogil
