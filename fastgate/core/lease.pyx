# A lease is one word, so that holder and time change together: the holder's id in the upper 22 bits (a
# process id on Linux is below 2^22), the end in the lower 42, in steps of 2^20 ns (about a millisecond, up to
# 2^62 ns). Whoever asks looks at the word and swaps it for his own if it is free, his, or over. It is
# therefore held by one at most, as long as the holder stops what he does when his own `ttl_ns` has passed
# without a `hold` that was granted.

cdef enum:
    _LEASE_TIME_BITS = 42
    _LEASE_STEP_BITS = 20
    _LEASE_MAX_ID = (1 << 22) - 1


cdef class Lease:
    """A right that one process at a time holds and renews. name: of the right. table: of `leases()`."""

    def __init__(self, str name not None, *, SharedTable table not None):
        self.name = name
        self.record = table.hold(("lease", name))
        self.state = <LeaseState*>self.record.at

    def hold(self, id: int, int64_t now, int64_t ttl_ns) -> bool:
        """Takes or renews it until `now + ttl_ns` (monotonic ns, rounded up to a millisecond); whether `id` has it.

        id: the asker's, different for every process that lives (its process id, say), 1 to 4194303. Raises
        ValueError for numbers outside."""
        cdef uint64_t was = fg_load64(&self.state.word)
        cdef uint64_t until
        if not 1 <= id <= _LEASE_MAX_ID or not 0 < ttl_ns <= 10**18 or now < 0:
            raise ValueError(f"an id is from 1 to {_LEASE_MAX_ID}, ttl_ns from 1 to 10**18, now from 0")
        if self.holder(now) not in (None, id):
            return False
        until = (<uint64_t>(now + ttl_ns) + (1 << _LEASE_STEP_BITS) - 1) >> _LEASE_STEP_BITS
        return fg_cas64(&self.state.word, was, (<uint64_t>id << _LEASE_TIME_BITS) | until)

    def release(self, id: int) -> None:
        """Gives it up, if `id` has it: another need not wait for its end."""
        cdef uint64_t was = fg_load64(&self.state.word)
        if was >> _LEASE_TIME_BITS == <uint64_t>id:
            fg_cas64(&self.state.word, was, 0)

    def holder(self, int64_t now) -> int | None:
        """Who holds it at `now`."""
        cdef uint64_t word = fg_load64(&self.state.word)
        cdef uint64_t until = (word & ((<uint64_t>1 << _LEASE_TIME_BITS) - 1)) << _LEASE_STEP_BITS
        return word >> _LEASE_TIME_BITS if word != 0 and <int64_t>until > now else None


def leases(capacity: int = 64) -> SharedTable:
    """A table for leases."""
    return SharedTable(sizeof(LeaseState), capacity)
