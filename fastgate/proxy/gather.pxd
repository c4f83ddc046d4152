# The attempt of an exchange whose route aggregates: instead of one endpoint it asks several upstreams, each by an
# exchange of its own. What is asked, and what becomes of the answers, is decided by fastgate/aggregation/run.py.

@cython.final
cdef class Gathering(EndpointSide):
    cdef Exchange x                     # None: it has its answer, or was given up
    cdef Worker worker
    cdef object plan                    # fastgate.aggregation.plan.Plan
    cdef object run                     # None until the request is whole enough to begin
    cdef ExchangeView view              # of plugins, or our own
    cdef bint own_view
    # -- what all its requests have: the head behind the target, up to what the part adds; None: each upstream has its own
    cdef bytes behind
    # -- what is looked at of answers: name in small letters -> the same as text; and a bit for each length of a name
    cdef dict wanted
    cdef uint64_t lengths
    # -- the client's body, where the plan wants it
    cdef bytearray body
    cdef int64_t body_size
    # -- requests under way, and answers that the run has not been told of
    cdef set calls                      # of PartSide
    cdef object arrived                 # deque of PartAnswer
    cdef bint pumping                   # the run is at work
    # -- memory of all answers
    cdef int64_t held
    cdef int64_t room
    # -- a streamed answer
    cdef bint begun
    cdef bint bodiless                  # of HEAD, 204 or 205: there is nothing behind the head

    cdef int begin(self, const char* body, size_t length, bint end) except -1
    cdef int _start(self) except -1
    cdef int pump(self) except -1
    cdef Exchange _let_go(self)         # of everything; whose answer it was
    cdef int _send_head(self, Exchange x, int status, bytes lines, bytes body, bint end) except -1

@cython.final
cdef class PartSide(InnerSide):
    # The client side of one request of an aggregation.
    cdef Gathering gathering            # None: nobody wants the answer any more
    cdef Exchange asked                 # None once it is over
    cdef readonly object call           # how the run calls it
    # -- bounds, and what was taken of them
    cdef int64_t limit
    cdef int64_t taken                  # of the body
    cdef int64_t held                   # and of fields
    # -- the answer
    cdef int status                     # 0: none
    cdef list fields                    # (name in small letters, value) of those that the plan looks at
    cdef bytes first                    # the body, or its beginning
    cdef bytearray more                 # the whole in place of `first`, of one that came in pieces
    # -- for the trail: since when
    cdef int64_t began

@cython.final
cdef class PartAnswer:
    # What has become of a request. Durations in nanoseconds; began: since the client's exchange began.
    cdef readonly object call
    cdef readonly int status            # 0: there is no whole answer
    cdef readonly list fields
    cdef readonly bytes body
    cdef readonly str reason            # a code of REASONS; "" for an answer
    cdef readonly str detail
    cdef readonly str upstream
    cdef readonly str endpoint          # "" if none was reached
    cdef readonly int attempts
    cdef readonly int64_t began
    cdef readonly int64_t took
