# Theory of operation.
#
#     state     result    then
#     unknown   ok        up, at once (Envoy: the first passing check is enough)
#     unknown   failed    down after `fall` in a row; in use until then (HAProxy, NGINX Plus: no check yet, no harm)
#     up        failed    down after `fall` in a row; one that passes makes the count begin anew
#     down      ok        up after `rise` in a row; one that fails makes the count begin anew
#
# `probe_streak` counts the results in a row that speak against the present state. HAProxy takes a new server
# down at its first failure; that is one lost packet, and the reason why we do not. One process writes these
# words, so they need no atomics.


cdef bint probe_result(
    EndpointState* state, UpstreamState* upstream, bint ok, int rise, int fall, int64_t now
) noexcept nogil:
    cdef bint down = state.probe_state == PROBE_DOWN
    if ok != down:
        # It is as we thought it is.
        state.probe_streak = 0
        if down or state.probe_state == PROBE_UP:
            return False
        state.probe_state = PROBE_UP
        upstream_changed(upstream)
        return True
    state.probe_streak += 1
    if <int64_t>state.probe_streak < (rise if down else fall):
        return False
    state.probe_streak = 0
    if down:
        state.returned_ns = now
        state.errors_row = 0                # what it did before it was down is no load of the one that came back
        state.gateway_row = 0
        state.probe_state = PROBE_UP
    else:
        state.probe_state = PROBE_DOWN
    upstream_changed(upstream)
    return True
