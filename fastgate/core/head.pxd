# Reading a head: HTTP/1 lines into spans, and what their fields mean for framing.
#
# The httptools parser is the judge of syntax; it is fed the very bytes that are read here, and the two must agree
# on where a message ends. This part adds what the parser does not do: limits while the head still trickles in,
# spans instead of Python objects, and the rules that RFC 9112 lays on a server beside its grammar.

cdef struct HeadLimits:
    int64_t line            # bytes of the request line (414) or status line
    int64_t bytes           # bytes of all lines together (431)
    int count               # field lines (431)

cdef struct HeadScan:
    # Where the scan of an incomplete head stands, so that a trickle is read once, not again for each byte.
    Py_ssize_t at           # first byte not looked at yet
    Py_ssize_t line_start
    int lines               # whole lines so far, the first line included

cdef enum BodyKind:
    BODY_NONE
    BODY_LENGTH
    BODY_CHUNKED
    BODY_EOF                # a response that ends with its connection (RFC 9112 6.3, item 8)

cdef struct HeadFacts:
    # What the fields of one head say of framing and of the connection. Spans point into the head's bytes.
    Span host
    Span upgrade
    Span content_type
    Span forwarded_for      # the last X-Forwarded-For
    Span forwarded_proto
    Span forwarded_host
    Span forwarded
    Span request_id
    Span user_agent
    int64_t content_length  # -1: none
    int64_t max_forwards    # -1: none
    int body                # BodyKind
    int host_count
    int forwarded_for_count
    bint close              # Connection: close
    bint keep_alive         # Connection: keep-alive
    bint connection_upgrade # Connection names upgrade
    bint proxy_connection   # Proxy-Connection was there
    bint expect_continue
    bint te_trailers
    bint has_date
    bint has_encoding       # Transfer-Encoding was there
    uint8_t http_minor

# The length of the head when it is whole (its empty line included), 0 when more is needed, -1 when it is refused
# (then `reason` says why: R_BARE_LF, R_REQUEST_LINE_TOO_LONG, R_HEADER_TOO_LARGE or R_HEADER_TOO_MANY).
cdef uint8_t field_id(Span name) noexcept nogil         # `name` is not empty

cdef Py_ssize_t scan_head(const char* data, Py_ssize_t length, HeadScan* scan, const HeadLimits* limits,
                          int* reason) noexcept nogil

# Splits a whole head's field lines (those after the first) into `fields`, which has room for `room` of them.
# Returns their number, or -1 when a line has no colon or a name that is not a token.
cdef int split_fields(const char* data, Py_ssize_t length, Field* fields, int room) noexcept nogil
# The same of field lines alone, up to an empty line or the end.
cdef int split_lines(const char* at, Py_ssize_t length, Field* fields, int room) noexcept nogil

# "METHOD SP target SP HTTP/1.x"; R_NONE, R_REQUEST_LINE_SYNTAX or R_HTTP_VERSION.
cdef int split_request_line(const char* data, Py_ssize_t length, Span* method, uint8_t* method_id, Span* target,
                            uint8_t* http_minor) noexcept nogil
# "HTTP/1.x SP 3DIGIT [SP phrase]"; the status code, or -1.
cdef int split_status_line(const char* data, Py_ssize_t length, uint8_t* http_minor, Span* phrase) noexcept nogil

# The meaning of the fields; marks those that are not forwarded (`drop`). Returns a Reason, R_NONE when all is well.
# `facts.http_minor` must be set before.
cdef int read_request_facts(Field* fields, int count, HeadFacts* facts) noexcept nogil
cdef int read_response_facts(Field* fields, int count, int status, bint head_request, HeadFacts* facts) noexcept nogil
