# An endpoint as a balancer sees it. `proxy/pool` derives the Endpoint with its connections from it.

cdef class Seat:
    # -- who
    cdef readonly str address       # "host:port" or "unix:/path"; unique within an upstream
    cdef uint64_t id                # a hash of the address, the same in every process and every replica
    cdef readonly str region        # "": none said
    cdef readonly str zone
    # -- configured
    cdef readonly int weight
    cdef readonly int max_requests  # under way at one time, in this worker; 0: any number
    # -- shared by all workers; `record` keeps it
    cdef SharedRecord record
    cdef EndpointState* state
    # -- live, of this worker
    cdef readonly int active        # attempts under way
    cdef double ewma_ns             # of the time to a response's head; peak-sensitive, see balance_ewma
    cdef int64_t ewma_at_ns         # when it was last fed; 0: never
