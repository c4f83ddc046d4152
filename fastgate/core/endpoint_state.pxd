# What is known of an endpoint and of its upstream, by all workers: the operator's word, probes, ejection, breakers.

cdef enum OperatorState:
    OPERATOR_NONE           # health and outliers decide
    OPERATOR_READY          # in use whatever probes and outliers say
    OPERATOR_DRAINING       # no new requests; what runs may finish
    OPERATOR_DOWN

cdef enum ProbeState:
    PROBE_UNKNOWN           # no active check has decided yet: in use
    PROBE_UP
    PROBE_DOWN

cdef enum BreakerState:
    BREAKER_CLOSED
    BREAKER_OPEN
    BREAKER_HALF_OPEN

cdef enum EndpointStatus:
    # What an endpoint is, all told. In the order in which they are shown; names in ENDPOINT_STATUSES.
    STATUS_READY
    STATUS_DRAINING
    STATUS_DOWN             # by the operator, or by its probes
    STATUS_EJECTED          # as an outlier; or its breaker is open, or half-open and out of trials

cdef struct Breaker:
    # An error-ratio breaker; see breaker.pyx.
    uint32_t state          # BreakerState
    uint32_t trials         # HALF_OPEN: how many requests may still be let through
    uint32_t successes      # HALF_OPEN: trials in a row that went well
    uint32_t spare
    int64_t until_ns        # OPEN: when it goes half-open; HALF_OPEN: when trials are granted anew
    int64_t window_ns       # when the window began
    uint64_t requests       # in it
    uint64_t failures

cdef struct EndpointState:
    SharedKey key
    # -- the operator
    uint32_t operator_state
    uint32_t weight         # in place of the configured one; 0: none
    # -- probes
    uint32_t probe_state
    uint32_t probe_streak   # results in a row that speak against `probe_state`
    # -- outliers
    uint32_t errors_row     # 5xx and gateway failures in a row
    uint32_t gateway_row    # gateway failures alone
    uint64_t interval_requests
    uint64_t interval_failures
    int64_t ejected_until_ns   # monotonic; 0: not ejected
    uint32_t ejections      # how often, lately: the factor of the next one's length
    uint32_t success_rate   # of the last interval, in millionths, plus one; 0: too few requests
    int64_t returned_ns     # when it came (back) into use: the beginning of its slow start; 0: before we looked
    # -- its breaker
    Breaker breaker

cdef struct UpstreamState:
    SharedKey key
    uint64_t generation     # goes up with every change of the state of one of its endpoints, or of its own
    uint64_t lock           # since when somebody decides about an ejection, monotonic; 0: nobody does
    int64_t interval_ns     # when the present interval of success rates began
    Breaker breaker

cdef enum Outcome:
    # How an attempt ended, as far as the endpoint's health goes.
    OUTCOME_OK
    OUTCOME_5XX             # it answered 500 or another 5xx that is not a gateway's
    OUTCOME_GATEWAY         # connect failure, reset, time-out, or 502, 503, 504: nobody who works is there
    OUTCOME_COUNT           # names in OUTCOMES

cdef enum:
    NEVER_NS = 0x7FFFFFFFFFFFFFFF

# The status at this moment. An open breaker whose time is over counts as ready: its next request is a trial.
cdef int endpoint_status(const EndpointState* state, int64_t now) noexcept nogil
# When time alone will change that; NEVER_NS: it will not.
cdef int64_t endpoint_changes_at(const EndpointState* state, int64_t now) noexcept nogil
# To be called behind every change that a balancer must see.
cdef void upstream_changed(UpstreamState* upstream) noexcept nogil
