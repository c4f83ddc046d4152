# See upstream_health.pxd for the contract.

cdef enum:
    _MAX_WEIGHT = 1000000


cdef int _position(tuple names, object name) except -1:
    if name not in names:
        raise ValueError(f"{name!r} is none of {', '.join(names)}")
    return names.index(name)


cdef class UpstreamHealth:
    """What is known of an upstream's health, and who may say something about it.

    name: the upstream's. table: of `upstream_states()`. outlier, breaker: None for off. per: what the breaker
    watches, "both", "endpoint" or "upstream". Raises ValueError for another `per`, MemoryError when the table
    is full.

    All times are monotonic, in nanoseconds. `seats` are all Seats of the upstream.
    """

    def __init__(
        self, str name not None, *, SharedTable table not None, OutlierRule outlier=None,
        BreakerRule breaker=None, per: str = "both",
    ):
        cdef bint breaks = breaker is not None and breaker.error_percent > 0
        _position(("both", "endpoint", "upstream"), per)
        self.name = name
        self.record = table.hold(("upstream", name))
        self.state = <UpstreamState*>self.record.at
        self.outlier = outlier
        self.breaker = breaker
        self.endpoint_breakers = breaks and per != "upstream"
        self.upstream_breaker = breaks and per != "endpoint"

    cdef void report_attempt(self, Seat seat, tuple seats, int outcome, int64_t now) noexcept:
        cdef bint failed = outcome != OUTCOME_OK
        if self.outlier is not None:
            self.outlier.report(seat, seats, self.state, outcome, now)
        elif failed:
            fg_add32(&seat.state.errors_row, 1)     # a balancer heeds it
        elif seat.state.errors_row != 0:
            seat.state.errors_row = 0
        if self.endpoint_breakers and self.breaker.report(&seat.state.breaker, self.state, failed, now):
            seat.state.returned_ns = now
        if self.upstream_breaker:
            self.breaker.report(&self.state.breaker, self.state, failed, now)

    cpdef bint admits(self, int64_t now) noexcept:
        """Whether the upstream's breaker lets an attempt through at `now`."""
        return not self.upstream_breaker or self.breaker.admits(&self.state.breaker, self.state, now)

    cpdef bint admits_seat(self, Seat seat, int64_t now) noexcept:
        """Whether the endpoint's breaker lets an attempt through at `now`."""
        return (
            not self.endpoint_breakers or seat.state.operator_state == OPERATOR_READY
            or self.breaker.admits(&seat.state.breaker, self.state, now)
        )

    def report(self, Seat seat not None, tuple seats not None, str outcome not None, int64_t now) -> None:
        """That an attempt ended with one of OUTCOMES."""
        if not all(isinstance(each, Seat) for each in seats):
            raise TypeError("seats are Seats")
        self.report_attempt(seat, seats, _position(OUTCOMES, outcome), now)

    def probe(self, Seat seat not None, bint ok, int rise, int fall, int64_t now) -> bool:
        """That an active check passed or failed; whether the endpoint's probe state changed. For one worker.

        rise, fall: results in a row that bring it back and take it out, from 1."""
        if rise < 1 or fall < 1:
            raise ValueError("rise and fall are 1 or more")
        return probe_result(seat.state, self.state, ok, rise, fall, now)

    def set_operator(self, Seat seat not None, str state not None, int64_t now) -> None:
        """An operator's word: one of OPERATOR_STATES; "auto" takes it back. In force in all workers."""
        cdef int before = endpoint_status(seat.state, now)
        seat.state.operator_state = _position(OPERATOR_STATES, state)
        if before != STATUS_READY and endpoint_status(seat.state, now) == STATUS_READY:
            seat.state.returned_ns = now
        upstream_changed(self.state)

    def set_weight(self, Seat seat not None, weight: int | None) -> None:
        """A weight, 1 to 1000000, in place of the configured one; None: the configured one again."""
        if weight is not None and not 1 <= weight <= _MAX_WEIGHT:
            raise ValueError(f"a weight is a number from 1 to {_MAX_WEIGHT}; to send nothing, use draining")
        seat.state.weight = 0 if weight is None else weight
        upstream_changed(self.state)

    def joined(self, Seat seat not None, int64_t now) -> None:
        """That an endpoint was added while the upstream was in use: its slow start begins."""
        seat.state.returned_ns = now
        upstream_changed(self.state)

    @property
    def generation(self) -> int:
        """Goes up with every change that a balancer must see, whichever worker made it."""
        return fg_load64(&self.state.generation)

    @property
    def breaker_state(self) -> str:
        """Of the upstream as a whole: "closed", "open" or "half-open"."""
        return _BREAKER_STATES[self.state.breaker.state]

    def take_lock(self, int64_t now) -> None:
        """Takes the lock of ejections and keeps it, as a worker that dies with it would; for the tests."""
        fg_store64(&self.state.lock, <uint64_t>now)
