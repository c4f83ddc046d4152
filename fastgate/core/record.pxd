# What is known of an exchange when it has ended: the access log, the counters and (later) traces read this and nothing else.

cdef struct ExchangeRecord:
    # Every Span is borrowed for the length of the call. An absent one has ptr NULL.
    # -- who and what
    Span request_id
    Span listener
    Span route
    Span upstream
    Span endpoint           # "address:port" of the last attempt
    Span method
    uint8_t method_id       # METHOD_...
    Span target             # as received, with the query
    Span host
    Span user_agent
    Span tls                # "TLSv1.3", or absent
    Span tls_cipher
    Span sni                # the name that the handshake was for, or absent
    Span consumer           # who was authenticated, or absent
    Span trace_id           # 32 hex digits, if its trace is sampled; else absent
    uint8_t http_minor      # downstream: HTTP/1.<minor>
    Address client
    uint16_t client_port
    Field* fields           # the request's fields, for those that the log names
    int field_count
    # -- how it ended
    int status              # what the client was sent; 0: nothing
    int reason              # Reason; R_NONE when the upstream's answer went through whole
    Span detail             # which rule, which system error; for the log alone
    int attempts
    int64_t bytes_in        # body bytes from the client
    int64_t bytes_out       # body bytes to the client
    # -- when: wall clock of the first byte of the head, then durations in nanoseconds; -1: did not happen
    int64_t start_unix_ns
    int64_t queue_ns        # waiting for a connection of the pool
    int64_t connect_ns      # making a new one
    int64_t upstream_head_ns   # from the request's head sent to the response's head read
    int64_t total_ns
    # -- where it is counted: indexes of Slots; -1: nowhere
    int route_index
    int upstream_index
