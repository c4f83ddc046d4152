# The access log: one line for each exchange, written in batches by a thread of its own.

cdef enum LogField:
    # In the order of a JSON line. The names stand in ACCESS_LOG_FIELDS.
    LOG_TIME
    LOG_REQUEST_ID
    LOG_LISTENER
    LOG_CLIENT
    LOG_CLIENT_PORT
    LOG_METHOD
    LOG_PATH
    LOG_QUERY
    LOG_HOST
    LOG_PROTOCOL
    LOG_ROUTE
    LOG_UPSTREAM
    LOG_ENDPOINT
    LOG_ATTEMPTS
    LOG_STATUS
    LOG_REASON
    LOG_DETAIL
    LOG_BYTES_IN
    LOG_BYTES_OUT
    LOG_TIME_QUEUE
    LOG_TIME_CONNECT
    LOG_TIME_UPSTREAM_HEAD
    LOG_TIME_TOTAL
    LOG_TLS
    LOG_TLS_CIPHER
    LOG_SNI
    LOG_USER_AGENT
    LOG_CONSUMER
    LOG_TRACE_ID            # of sampled ones alone: a line without it is not longer for it
    LOG_HEADERS
    LOG_LITERAL             # in a template alone

cdef struct LogOp:
    # One piece of a template.
    int field
    Span text               # of a LOG_LITERAL

@cython.final
cdef class AccessLog:
    # -- where it goes
    cdef readonly bint enabled
    cdef readonly LogWriter writer      # None if not enabled
    cdef size_t batch                   # bytes of lines that are handed over at once
    # -- how a line looks; `kept` keeps every span alive
    cdef list kept
    cdef LogOp* ops                     # NULL: JSON
    cdef int op_count
    cdef Span[64] header_names          # lower case
    cdef bint[64] header_redacted
    cdef int header_count
    cdef size_t header_room             # bytes that the names of `headers` take in a line
    cdef Span[64] query_names           # redacted
    cdef int query_count
    cdef bint agent_redacted
    # -- the lines not handed over yet
    cdef Out out
    cdef int64_t lines
    # -- the text of the second last written: exchanges of one second share it
    cdef int64_t second
    cdef char[24] second_text           # 2026-11-22T21:30:47.
    # -- lines that no memory was there for
    cdef readonly uint64_t unwritten
    cdef readonly uint64_t written      # lines formatted since the start

    # Formats the line; hands the batch over when it is full. Waits for nothing.
    cdef void write(self, const ExchangeRecord* record) noexcept nogil
    # Hands over what is there; the worker's timer calls it every flush_interval.
    cdef void hand_over(self) noexcept nogil
    cdef Span _keep(self, str text) except *
    cdef void _line(self, const ExchangeRecord* record) noexcept nogil
    cdef void _json_line(self, const ExchangeRecord* record) noexcept nogil
    cdef void _template_line(self, const ExchangeRecord* record) noexcept nogil
    cdef char* _time(self, char* at, int64_t unix_ns) noexcept nogil
    cdef char* _text(self, char* at, Span text) noexcept nogil
    cdef char* _quoted(self, char* at, const char* name, Span text) noexcept nogil
    cdef char* _query(self, char* at, Span query) noexcept nogil
    cdef char* _headers(self, char* at, const ExchangeRecord* record) noexcept nogil
    cdef char* _value(self, char* at, int field, const ExchangeRecord* record) noexcept nogil
    cdef bint _query_redacted(self, Span name) noexcept nogil
