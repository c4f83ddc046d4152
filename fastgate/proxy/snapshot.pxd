# The configuration in force, compiled: what an exchange reads while it runs. Built once, never changed: a reload
# builds the next one beside it. An exchange holds its Route and Listener, and so the snapshot that it began with.

cdef enum RouteAction:
    ACTION_UPSTREAM
    ACTION_SPLIT
    ACTION_AGGREGATE
    ACTION_REDIRECT
    ACTION_RESPOND

cdef enum HostMode:
    HOST_CLIENT             # as the client sent it
    HOST_ENDPOINT           # the endpoint's address
    HOST_LITERAL

cdef enum HalfClose:
    HALF_CLOSE_ABANDON
    HALF_CLOSE_SERVE

cdef enum RequestIdRule:
    REQUEST_ID_KEEP_TRUSTED
    REQUEST_ID_KEEP
    REQUEST_ID_NEW

cdef class NativeFilter:
    # A filter of the compiled core: rate limit, address list. R_NONE lets the request pass; another Reason answers it.
    # What the answer (or the passed response) shall carry goes into `x.extra` as complete field lines.
    cdef readonly str name
    cdef int check(self, Exchange x) except -1
    # True: its decision may have to be waited for, so it stands in a PluginChain, not among a route's `filters`.
    cdef bint waits(self) noexcept
    # It looks at the upstream's head as well.
    cdef bint observes(self) noexcept
    cdef int observe(self, Exchange x, ResponseHead* head) except -1

@cython.final
cdef class Route:
    cdef inline void expect(self) noexcept:
        # With thousands of routes this one is in no cache: its lines are asked for together, not one by one.
        prefetch(<char*><void*>self + 64)
        prefetch(<char*><void*>self + 128)
        prefetch(<char*><void*>self + 192)
        prefetch(<char*><void*>self.name_bytes)
        prefetch(<char*><void*>self.name_bytes + 32)

    # -- who
    cdef int slot                       # where it is counted
    cdef Slot lease                     # of that place
    cdef uint64_t id                    # a hash of its name: the same over reloads
    cdef readonly str name
    cdef bytes name_bytes
    # -- what happens
    cdef int action                     # RouteAction
    cdef Upstream upstream              # ACTION_UPSTREAM
    cdef Splitter split                 # ACTION_SPLIT, and the upstreams of its arms
    cdef tuple split_upstreams
    cdef RequestKey split_key
    cdef object aggregate               # ACTION_AGGREGATE: fastgate.aggregation.plan.Plan
    cdef int64_t gather_room            # and the bytes that its answers may take together
    cdef Redirector redirect            # ACTION_REDIRECT
    cdef int respond_status             # ACTION_RESPOND
    cdef bytes respond_lines            # its field lines, Content-Type included
    cdef bytes respond_body
    # -- the names of the {name} segments; `capture_text` keeps them alive
    cdef tuple capture_text
    cdef Span[MAX_CAPTURES] captures
    # -- on the way there and back
    cdef tuple filters                  # of NativeFilter, before the first plugin in Python
    cdef PluginChain chain              # from that plugin on; None: there is none
    cdef PathRewrite rewrite            # None: the path goes as it came
    cdef bytes rewrite_host             # None: as the upstream says
    cdef HeaderRules request_rules      # None: none
    cdef HeaderRules response_rules
    cdef tuple upgrades                 # lower-case protocol names that may be switched to
    cdef bint keep_encoded_slash
    # -- when things go wrong
    cdef int priority                   # Priority, in the upstream's queue
    cdef uint64_t trace_threshold       # of its traces that begin here; TRACE_DEFAULT: the listener's
    cdef RetryPolicy retry              # None: the upstream's
    cdef Fallback fallback              # None: none
    # -- off the common way: any of split, fault, mirror
    cdef bint detour
    cdef FaultRule fault                # None: none
    cdef readonly Mirror mirror
    # -- bounds; -1: none. body_limit -2: the listener's
    cdef int64_t body_limit
    cdef int64_t total_ns
    cdef int64_t tunnel_idle_ns
    cdef int64_t event_idle_ns

