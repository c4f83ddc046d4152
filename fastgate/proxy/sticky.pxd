# The cookie that leads a client back to its endpoint.

@cython.final
cdef class Sticky:
    cdef bytes name
    cdef bytes secret
    cdef str upstream               # its name
    cdef bytes before               # the Set-Cookie line up to the value, and behind it
    cdef bytes behind

    cdef bytes token_of(self, str address)
    # The seat (of Endpoint) that the request's cookie names, if it is in use; -1: none.
    cdef int find(self, const RequestView* view, tuple seats, int64_t now) except -2
    cdef int write_cookie(self, Endpoint endpoint, Out* out) except -1
