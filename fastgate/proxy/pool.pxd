# The connections to one endpoint, and who waits for one.

@cython.final
cdef class Endpoint:
    # -- where
    cdef readonly str address           # "host:port" or "unix:/path", as configured
    cdef bytes address_bytes
    cdef str host                       # None: a Unix socket
    cdef int port
    cdef str unix_path
    cdef object resolver                # async (host, port) -> list of IP addresses; None: `host` is one already
    cdef Upstream upstream
    cdef Worker worker
    # -- connections: idle ones, last used first, since it is the least likely to have been closed over there
    cdef Stack idle                     # of Upstream1
    cdef int open                       # idle, busy and connecting
    cdef set connectors                 # of Connector, each under way
    cdef int connecting
    cdef bint retired                   # no configuration has it any more: nothing goes back to the pool
    # -- who waits for one: an exchange stands here while it is X_WAITING
    cdef object waiting                 # deque of Exchange
    # -- bounds
    cdef int max_open
    cdef int max_idle
    cdef int max_waiting
    cdef int64_t idle_ns
    cdef int64_t queue_ns

    # R_NONE: the exchange has a connection or waits for one; else why not.
    cdef int acquire(self, Exchange x, bint fresh) except -1
    cdef int release(self, Upstream1 connection, int64_t now) except -1
    cdef int connection_closed(self, Upstream1 connection) except -1
    cdef int64_t wait_ns(self) noexcept         # how long an exchange that begins to wait now may do so
    cdef int leave_queue(self, Exchange x) except -1
    cdef int _connect(self) except -1
    cdef int _connect_more(self) except -1      # if more wait than connects are under way, and there is room
    cdef int connect_ended(self, Upstream1 connection, int reason, str detail) except -1
    cdef int close_idle(self) except -1
    cdef int retire(self) except -1
    cdef int cut_connects(self) except -1

@cython.final
cdef class Connector(Timed):
    # One attempt to make a connection: the only place of the way that needs a task.
    cdef Endpoint endpoint
    cdef object task
    cdef bint timed_out
