# Theory of operation: most deadlines are moved far more often than they pass: each request moves its connection's.
# So a move writes one integer. The node stays filed under its old, earlier tick; when that tick comes up the wheel
# sees that the deadline has moved and files it again. A node is thus touched once per deadline's length, not once
# per request.

from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec


cdef int64_t skipped_ns = 0         # by tests: how far ahead of the system's clocks we are


cdef int64_t now_ns() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return <int64_t>ts.tv_sec * 1000000000 + ts.tv_nsec + skipped_ns


cdef int64_t wall_ns() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_REALTIME, &ts)
    return <int64_t>ts.tv_sec * 1000000000 + ts.tv_nsec + skipped_ns


def monotonic_ns():
    """The time that everything here goes by: that of `time.monotonic_ns`, unless a test has skipped some."""
    return now_ns()


def time_ns():
    """Likewise nanoseconds since the epoch."""
    return wall_ns()


cdef inline void _unlink(TimerNode* node) noexcept nogil:
    node.prev.next = node.next
    node.next.prev = node.prev
    node.filed = -1


cdef class Timed:
    def __cinit__(self):
        self.timer.owner = <PyObject*>self
        self.timer.filed = -1

    def __dealloc__(self):
        # Whoever arms a timer also forgets it; this is the net below that, so that the wheel can never hold
        # a dead owner (its count is then off, which the leak report shows).
        if self.timer.filed >= 0:
            _unlink(&self.timer)

    cdef int on_deadline(self, int64_t now) except -1:
        raise NotImplementedError


cdef class TimerWheel:
    def __cinit__(self):
        cdef int i
        for i in range(WHEEL_SLOTS):
            self.slots[i].next = &self.slots[i]
            self.slots[i].prev = &self.slots[i]
        self.tick = now_ns() >> TICK_SHIFT

    def __dealloc__(self):
        # Owners may outlive it by a moment, where the collector takes a whole gateway that nobody has drained.
        cdef int i
        for i in range(WHEEL_SLOTS):
            while self.slots[i].next != &self.slots[i]:
                _unlink(self.slots[i].next)

    cdef void arm(self, Timed timed, int64_t deadline_ns) noexcept:
        cdef TimerNode* node = &timed.timer
        node.deadline = deadline_ns
        if node.filed < 0:
            self.armed += 1
            self._file(node)
        elif deadline_ns >> TICK_SHIFT < node.filed:
            _unlink(node)
            self._file(node)

    cdef void _file(self, TimerNode* node) noexcept:
        cdef int64_t tick = node.deadline >> TICK_SHIFT
        cdef TimerNode* head
        if tick <= self.tick:
            tick = self.tick + 1
        elif tick >= self.tick + WHEEL_SLOTS:
            tick = self.tick + WHEEL_SLOTS - 1
        head = &self.slots[tick % WHEEL_SLOTS]
        node.filed = tick
        node.next = head
        node.prev = head.prev
        head.prev.next = node
        head.prev = node

    cdef void advance(self, int64_t now) noexcept:
        cdef int64_t until = now >> TICK_SHIFT
        cdef TimerNode due
        cdef TimerNode* head
        cdef TimerNode* node
        cdef Timed owner
        if until - self.tick > WHEEL_SLOTS:
            self.tick = until - WHEEL_SLOTS             # a long sleep: every slot is walked once
        while self.tick < until:
            self.tick += 1
            head = &self.slots[self.tick % WHEEL_SLOTS]
            if head.next == head:
                continue
            # Take the slot's list away first: what is filed again must not be walked twice.
            due.next = head.next
            due.prev = head.prev
            due.next.prev = &due
            due.prev.next = &due
            head.next = head
            head.prev = head
            while due.next != &due:
                node = due.next
                _unlink(node)
                if node.deadline == 0:
                    self.armed -= 1
                elif node.deadline > now:
                    self._file(node)
                else:
                    self.armed -= 1
                    node.deadline = 0
                    owner = <Timed>node.owner
                    try:
                        owner.on_deadline(now)
                    except BaseException as error:
                        report_defect("deadline", error)


cdef void forget_timer(TimerWheel wheel, Timed timed) noexcept:
    timed.timer.deadline = 0
    if timed.timer.filed >= 0:
        _unlink(&timed.timer)
        wheel.armed -= 1


cdef void report_defect(str where, error) noexcept:
    # A defect of ours in a place that has no exchange to answer: told on stderr, never swallowed, never fatal.
    try:
        import sys
        import traceback
        sys.stderr.write(f"fastgate: defect in {where}: " + "".join(traceback.format_exception(error)))
    except Exception:
        pass        # stderr itself is gone: nothing is left to tell it to
