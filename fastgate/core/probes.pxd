# What the results of active checks make of an endpoint.

# One result of a check, by the one worker that runs them (see lease.pxd). `rise` and `fall` count results in
# a row, from 1. Whether `probe_state` changed; then balancers are told.
cdef bint probe_result(
    EndpointState* state, UpstreamState* upstream, bint ok, int rise, int fall, int64_t now
) noexcept nogil
