# Deadlines without timer handles: one wheel and one tick for all connections of a worker.

from cpython.object cimport PyObject

cdef enum:
    TICK_SHIFT = 25             # a tick is 2^25 ns: 33.6 ms, the grain of every deadline
    WHEEL_SLOTS = 2048          # 69 s around; what lies further is filed again on the way

cdef struct TimerNode:
    TimerNode* next
    TimerNode* prev
    PyObject* owner             # borrowed: the owner holds the node, and unlinks it when it goes
    int64_t deadline            # 0: none
    int64_t filed               # the tick it lies in; -1: not in the wheel

cdef class Timed:
    # Something with one deadline at a time: a connection, a waiting exchange.
    cdef TimerNode timer
    # Called once when the deadline has passed; may arm again. An error here is the gateway's own defect.
    cdef int on_deadline(self, int64_t now_ns) except -1

@cython.final
cdef class TimerWheel:
    cdef TimerNode[WHEEL_SLOTS] slots   # heads of circular lists
    cdef int64_t tick                   # the last one that was walked
    cdef readonly int armed             # nodes filed

    # Moves a deadline. Later than before costs a store: the node stays where it is and is filed again when its slot
    # comes up. Only an earlier one moves it at once.
    cdef void arm(self, Timed timed, int64_t deadline_ns) noexcept
    cdef void _file(self, TimerNode* node) noexcept
    # Runs what is due. Errors of single owners are reported through `sys.unraisablehook` and do not stop the others.
    cdef void advance(self, int64_t now_ns) noexcept

cdef inline void disarm(Timed timed) noexcept:
    timed.timer.deadline = 0

cdef void forget_timer(TimerWheel wheel, Timed timed) noexcept
