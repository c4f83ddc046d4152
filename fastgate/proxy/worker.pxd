# What all connections of one event loop share.

cdef double TICK_SECONDS

@cython.final
cdef class Worker:
    # -- the loop and its time
    cdef readonly object loop
    cdef TimerWheel wheel
    cdef object tick_handle
    cdef int64_t wall_offset            # wall clock minus monotonic clock
    cdef int64_t flush_ns               # when the access log is flushed next
    cdef int64_t flush_every
    # -- scratch, used within one call and never kept
    cdef Out out                        # a head on its way out
    cdef Out gathered                   # payloads of several chunks, joined
    cdef Field* fields                  # of a response
    cdef int field_room
    cdef Field[TRAILER_ROOM] trailer_fields
    cdef bytearray tls_scratch          # plaintext, before it is passed on
    # -- new TLS sessions: a full handshake costs as much as a hundred requests
    cdef int64_t handshakes_ns          # when the one after the next may begin, as a token bucket tells it (GCRA)
    # -- free list
    cdef Stack free_exchanges
    # -- choices by chance
    cdef RandomState random
    cdef RandomState trace_random       # of its own: its numbers are shown to others
    # -- exchanges that no client asked for, and what stands for their listener and route
    cdef set inner                      # of Exchange
    cdef Listener inner_listener
    cdef Route inner_route
    # -- what is written again and again
    cdef char[40] date_line             # "Date: ...\r\n", of this second
    cdef int64_t date_second
    cdef char[16] id_prefix             # in hex
    cdef uint64_t id_next
    # -- while certificates are ordered (RFC 8555 8.3); None: none is, and requests pay one comparison
    cdef dict challenges                # token -> key authorization
    # -- records
    cdef AccessLog log                  # None: off
    cdef readonly Counters counters
    cdef Trails trails                  # None: nothing is kept
    cdef int64_t log_dropped            # by logs that this one took the place of
    # -- who is here
    cdef set downstreams
    cdef dict per_address               # address bytes -> connections; only where a cap is set
    cdef set upstreams                  # every Upstream1
    cdef readonly int exchanges
    cdef readonly int connecting
    cdef set connectors                 # of Connector, each under way
    cdef int64_t max_connections
    cdef int64_t max_per_address
    cdef tuple watched                  # of Upstream: those in use
    cdef list unwatched                 # the counters' places of those that are not
    cdef object retired                 # WeakSet of Upstream: no longer in use, alive as long as anything runs there
    cdef int64_t gauges_ns              # when the gauges are shown next
    cdef int64_t shown_accepted         # and what of these the counters have
    cdef int64_t shown_refused
    cdef int64_t shown_dropped
    cdef list shown_endpoints           # of Tally
    cdef readonly int64_t accepted
    cdef readonly int64_t refused       # connections over a cap
    cdef int tunnels
    cdef bint draining
    cdef int64_t grace_until            # while draining: until then a connection may bring a last request
    cdef object drained                 # a Future while draining
    cdef readonly int cut               # exchanges cut at the end of a drain

    cdef Exchange take_exchange(self)
    cdef void give_exchange(self, Exchange x) noexcept
    cdef const char* date(self, int64_t now) noexcept
    cdef int make_request_id(self, char* into) noexcept
    cdef void arm(self, Timed timed, int64_t deadline_ns) noexcept
    cdef Field* room(self, int count) except NULL       # `fields`, with room for that many
    cdef bint take_handshake(self, Listener listener) noexcept      # False: over the listener's rate
    cdef bint admit(self, Downstream1 connection) except -1
    cdef bint count_address(self, Downstream1 connection) except -1     # False: over the cap of its address
    cdef int leave(self, Downstream1 connection) except -1
    cpdef int show_gauges(self) except -1
    cdef int _add_endpoints(self, Upstream upstream) except -1
    cdef int left(self) except -1
    cdef int _close_pools(self) except -1
