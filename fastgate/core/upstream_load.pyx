# Theory of operation. A worker raises its own number first and then adds up everybody's. Two that do so at the same time
# both see both, so a cap is never passed, however many workers there are; at the last free place they may both be sent
# away, which the next request makes good. Where there is no cap, nobody else's memory is read.


cdef class UpstreamLoad:
    """The load of one upstream, over all workers.

    table: of load_states(), made before the fork. worker: which of `workers` this process is, from 0. The caps are those
    of the breaker; 0: none. Behind a reload a second object for the same upstream and worker goes on with the same
    numbers. Raises ValueError for a worker that there is not.
    """

    def __init__(
        self, str upstream not None, *, SharedTable table not None, int worker=0, int workers=1,
        uint64_t max_connections=0, uint64_t max_pending=0, uint64_t max_requests=0, uint64_t max_retries=0,
    ):
        cdef int i
        if self.all != NULL:
            raise TypeError("an UpstreamLoad is built once")
        if not 0 <= worker < workers:
            raise ValueError(f"there is no worker {worker} of {workers}")
        self.records = [table.hold(("load", upstream, i)) for i in range(workers)]
        self.all = <LoadState**>calloc(<size_t>workers, sizeof(LoadState*))
        if self.all == NULL:
            raise MemoryError
        for i in range(workers):
            self.all[i] = <LoadState*>(<SharedRecord>self.records[i]).at
        self.workers = workers
        self.own = self.all[worker]
        self.max_connections = max_connections
        self.max_pending = max_pending
        self.max_requests = max_requests
        self.max_retries = max_retries

    def __dealloc__(self):
        free(self.all)

    cdef uint64_t sum(self, int which) noexcept nogil:
        cdef uint64_t total = 0
        cdef int i
        for i in range(self.workers):
            total += fg_see64(&self.all[i].counts[which])
        return total

    cdef bint _enter(self, int which, uint64_t cap) noexcept nogil:
        cdef uint64_t* own = &self.own.counts[which]
        if cap == 0:
            fg_store64(own, own[0] + 1)
            return True
        fg_raise64(own, 1)
        if self.sum(which) <= cap:
            return True
        fg_raise64(own, -1)
        self.own.refused += 1
        return False

    cdef void _leave(self, int which) noexcept nogil:
        cdef uint64_t* own = &self.own.counts[which]
        # Never below 0: a number of 2^64 - 1 would close the upstream for good.
        if own[0]:
            fg_store64(own, own[0] - 1)

    cpdef bint enter_request(self) noexcept nogil:
        """Counts a request; False when max_requests are under way."""
        return self._enter(LOAD_REQUESTS, self.max_requests)

    cpdef void leave_request(self) noexcept nogil:
        """Takes a request off again."""
        self._leave(LOAD_REQUESTS)

    cpdef bint enter_pending(self) noexcept nogil:
        """Counts a request that waits for a connection; False when max_pending do."""
        return self._enter(LOAD_PENDING, self.max_pending)

    cpdef void leave_pending(self) noexcept nogil:
        """Takes a waiting request off again."""
        self._leave(LOAD_PENDING)

    cpdef bint enter_connection(self) noexcept nogil:
        """Counts a connection; False when there are max_connections."""
        return self._enter(LOAD_CONNECTIONS, self.max_connections)

    cpdef void leave_connection(self) noexcept nogil:
        """Takes a connection off again."""
        self._leave(LOAD_CONNECTIONS)

    cpdef bint take_retry(self, RetryPolicy policy) noexcept nogil:
        """Counts a retry; False when the policy's budget or max_retries is used up."""
        # As Envoy's retry_budget: a part of what is active, rounded down, and at least `budget_min`.
        cdef uint64_t* own = &self.own.counts[<int>LOAD_RETRIES]
        cdef uint64_t allowed = self.sum(LOAD_REQUESTS) * policy.budget_ppm // 1000000
        allowed = max(allowed, policy.budget_min)
        if self.max_retries:
            allowed = min(allowed, self.max_retries)
        fg_raise64(own, 1)
        if self.sum(LOAD_RETRIES) <= allowed:
            return True
        fg_raise64(own, -1)
        self.own.retries_refused += 1
        return False

    cpdef void give_retry(self) noexcept nogil:
        """Takes a retry off again."""
        self._leave(LOAD_RETRIES)

    def reset(self, worker: int | None = None) -> None:
        """Sets what a worker has under way to 0: its own when it starts in the place of a dead one, or that of the dead
        one itself, by whoever learns of its death. Not to be called for a worker that lives. Raises ValueError for a
        worker that there is not."""
        cdef LoadState* state = self.own
        cdef int which
        if worker is not None:
            if not 0 <= worker < self.workers:
                raise ValueError(f"there is no worker {worker} of {self.workers}")
            state = self.all[<int>worker]
        for which in range(<int>LOAD_COUNT):
            fg_store64(&state.counts[which], 0)

    @property
    def requests(self) -> int:
        """Requests under way, in all workers."""
        return self.sum(LOAD_REQUESTS)

    @property
    def retries(self) -> int:
        """Retries under way, in all workers."""
        return self.sum(LOAD_RETRIES)

    @property
    def pending(self) -> int:
        """Requests that wait for a connection, in all workers."""
        return self.sum(LOAD_PENDING)

    @property
    def connections(self) -> int:
        """Connections open or being made, in all workers."""
        return self.sum(LOAD_CONNECTIONS)

    @property
    def refused(self) -> int:
        """How often one of max_requests, max_pending and max_connections said no, in all workers, ever."""
        return sum([self.all[i].refused for i in range(self.workers)])

    @property
    def retries_refused(self) -> int:
        """How often a budget or max_retries said no, in all workers, ever."""
        return sum([self.all[i].retries_refused for i in range(self.workers)])


def load_states(capacity: int = 4096) -> SharedTable:
    """A table for the loads of upstreams; it has room for `capacity` pairs of upstream and worker."""
    return SharedTable(sizeof(LoadState), capacity)
