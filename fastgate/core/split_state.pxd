# What all workers know of a route's split: the operator's weights, and which arms are rolled back.

cdef enum:
    SPLIT_MAX_WEIGHT = 10000
    # A half of ArmState.word.
    HALF_WEIGHT = 0x3FFF        # the operator's weight + 1; 0: none, the configured one counts
    HALF_ROLLED_BACK = 0x8000   # no requests but by override, until an operator says otherwise

cdef enum RollbackRule:
    # Names in ROLLBACK_RULES.
    RULE_NONE
    RULE_ERRORS
    RULE_P99

cdef struct RollbackFacts:
    # The numbers behind a rollback. [0] is the arm, [1] its baseline.
    int64_t at_ns
    uint64_t[2] samples
    uint64_t[2] failures
    int32_t[2] p99          # histogram buckets, see counters.pxd
    double margin           # of the rule that was broken: points, or the factor
    double chance           # that two arms which are alike differ so much
    uint32_t rule           # RollbackRule

cdef struct SplitState:
    # Of a route.
    SharedKey key
    uint64_t generation     # goes up with every change of one of the arms, and makes it visible
    uint64_t lock           # the id of the process that changes something; 0: nobody

cdef struct ArmState:
    # Of an arm of a route.
    SharedKey key
    uint64_t word           # generation (32 bits), the half as of then, the half before; see split_state.pyx
    RollbackFacts facts     # of the latest rollback; means something while HALF_ROLLED_BACK is set

@cython.final
cdef class SplitRecords:
    cdef readonly str route
    cdef readonly tuple names       # of the arms
    cdef int count
    # -- shared by all workers; `records` keep them
    cdef list records               # of SharedRecord
    cdef SplitState* state
    cdef ArmState** arms

    # The halves of all arms as of one generation. False, with both undefined, if others kept changing them.
    cdef bint read(self, uint64_t* generation, uint32_t* halves) noexcept nogil
    # The right to change something, which `publish` or `abandon` gives back. False if another process has it and keeps
    # it (for 100 ms, if `patient`).
    cdef bint begin(self, bint patient) noexcept nogil
    # All arms get these halves, in one step for every reader.
    cdef void publish(self, const uint32_t* halves) noexcept nogil
    cdef void abandon(self) noexcept nogil
    cdef int index(self, object name) except -1      # ValueError for no arm of ours
