# HTTP/1 to an endpoint: one connection.

cdef enum UpState:
    U_NEW                   # being made; the endpoint counts it as the Connector's until it takes it over
    U_IDLE                  # in the pool
    U_HEAD                  # a request was sent, its response head is awaited
    U_BODY                  # a response's body is coming
    U_TUNNEL
    U_CLOSED

@cython.final
cdef class Upstream1(EndpointSide):
    # -- where it belongs
    cdef Worker worker
    cdef Endpoint endpoint
    cdef Wire wire
    cdef object parser                  # httptools.HttpResponseParser
    cdef Exchange x                     # None in the pool
    cdef int state                      # UpState
    # -- the request
    cdef bint request_sent              # to its end
    cdef bint request_chunked
    cdef bint reused                    # it carried a request before this one
    cdef bint answered                  # a byte of the response has come
    # -- the response
    cdef HeadScan scan
    cdef Out partial
    cdef ChunkReader chunks
    cdef HeadFacts facts
    cdef int body                       # BodyKind
    cdef int64_t body_left
    cdef int64_t body_bytes
    cdef bint judged
    cdef bint head_request
    cdef bint keep                      # may go back to the pool
    cdef bint event_stream

    cdef str verdict                    # the parser's words when it refused

    cdef int _write(self, const char* body, size_t length, bint end) except -1
    cdef int _read(self, bytes data) except -1
    cdef Py_ssize_t _scan(self, const char* data, Py_ssize_t length) except -2
    cdef bint _read_head(self, bytes owner, const char* data, Py_ssize_t size, Py_ssize_t length, int64_t now) except -1
    cdef bint _switch_wanted(self) noexcept
    cdef bint _interim(self, ResponseHead* head, const char* rest, Py_ssize_t left, int64_t now) except -1
    cdef int _read_body(self, bytes owner, ResponseHead* head, const char* data, Py_ssize_t length, int64_t now) except -1
    cdef int _judge(self, bytes owner, const char* data, Py_ssize_t length) except? -1000
    cdef int _end_by_eof(self) except -1
    cdef int _broken(self, int reason, str detail) except -1
    cdef int _ended(self, str how) except -1
    cdef int _over(self, int64_t now) except -1
    cdef int _let_go(self) except -1
    cdef int _arm(self, int64_t now) except -1
    cdef int _sent(self, int sent) except -1
    cdef bint closed_by_peer(self) noexcept
