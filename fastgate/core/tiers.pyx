# Theory of operation. The tiers stand in the order of nearness. The health of one is ready / total x spill_over, at most
# 1: with 140 % a tier gives nothing away until less than 1 / 1.4 of it is ready. Each takes as much of the traffic as its
# health, the nearest first, until all is taken (Envoy's priority levels; its names: overprovisioning factor, panic
# threshold).
#
# Where the health of all together falls short, each takes in proportion to it, and a tier of which less than
# `panic_threshold` percent is ready is in panic: it is used whole, since few that are overrun do not help, and what so
# many probes say is more likely wrong about the endpoints than right. If nobody is ready anywhere, nobody is used (here
# Envoy uses all): then the answer is a 503 at once, not the wait for a connection to who is known to be gone. With a single
# tier the threshold holds whatever spill_over is: there is nowhere to go.
#
# A tier that had nobody ready has failed over. It comes back when it has had somebody ready for failback_after without a
# break; until then it takes only what all others cannot.


cdef int64_t tier_fail_over(Tier* tier, int64_t failback_after_ns, int64_t now) noexcept nogil:
    if tier.total == 0:
        # Empty, or the operator took out all: his word, and he is believed at once when he takes it back.
        tier.failed = False
        return NEVER_NS
    if tier.ready == 0:
        tier.failed = True
        tier.ready_since = -1
        return NEVER_NS
    if not tier.failed:
        return NEVER_NS
    if tier.ready_since < 0:
        tier.ready_since = now
    if now - tier.ready_since >= failback_after_ns:
        tier.failed = False
        return NEVER_NS
    return tier.ready_since + failback_after_ns


cdef void tier_shares(Tier* tiers, int count, double spill_over, double panic_threshold) noexcept nogil:
    cdef int t, failed, populated = 0, ready = 0
    cdef double left = 1
    for t in range(count):
        tiers[t].share = 0
        tiers[t].panic = False
        ready += tiers[t].ready
        populated += tiers[t].total > 0
    if ready == 0:
        return
    for failed in range(2):
        for t in range(count):
            if tiers[t].ready and tiers[t].failed == failed:
                tiers[t].share = min(left, spill_over * tiers[t].ready / (100 * tiers[t].total))
                left = max(0.0, left - tiers[t].share)
    if left < 1e-9:
        left = 0
    for t in range(count):
        tiers[t].share /= 1 - left
        if left > 0 or populated == 1:
            tiers[t].panic = 100.0 * tiers[t].ready < panic_threshold * tiers[t].total
