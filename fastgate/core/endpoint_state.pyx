# Theory of operation. Four parties write an endpoint's state, each its own words: the operator, the active checks, the
# outlier detection and the breaker. `endpoint_status` is the only place that weighs them. Whoever changes a word then
# raises the upstream's generation, and every worker's balancer reads the states anew at its next choice.

ENDPOINT_STATUSES: tuple[str, ...] = ("ready", "draining", "down", "ejected")


cdef int endpoint_status(const EndpointState* state, int64_t now) noexcept nogil:
    if state.operator_state == OPERATOR_READY:
        return STATUS_READY
    if state.operator_state == OPERATOR_DRAINING:
        return STATUS_DRAINING
    if state.operator_state == OPERATOR_DOWN or state.probe_state == PROBE_DOWN:
        return STATUS_DOWN
    if state.ejected_until_ns > now or (state.breaker.state == BREAKER_OPEN and state.breaker.until_ns > now):
        return STATUS_EJECTED
    return STATUS_READY


cdef int64_t endpoint_changes_at(const EndpointState* state, int64_t now) noexcept nogil:
    cdef int64_t at = NEVER_NS
    if state.ejected_until_ns > now:
        at = state.ejected_until_ns
    if state.breaker.state == BREAKER_OPEN and now < state.breaker.until_ns < at:
        at = state.breaker.until_ns
    return at


cdef void upstream_changed(UpstreamState* upstream) noexcept nogil:
    fg_add64(&upstream.generation, 1)
