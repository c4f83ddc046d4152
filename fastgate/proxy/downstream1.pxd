# HTTP/1 from the client: one connection.

cdef enum DownState:
    D_PROXY                 # a PROXY header must come first
    D_HANDSHAKE             # TLS is being agreed on
    D_IDLE                  # between requests
    D_HEAD                  # a part of a head is here
    D_BODY                  # a request's body is coming
    D_WAIT                  # the request is whole, its answer is not
    D_TUNNEL                # upgraded: bytes pass both ways
    D_LINGER                # answered for the last time; what still comes is dropped until the client closes
    D_CLOSED

@cython.final
cdef class Downstream1(ClientSide):
    # -- where it belongs
    cdef Worker worker
    cdef ListenerSlot slot
    cdef Listener listener              # of the request under way, or of the last one
    cdef Wire wire
    cdef object parser                  # httptools.HttpRequestParser, made with the first request
    cdef Exchange x                     # the one under way; None between requests
    cdef int state                      # DownState
    # -- reading
    cdef HeadScan scan
    cdef Out partial                    # an incomplete head
    cdef bytes pending                  # received but not read yet: pipelined requests behind the one under way
    cdef Py_ssize_t pending_at
    cdef ChunkReader chunks
    cdef int64_t body_left              # of a Content-Length
    cdef int64_t body_start_ns          # for the minimum rate; moved on by the time in which we did not read
    cdef int64_t paused_ns              # when we stopped reading the body; 0: we read
    cdef bint judged                    # the parser has seen the message's end
    cdef str verdict                    # its words when it refused
    cdef bint reading                   # inside `_read`: what ends an exchange there must not begin the next one itself
    cdef bint eof                       # the client has sent FIN
    # -- answering
    cdef bint close_after               # no further request on this connection
    cdef bint chunked_out               # the answer under way is chunked
    cdef int64_t last_taken             # bytes that the client had taken at the last look: to tell a slow reader from none
    cdef int64_t lingered
    # -- who it is
    cdef Address address
    cdef uint16_t port
    cdef bint trusted
    cdef bytes counted_as               # the address under which it counts against the cap; None: it does not

    # Each `_read_...` takes bytes from data[at:] and returns where it stopped.
    cdef int _read(self, bytes data, Py_ssize_t at) except -1
    cdef int _hold(self, bytes data, Py_ssize_t at) except -1
    cdef Py_ssize_t _read_proxy(self, bytes data, Py_ssize_t at) except -2
    cdef Py_ssize_t _read_head(self, bytes data, Py_ssize_t at) except -2
    cdef Py_ssize_t _begin(self, bytes data, Py_ssize_t at, Py_ssize_t size) except -2
    cdef Py_ssize_t _read_body(self, bytes data, Py_ssize_t at) except -2
    # The parser's opinion of these bytes: R_NONE, or minus the Reason; its words are in `verdict`.
    cdef int _judge(self, bytes owner, const char* data, Py_ssize_t length) except? -1000
    cdef void _retire_parser(self, Exchange x) noexcept
    cdef int _refuse_head(self, int reason) except -1
    cdef int _believe_forwarded(self, Exchange x) except -1
    cdef int _choose_request_id(self, Exchange x) except -1
    cdef Exchange _new_exchange(self, int64_t now)
    cdef int _pass_on(self, const char* data, Py_ssize_t length) except -1
    cdef int _chunk(self, Out* out, const char* body, size_t length, bint end, Exchange x) except -1
    cdef int _sent(self, int sent) except -1
    cdef int _watch_reader(self, int64_t now) except -1     # arms write_idle if the transport holds something, else disarms
    cdef bint _reader_moves(self) except -1                 # whether it has taken anything since the last look
    cdef int _leave(self, bint linger) except -1
    cdef int drain(self) except -1
    cdef int last_chance(self, int64_t until_ns) except -1
    cdef int cut_off(self) except -1
    cdef int _know_address(self) except -1
    cdef int _follow(self) except -1        # to the configuration in force
