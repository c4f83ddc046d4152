# Theory of operation. Readers of the weights see all old ones or all new ones, never wait, and are not harmed by a
# writer that is stopped or killed half-way. (A seqlock would give the first only: behind a writer that the system has
# put aside its readers spin.) So each arm keeps two versions in one word, its half as of generation `tag` and the half
# before that, and the route keeps the generation that counts:
#
#     tag == generation + 1   the arm is being changed: its older half counts
#     tag <= generation       its newer half counts
#     tag >  generation + 1   two changes happened since the generation was read: read it again
#
# A writer holds the lock, gives every arm a word with tag generation + 1, and then raises the generation. One that died
# in between leaves words whose older halves count, and the next writer writes all of them anew; its lock is taken by
# whoever finds that the process is gone. Tags are compared modulo 2^32: more changes than operators make.

import hashlib

from libc.errno cimport ESRCH, errno
from libc.stdlib cimport malloc
from posix.signal cimport kill
from posix.unistd cimport getpid, usleep

ROLLBACK_RULES: tuple[str, ...] = ("", "error-percent", "p99")

cdef enum:
    _SPLIT_READS = 8
    _SPLIT_PAUSES = 1000        # of 100 us


cdef class SplitRecords:
    """The shared records of a route's arms, found by their names: what they hold outlives a reload.

    table: of `split_states`. Raises MemoryError when it is full.
    """

    def __init__(self, str route not None, tuple names not None, SharedTable table not None) -> None:
        cdef int i
        if self.arms != NULL:
            raise TypeError("SplitRecords are built once")
        if table.size < sizeof(ArmState):
            raise ValueError("the table holds other records")
        self.route = route
        self.names = names
        self.count = len(names)
        self.records = [table.hold(("split", route))]
        self.state = <SplitState*>(<SharedRecord>self.records[0]).at
        self.arms = <ArmState**>malloc(<size_t>self.count * sizeof(ArmState*))
        if self.arms == NULL:
            raise MemoryError
        for i in range(self.count):
            self.records.append(table.hold(("split", route, names[i])))
            self.arms[i] = <ArmState*>(<SharedRecord>self.records[i + 1]).at

    def __dealloc__(self):
        free(self.arms)

    cdef bint read(self, uint64_t* generation, uint32_t* halves) noexcept nogil:
        cdef uint64_t word
        cdef int32_t ahead = 0
        cdef int i, attempt
        for attempt in range(_SPLIT_READS):
            generation[0] = fg_load64(&self.state.generation)
            for i in range(self.count):
                word = fg_load64(&self.arms[i].word)
                ahead = <int32_t>(<uint32_t>(word >> 32) - <uint32_t>generation[0])
                if ahead > 1:
                    break
                halves[i] = <uint32_t>(word if ahead == 1 else word >> 16) & 0xFFFF
            else:
                return True
        return False

    cdef bint begin(self, bint patient) noexcept nogil:
        cdef uint64_t mine = <uint64_t>getpid(), holder
        cdef int pauses = 0
        while not fg_cas64(&self.state.lock, 0, mine):
            holder = fg_load64(&self.state.lock)
            # Ours: of a dead process whose id we were given, since nothing of ours runs between `begin` and its end.
            if holder == mine or (holder and kill(<int>holder, 0) != 0 and errno == ESRCH):
                if fg_cas64(&self.state.lock, holder, mine):
                    break
                continue
            if not patient or pauses == _SPLIT_PAUSES:
                return False
            pauses += 1
            usleep(100)
        return True

    cdef void publish(self, const uint32_t* halves) noexcept nogil:
        cdef uint64_t generation = fg_load64(&self.state.generation)
        cdef uint32_t tag = <uint32_t>(generation + 1)
        cdef uint64_t word
        cdef int i
        for i in range(self.count):
            word = self.arms[i].word
            if <uint32_t>(word >> 32) != tag:
                word >>= 16
            fg_store64(&self.arms[i].word, <uint64_t>tag << 32 | <uint64_t>halves[i] << 16 | (word & 0xFFFF))
        fg_store64(&self.state.generation, generation + 1)
        self.abandon()

    cdef void abandon(self) noexcept nogil:
        fg_store64(&self.state.lock, 0)

    cdef int index(self, object name) except -1:
        if name not in self.names:
            raise ValueError(f"route {self.route!r} has no arm {name!r}; it has {', '.join(self.names)}")
        return self.names.index(name)


def split_states(capacity: int = 1024) -> SharedTable:
    """A table for the states of splits: one record for each route that splits, and one for each arm."""
    return SharedTable(max(sizeof(SplitState), sizeof(ArmState)), capacity)
