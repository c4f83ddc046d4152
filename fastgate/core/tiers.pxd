# How much of the traffic each tier of endpoints takes: nearest first, spilling over by health.

cdef enum:
    TIERS_MAX = 35              # own zone, own region, 32 named regions, the rest

cdef struct Tier:
    # -- counted with every change
    int total                   # without those that the operator took out
    int ready
    # -- fail-over and the way back
    bint failed                 # it had nobody ready, and has not been back for long enough
    int64_t ready_since         # when it had somebody again; -1: it has not
    # -- decided
    double share                # of the traffic; they sum to 1 if any is there
    bint panic                  # all are used, ready or not

# Sees to `failed`; returns when it is to be asked again for time's sake alone (NEVER_NS: never).
cdef int64_t tier_fail_over(Tier* tier, int64_t failback_after_ns, int64_t now) noexcept nogil
# Sets `share` and `panic` of all. `spill_over` and `panic_threshold` in percent.
cdef void tier_shares(Tier* tiers, int count, double spill_over, double panic_threshold) noexcept nogil
