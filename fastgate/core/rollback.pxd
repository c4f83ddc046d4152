# Automatic rollback: the judgement on what an arm did lately.

cdef struct RollbackCheck:
    # A rule of the configuration.
    int arm
    int baseline
    double error_points     # 0: off
    double p99_factor       # 0: off
    uint64_t min_samples
    WatchedWindow arm_window
    WatchedWindow baseline_window

# Sets `facts` but for its time; facts.rule is the broken rule, or RULE_NONE.
cdef void judge(
    const RollbackCheck* check, const WindowSum* arm, const WindowSum* baseline, RollbackFacts* facts
) noexcept nogil

@cython.final
cdef class RollbackWatch:
    cdef SplitRecords records
    cdef SharedTable table
    cdef list kept                  # SharedRecords of the windows
    # -- the rules, in the order of their arms
    cdef int check_count
    cdef RollbackCheck* checks
    # -- the windows that an arm's requests are counted in: first[arm] .. first[arm + 1] - 1. One for most arms; two for
    # the baseline of two rules with different windows; none for an arm that no rule looks at.
    cdef WatchedWindow* watched
    cdef int* first
    # -- room for `evaluate`
    cdef uint32_t* halves
    cdef RollbackFacts* facts

    # Counts an ended exchange of this arm. `failed`: it was answered with a 5xx, or failed at the gateway. Exchanges
    # that the client cut are not to be counted at all. Costs one increment for each window, two if it failed.
    cdef void observe(self, int arm, bint failed, int64_t latency_ns, int64_t now) noexcept nogil
    # Forgets what the arm did.
    cdef void forget(self, int arm) noexcept nogil
    cdef WatchedWindow _window(self, int arm, int64_t length_ns) except *
    cdef object _verdict(self, const RollbackCheck* check, const RollbackFacts* facts)
