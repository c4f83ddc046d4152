# An endpoint that is an ASGI 3 application in this process: no socket, and one call of it for each request.

@cython.final
cdef class AsgiSide(EndpointSide):
    # -- where it belongs
    cdef Worker worker
    cdef Endpoint endpoint
    cdef Exchange x                     # None: one of the two is done with the other
    cdef object call                    # the application's, made by `endpoint.app`
    cdef int state                      # UpState: U_NEW, U_HEAD, U_BODY, U_CLOSED
    # -- the request
    cdef list pieces                    # of its body, which the application has not taken yet
    cdef Py_ssize_t held                # their bytes
    cdef bint request_sent              # its end has come
    cdef bint congested                 # so much is held that the client is not read
    # -- the response
    cdef HeadFacts facts
    cdef int body                       # BodyKind
    cdef int64_t body_left
    cdef int64_t body_bytes
    cdef bint head_request
    cdef bint event_stream
    cdef bint paused                    # the client takes no more at present

    cdef int _take(self, const char* body, size_t length, bint end) except -1      # a `Sent`
    cdef int _count(self, int64_t length, bint end) except -1       # the Reason why so much of the body is refused
    cdef str _miscount(self, int reason)
    cdef str _refuse(self, int reason, str detail)
    cdef int _send(self, ResponseHead* head, bytes body, bint end, int64_t now) except -1
    cdef int _broken(self, int reason, str detail) except -1
    cdef int _let_go(self) except -1
    cdef int _arm(self, int64_t now) except -1

# For `Endpoint.acquire`: a side for this exchange, or the Reason why not.
cdef int open_app(Endpoint endpoint, Exchange x) except -1