@cython.final
cdef class Fallback:
    # Another way when an upstream fails.
    cdef RetryPolicy when               # the failures and statuses, and which requests may be sent a second time
    cdef bint on_no_endpoint
    cdef bint on_overload
    cdef Upstream upstream              # None: a fixed answer
    cdef int status
    cdef bytes lines
    cdef bytes body

    cdef bint wants(self, int reason, int status) noexcept

@cython.final
cdef class Upstream:
    # -- who
    cdef int slot                       # where it is counted
    cdef Slot lease                     # of that place
    cdef readonly str name
    cdef bytes name_bytes
    cdef object __weakref__
    # -- where: its endpoints are `group.seats`; who came before they were known waits in `arrivals`
    cdef readonly Group group
    cdef RequestKey hash_key            # None: the policy needs none
    cdef Sticky sticky                  # None: none
    cdef readonly bint known            # its endpoints have been told, even if there is none
    cdef readonly str problem           # why there is none
    cdef bint unresolved                # for want of an answer from DNS
    cdef set arrivals                   # of Exchange in X_UNRESOLVED
    # -- how its endpoints do
    cdef readonly UpstreamHealth health
    cdef bint ewma                      # its balancer goes by latency
    cdef readonly HedgePolicy hedge     # None: no hedging
    # -- how much of it, and again how often
    cdef readonly UpstreamLoad load
    cdef readonly Admission admission   # None: no concurrency limit
    cdef bint gated                     # by its breaker or by `admission`
    cdef bint serving_queue             # inside `next_in_line`
    cdef list next_up                   # exchanges that have a slot and are to be sent, and their turns
    cdef bint sending_away              # inside `send_away`
    cdef list sent_away                 # exchanges that have lost their place in the queue and are to be told
    cdef readonly RetryPolicy retry     # None: no retries
    # -- TLS to its endpoints
    cdef object tls                     # ssl.SSLContext; None: plain
    cdef str tls_name                   # whose certificate is expected; "": the endpoint's host
    # -- bounds
    cdef int64_t connect_ns
    cdef int64_t head_ns
    cdef int64_t idle_ns
    cdef HeadLimits head_limits
    cdef int64_t body_limit
    # -- what it is told
    cdef int host_mode                  # HostMode
    cdef bytes host_literal

    # `next`: who has got a place in `admission`, or None.
    cdef int next_in_line(self, object next, int64_t now) except -1
    cdef int _give_slot(self, Exchange x, int64_t now) except -1
    # Who had to leave the queue of `admission` for another.
    cdef int send_away(self, Exchange x, int64_t now) except -1

@cython.final
cdef class Listener:
    # -- who
    cdef readonly str name
    cdef bytes name_bytes
    cdef RouteTable table
    cdef readonly tuple routes          # of Route, by the index that the table gives
    # -- bounds
    cdef HeadLimits head_limits
    cdef int64_t body_limit
    cdef int64_t head_ns
    cdef int64_t body_idle_ns
    cdef int64_t keep_alive_ns
    cdef int64_t write_idle_ns
    cdef int64_t body_min_rate          # bytes a second
    # -- TLS
    cdef readonly object certificates   # its `begin` gives each connection an ssl.SSLContext; None: plain
    cdef int64_t handshake_ns           # how long a handshake may take
    cdef int64_t handshake_gap_ns       # between two of them, on average; 0: no limit
    # -- whom it believes, and what it tells the upstream
    cdef IpSet trusted                  # None: nobody
    cdef bint proxy_protocol
    cdef bint send_x_forwarded
    cdef bint send_forwarded
    cdef int request_id                 # RequestIdRule
    cdef int half_close                 # HalfClose
    cdef bytes hsts                     # field line for answers without a route; None: none
    # -- which of its requests are traced; None: none is
    cdef TracePolicy tracing
    cdef bint strict_host               # Host must be the name of the TLS handshake

@cython.final
cdef class ListenerSlot:
    # What a listening socket and its connections share: each request begins with the Listener that is here then. A
    # reload changes it, and connections live on.
    cdef Listener current
    cdef bint closed                    # the configuration has no such listener any more: each connection ends after
                                        # the request under way
