# The connections to one endpoint, and who waits for one.

@cython.final
cdef class Endpoint(Seat):
    # -- where
    cdef bytes address_bytes            # of Seat.address
    cdef readonly tuple hosts           # IP addresses, tried in this order; empty: a Unix socket
    cdef readonly int port
    cdef readonly str unix_path
    cdef str tls_name                   # whose certificate is expected, where the upstream speaks TLS
    cdef object session                 # ssl.SSLSession of its last full handshake, to be resumed; None: none
    cdef int64_t session_until          # as long as this
    cdef readonly object app            # of an application in this process: what begins its calls; None: a socket
    cdef Upstream upstream
    cdef Worker worker
    cdef Tally tally                    # keeps `counts`
    cdef EndpointCounts* counts
    cdef bytes sticky_token             # what the sticky cookie says for it; None: there is none
    cdef bint retired                   # no configuration has it any more: what runs may finish, nothing is kept
    # -- connections: idle ones, last used first, since it is the least likely to have been closed over there
    cdef Stack idle                     # of Upstream1
    cdef readonly int open              # idle, busy and connecting
    cdef int counted                    # of `open`, those within the breaker's max_connections
    cdef readonly int connecting
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
    cdef int why_late(self) noexcept            # the Reason of one whose time to wait is over
    cdef int leave_queue(self, Exchange x) except -1
    cdef int _connect(self) except -1
    cdef int _connect_more(self) except -1      # if more wait than connects are under way, and there is room
    cdef int connect_ended(self, Upstream1 connection, int reason, str detail) except -1
    cdef int _count_out(self) except -1
    cdef int close_idle(self) except -1

@cython.final
cdef class Connector(Timed):
    # One attempt to make a connection: the only place of the way that needs a task.
    cdef Endpoint endpoint
    cdef object task
    cdef bint begun                     # a task that is cancelled before its first step never takes it
    cdef bint dropped
    cdef bint timed_out

    cdef int drop(self) except -1
