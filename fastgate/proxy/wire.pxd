# A transport, and the manners of writing to it.

cdef enum Sent:
    SENT_ALL                # the kernel took it
    SENT_QUEUED             # the transport holds a rest; go on
    SENT_CONGESTED          # the transport is over its high-water mark: pause whoever feeds it
    SENT_BROKEN             # the connection is gone; `connection_lost` follows

cdef enum:
    MAX_PARTS = 4

@cython.final
cdef class Wire:
    # -- the connection
    cdef object transport   # None once it is closed
    cdef int fd             # for writing past the transport; -1 after close
    cdef TlsLayer tls       # what everything is encrypted by on its way out; None: nothing is
    cdef TlsShell shell     # whose `inner` writes here, with `tls`
    # -- flow control
    cdef int64_t handed     # bytes ever given to it
    cdef bint queued        # bytes may still wait in the transport, so later ones must queue behind them
    cdef bint limited       # the transport knows our water marks, which few connections need
    cdef bint congested     # between pause_writing and resume_writing
    cdef bint paused        # reading is paused
    cdef bint finished      # FIN is on its way, or the connection is being closed: nothing may follow
    # -- why the kernel refused the last write (errno), for the log
    cdef int error

    cdef int open(self, transport) except -1
    # Whose it is; a Unix socket's has neither. False: there is no socket to ask.
    cdef bint peer(self, Address* address, uint16_t* port) noexcept
    # What can't be sent at once is copied: nothing is borrowed after the call. Each returns a `Sent`.
    cdef int send(self, const char* data, size_t length) except -1
    cdef int send_parts(self, Span* parts, int count) except -1         # up to MAX_PARTS; empty ones are allowed
    cdef int send_plain(self, Span* parts, int count) except -1         # as they are, TLS or not
    cdef bint is_whole(self) noexcept           # nothing is known that has ended it
    cdef bint at_fin(self) noexcept             # the peer's FIN is what would be read next
    cdef int _goodbye(self) except -1                                   # close_notify, under TLS
    cdef size_t waiting(self) except? 0xFFFFFFFF      # bytes in the transport's queue
    cdef size_t unsent(self) except? 0xFFFFFFFF       # the same, and those that the peer has not acknowledged
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef void lost(self) noexcept       # the loop has taken the connection away
    cdef int finish(self) except -1     # FIN after what is queued
    cdef int close(self) except -1      # after what is queued
    cdef int abort(self) except -1      # now; a peer may see RST
    cdef int reset(self) except -1      # RST for certain: an unfinished message must not look whole
    cdef int _queue(self, const char* data, size_t length) except -1
