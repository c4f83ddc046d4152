# What a decision may look at: one request (or response) head as spans, the same whichever wire it came by.

cdef enum Method:
    # Those that a rule treats in its own way; any other token is METHOD_OTHER and matched by its text.
    METHOD_OTHER = 0
    METHOD_GET
    METHOD_HEAD
    METHOD_POST
    METHOD_PUT
    METHOD_DELETE
    METHOD_OPTIONS
    METHOD_PATCH
    METHOD_TRACE
    METHOD_CONNECT

cdef enum FieldId:
    # Fields that the gateway itself reads or writes; all others are F_OTHER and pass as they came.
    F_OTHER = 0
    F_HOST
    F_CONNECTION
    F_KEEP_ALIVE
    F_PROXY_CONNECTION
    F_PROXY_AUTHENTICATE
    F_PROXY_AUTHORIZATION
    F_TE
    F_TRAILER
    F_TRANSFER_ENCODING
    F_UPGRADE
    F_CONTENT_LENGTH
    F_CONTENT_TYPE
    F_EXPECT
    F_DATE
    F_VIA
    F_FORWARDED
    F_X_FORWARDED_FOR
    F_X_FORWARDED_PROTO
    F_X_FORWARDED_HOST
    F_X_REQUEST_ID
    F_USER_AGENT
    F_REFERER
    F_COOKIE
    F_MAX_FORWARDS
    F_ACCEPT
    F_HTTP2_SETTINGS
    F_SERVER
    F_TRACEPARENT
    F_TRACESTATE
    F_FASTGATE_TRACE
    F_COUNT

cdef struct Field:
    # One field line; both spans point into the head's bytes. `value` has its outer whitespace trimmed (RFC 9112 5.1).
    # `drop` marks a hop-by-hop field, or one that `Connection` names: it is not forwarded (RFC 9110 7.6.1).
    # `whole`: the line stands in memory as "name: value" CRLF, so that runs of lines can be copied at once.
    Span name
    Span value
    uint8_t id
    uint8_t drop
    uint8_t whole

cdef struct Address:
    # An IP address; IPv4 stands in the last four bytes of its mapped form ::ffff:a.b.c.d. `family`: 4, 6, or 0 (Unix socket).
    uint8_t[16] bytes
    uint8_t family

cdef enum:
    MAX_CAPTURES = 16       # {name} segments of one path; more is a configuration error

cdef struct RequestView:
    # Borrowed from the exchange, valid until it ends.
    # -- the line
    Span method
    uint8_t method_id
    Span path               # normalised: what is matched is what is forwarded
    Span query              # without "?"; ptr NULL when there was no "?" (an empty query is kept apart from none)
    # -- the authority: lower case, without port; empty for HTTP/1.0 without Host
    Span host
    # -- fields, in the order in which they came
    Field* fields
    int field_count
    # -- who asks
    Address client
    Span consumer           # empty until an authenticator set it
    # -- set by the route match: values of the {name} segments, in the order of the pattern
    Span[MAX_CAPTURES] captures
    int capture_count
    const Span* capture_names   # as many, of the route; NULL: nobody has said them

cdef inline Span request_field(const RequestView* view, Span name) noexcept nogil:
    # The first field of that name (lower or any case); ptr NULL when there is none.
    cdef int i
    for i in range(view.field_count):
        if span_equal_nocase(view.fields[i].name, name):
            return view.fields[i].value
    return span_of(NULL, 0)
