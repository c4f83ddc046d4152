# Theory of operation. Four parties write an endpoint's state, each its own words: the operator, the active checks, the
# outlier detection and the breaker. `endpoint_status` is the only place that weighs them. Whoever changes a word then
# raises the upstream's generation, and every worker's balancer reads the states anew at its next choice.

ENDPOINT_STATUSES: tuple[str, ...] = ("ready", "draining", "down", "ejected")
OPERATOR_STATES: tuple[str, ...] = ("auto", "ready", "draining", "down")
OUTCOMES: tuple[str, ...] = ("ok", "5xx", "gateway")
_PROBE_STATES = ("unknown", "up", "down")
_BREAKER_STATES = ("closed", "open", "half-open")


cdef inline bint _breaker_bars(const Breaker* breaker, int64_t now) noexcept nogil:
    return (
        breaker.state != BREAKER_CLOSED and breaker.until_ns > now
        and (breaker.state == BREAKER_OPEN or breaker.trials == 0)
    )


cdef int endpoint_status(const EndpointState* state, int64_t now) noexcept nogil:
    if state.operator_state == OPERATOR_READY:
        return STATUS_READY
    if state.operator_state == OPERATOR_DRAINING:
        return STATUS_DRAINING
    if state.operator_state == OPERATOR_DOWN or state.probe_state == PROBE_DOWN:
        return STATUS_DOWN
    if state.ejected_until_ns > now or _breaker_bars(&state.breaker, now):
        return STATUS_EJECTED
    return STATUS_READY


cdef int64_t endpoint_changes_at(const EndpointState* state, int64_t now) noexcept nogil:
    cdef int64_t at = NEVER_NS
    if state.ejected_until_ns > now:
        at = state.ejected_until_ns
    if _breaker_bars(&state.breaker, now) and state.breaker.until_ns < at:
        at = state.breaker.until_ns
    return at


cdef void upstream_changed(UpstreamState* upstream) noexcept nogil:
    fg_add64(&upstream.generation, 1)


def endpoint_report(Seat seat not None, int64_t now) -> dict[str, object]:
    """What is known of an endpoint at the monotonic time `now` (ns), for an operator.

    {"status": one of ENDPOINT_STATUSES, "operator": one of OPERATOR_STATES, "probe": "unknown" | "up" | "down",
    "ejected_for_s": seconds to go (0.0: not ejected), "ejections": how often lately, "returned_for_s": seconds
    since it last came back into use (None: it never was away, or is), "success_rate": 0..1 in the last interval
    (None: too few requests), "breaker": "closed" | "open" | "half-open", "weight": the one in force, "active":
    attempts under way from this worker}.
    """
    cdef EndpointState* state = seat.state
    cdef int64_t returned = state.returned_ns
    return {
        "status": ENDPOINT_STATUSES[endpoint_status(state, now)],
        "operator": OPERATOR_STATES[state.operator_state],
        "probe": _PROBE_STATES[state.probe_state],
        "ejected_for_s": max(0, state.ejected_until_ns - now) / 1e9,
        "ejections": state.ejections,
        "returned_for_s": (now - returned) / 1e9 if 0 < returned <= now else None,
        "success_rate": (state.success_rate - 1) / 1e6 if state.success_rate else None,
        "breaker": _BREAKER_STATES[state.breaker.state],
        "weight": state.weight or seat.weight,
        "active": seat.active,
    }
