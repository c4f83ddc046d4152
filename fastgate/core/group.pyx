# Theory of operation. A Group sorts its seats into tiers by nearness, once; each tier has a Balancer of the configured
# policy. With every change of a state (the upstream's generation), and when time alone changes something (an ejection
# ends, a seat ramps up, a tier comes back), `rebuild` reads all states and tells the balancers who is in use and with which
# weight. A pick between two changes reads none of them: it compares a generation and a time, and asks the one tier that
# takes everything. Only a pick that excludes somebody, spills over or meets an open breaker takes the long way.
#
# Replicas agree about keys, since tables hang on addresses and weights alone; and workers about everything but the requests
# under way, which are their own.



class TierInfo(NamedTuple):
    """A tier of a Group. total: without those that the operator took out. share: of the traffic, 0 to 1.
    panic: all are used, ready or not. failed: it had nobody ready and is not back for long enough."""

    total: int
    ready: int
    share: float
    panic: bool
    failed: bool


cdef dict _BALANCERS = {
    "least-request": LeastRequest,
    "round-robin": RoundRobin,
    "peak-ewma": PeakEwma,
    "random": RandomChoice,
    "maglev": Maglev,
    "ring": Ring,
}

cdef enum:
    # A ramp's steps: a tenth of the window, and not coarser than this.
    _RAMP_STEP_NS = 100000000
    _RAMP_STEP_MIN_NS = 1000000


cdef class Group:
    """The endpoints of an upstream, and the choice among them.

    table: of UpstreamState records; name: the upstream's. seats: its endpoints, at most 65,535; see `replace`.
    balance: "least-request" (the default), "round-robin", "peak-ewma", "random", "maglev", "ring". bounded_load: with the
    last two, how far above the mean one may be loaded; 0: not bounded, else above 1.
    region, zone: where the gateway stands; an endpoint without stands there too. order: other regions, the nearest first.
    spill_over: percent (Envoy's overprovisioning factor). failback_after_ns: how long a tier that failed is back before it
    is used again. panic_threshold: percent of ready endpoints; 0: never (Envoy's, and its default).
    slow_start_ns: how long a seat that came back ramps up, from a tenth of its weight, linearly; 0: not at all.
    health: whose breakers are asked; None: there are none.

    Raises ValueError for a rule out of its range, MemoryError.
    """

    NONE = PICK_NONE
    FULL = PICK_FULL

    def __init__(
        self, SharedTable table not None, str name not None, seats=(), *, str balance="least-request",
        double bounded_load=1.25, str region="", str zone="", order=(), double spill_over=140,
        int64_t failback_after_ns=30000000000, double panic_threshold=50, int64_t slow_start_ns=0,
        UpstreamHealth health=None,
    ):
        if self.state != NULL:
            raise TypeError("a Group is built once")
        if balance not in _BALANCERS:
            raise ValueError(f"{balance!r} is no way to balance")
        if not (bounded_load == 0 or 1 < bounded_load <= 1000):
            raise ValueError("bounded_load is 0 or above 1")
        if not 0 < spill_over <= 1000000 or not 0 <= panic_threshold <= 100:
            raise ValueError("spill_over is above 0, panic_threshold is 0 to 100 percent")
        if failback_after_ns < 0 or slow_start_ns < 0:
            raise ValueError("a duration is not negative")
        if len(order) > TIERS_MAX - 3:
            raise ValueError(f"at most {TIERS_MAX - 3} regions can be in order")
        self.record = table.hold(("upstream", name))
        self.state = <UpstreamState*>self.record.at
        self.balance = balance
        self.bounded_load = bounded_load
        self.region = region
        self.zone = zone
        self.order = {}
        for other in order:
            self.order.setdefault(other, 2 + len(self.order))
        self.tier_count = 3 + <int>len(self.order)
        self.spill_over = spill_over
        self.failback_after_ns = failback_after_ns
        self.panic_threshold = panic_threshold
        self.slow_start_ns = slow_start_ns
        self.health = health
        self.epoch = 1
        self.replace(seats)

    def __dealloc__(self):
        free(self.standing)
        free(self.mark)

    def replace(self, seats: Iterable[Seat]) -> None:
        """Other endpoints from now on. What runs at a Seat that stays is known as before; positions change."""
        cdef tuple given = tuple(seats)
        cdef size_t count = <size_t>len(given)
        cdef int i, t
        cdef Balancer balancer
        cdef Standing* standing
        cdef uint64_t* mark
        if count > SEATS_MAX:
            raise ValueError(f"an upstream has at most {SEATS_MAX} endpoints")
        members = [[] for _ in range(self.tier_count)]
        for i in range(<int>count):
            members[self._tier_of(<Seat?>given[i])].append((i, given[i]))
        balancers = []
        for of_tier in members:
            balancer = None
            if of_tier:
                balancer = _BALANCERS[self.balance]()
                balancer.lay(of_tier, <int>count)
                if isinstance(balancer, HashBalancer):
                    (<HashBalancer>balancer).bound = self.bounded_load
            balancers.append(balancer)
        # Nothing is changed before all memory is there.
        standing = <Standing*>calloc(count + 1, sizeof(Standing))
        mark = <uint64_t*>calloc(count + 1, sizeof(uint64_t))
        if standing == NULL or mark == NULL:
            free(standing)
            free(mark)
            raise MemoryError
        for t in range(self.tier_count):
            balancer = <Balancer>balancers[t]
            self.balancer[t] = NULL if balancer is None else <void*>balancer
            for i in range(0 if balancer is None else balancer.place_count):
                standing[balancer.places[i].index] = Standing(balancer.places[i].seat, t, i, 0, False, False)
        free(self.standing)
        free(self.mark)
        self.standing = standing
        self.mark = mark
        self.seats = given
        self.count = <int>count
        self.balancers = balancers
        self.sole = NULL
        self.start = -1
        self.rebuild_at = -NEVER_NS

    cdef int _tier_of(self, Seat seat) except -1:
        # An endpoint that says nothing stands where the gateway stands; a gateway without a zone tells none apart.
        if seat.region and seat.region != self.region:
            return self.order.get(seat.region, self.tier_count - 1)
        return 1 if self.zone and seat.zone and seat.zone != self.zone else 0

    cdef int pick(
        self, bint keyed, uint64_t key, const int* tried, int tried_count, uint64_t random, int64_t now
    ) noexcept:
        cdef Draw draw
        cdef int found
        self._look(random, now)
        draw.random = random
        draw.key = fg_mix64(key) if keyed else random
        draw.mark = NULL
        draw.mark_from = 0
        draw.now = now
        if self.sole != NULL and tried_count == 0 and not self.any_guarded:
            found = (<Balancer>self.sole).choose(&draw)
            if found >= 0:
                return found
        return self._pick_slowly(&draw, tried, tried_count)

    cdef int _pick_slowly(self, Draw* draw, const int* tried, int tried_count) noexcept:
        # First without those who were tried, then with them; in both without those whose breaker said no.
        cdef int i, found
        self.epoch += 2
        for i in range(tried_count):
            if 0 <= tried[i] < self.count:
                self.mark[tried[i]] = self.epoch
        draw.mark = self.mark
        draw.mark_from = self.epoch
        while True:
            found = self._ask_tiers(draw)
            if found >= 0:
                if not self.standing[found].guarded or self.health is None or (
                        self.health.admits_seat(<Seat>self.standing[found].seat, draw.now)):
                    return found
                self.mark[found] = self.epoch + 1
            elif draw.mark_from == self.epoch and tried_count:
                draw.mark_from = self.epoch + 1
            else:
                return self._nobody()

    cdef int _ask_tiers(self, const Draw* draw) noexcept:
        # The tier that its share draws, then the others: those in order first, then those that are on their way back.
        # The draw is by the key where there is one, so that a key stays in its tier while the shares do.
        cdef double point = <double>(fg_mix64(draw.key) >> 11) / 9007199254740992.0
        cdef int t, failed, drawn = -1, found
        for t in range(self.tier_count):
            if self.tiers[t].share > 0:
                drawn = t
                point -= self.tiers[t].share
                if point < 0:
                    break
        if drawn >= 0:
            found = (<Balancer>self.balancer[drawn]).choose(draw)
            if found >= 0:
                return found
        for failed in range(2):
            for t in range(self.tier_count):
                if self.balancer[t] != NULL and t != drawn and self.tiers[t].failed == failed:
                    found = (<Balancer>self.balancer[t]).choose(draw)
                    if found >= 0:
                        return found
        return NOBODY

    cdef int _nobody(self) noexcept:
        # Whether it is for want of room: somebody in use is at its cap.
        cdef int i
        cdef Seat seat
        for i in range(self.count):
            seat = <Seat>self.standing[i].seat
            if self.standing[i].ramp and seat.max_requests and seat.active >= seat.max_requests:
                return PICK_FULL
        return PICK_NONE

    cdef void rebuild(self, uint64_t random, int64_t now) noexcept:
        cdef int i, k, t
        cdef Tier* tier
        cdef Standing* one
        cdef const EndpointState* state
        # The generation first: what changes behind it is seen the next time.
        self.generation = fg_load64(&self.state.generation)
        self.rebuild_at = NEVER_NS
        self.any_guarded = False
        self.sole = NULL
        if self.start < 0:
            # Not every worker begins with the same one.
            self.start = <int>(((random >> 32) * <uint64_t>self.count) >> 32)
        for t in range(self.tier_count):
            self.tiers[t].total = 0
            self.tiers[t].ready = 0
        for i in range(self.count):
            one = &self.standing[i]
            tier = &self.tiers[one.tier]
            state = (<Seat>one.seat).state
            one.ready = endpoint_status(state, now) == STATUS_READY
            # Until it is known whether its tier is in panic: whether the operator lets it be used at all.
            one.ramp = state.operator_state != OPERATOR_DRAINING and state.operator_state != OPERATOR_DOWN
            tier.ready += one.ready
            tier.total += one.ramp
            self.rebuild_at = min(self.rebuild_at, endpoint_changes_at(state, now))
        for t in range(self.tier_count):
            tier = &self.tiers[t]
            self.rebuild_at = min(self.rebuild_at, tier_fail_over(tier, self.failback_after_ns, now))
        tier_shares(self.tiers, self.tier_count, self.spill_over, self.panic_threshold)
        for t in range(self.tier_count):
            if self.balancer[t] != NULL:
                (<Balancer>self.balancer[t]).begin()
            if self.tiers[t].share >= 1:
                self.sole = self.balancer[t]
        i = self.start
        for k in range(self.count):
            one = &self.standing[i]
            state = (<Seat>one.seat).state
            if one.ready:
                one.ramp = self._ramp(state, now)
            elif one.ramp and self.tiers[one.tier].panic:
                one.ramp = RAMP_FULL
            else:
                one.ramp = 0
            # The operator's word outweighs the breaker, as it does everything.
            one.guarded = (
                one.ready and state.breaker.state != BREAKER_CLOSED and state.operator_state != OPERATOR_READY
            )
            self.any_guarded = self.any_guarded or one.guarded
            (<Balancer>self.balancer[one.tier]).tell(one.place, self._weight(one), one.ramp)
            i += 1
            if i == self.count:
                i = 0
        for t in range(self.tier_count):
            if self.balancer[t] != NULL:
                (<Balancer>self.balancer[t]).end()

    cdef int64_t _weight(self, const Standing* one) noexcept:
        # As set at run time, else as configured.
        cdef int64_t weight = (<Seat>one.seat).state.weight
        return min(weight if weight else <int64_t>(<Seat>one.seat).weight, <int64_t>WEIGHT_MAX)

    cdef int _ramp(self, const EndpointState* state, int64_t now) noexcept:
        # Envoy's slow start with its default aggression, 1, and least weight, 10 %. An ejection that time alone has ended
        # is a return too, whoever noted it.
        cdef int64_t back = state.returned_ns, step
        if self.slow_start_ns == 0:
            return RAMP_FULL
        if back < state.ejected_until_ns <= now:
            back = state.ejected_until_ns
        if back == 0 or now - back >= self.slow_start_ns:
            return RAMP_FULL
        step = max(<int64_t>_RAMP_STEP_MIN_NS, min(<int64_t>_RAMP_STEP_NS, self.slow_start_ns // 10))
        self.rebuild_at = min(self.rebuild_at, now + step)
        # A worker whose clock was read before the return was noted sees one that lies ahead.
        return RAMP_FULL // 10 + <int>(0.9 * RAMP_FULL * <double>max(<int64_t>0, now - back) / self.slow_start_ns)

    def tiers_at(self, int64_t now) -> list[TierInfo]:
        """The tiers at this moment, the nearest first: own zone, own region, those in order, the others."""
        cdef int t
        self._look(0, now)
        return [
            TierInfo(
                self.tiers[t].total, self.tiers[t].ready, self.tiers[t].share, self.tiers[t].panic, self.tiers[t].failed
            )
            for t in range(self.tier_count)
        ]

    def weights_at(self, int64_t now) -> tuple[float, ...]:
        """The weight of each seat at this moment, slow start included; 0: it is not in use."""
        cdef int i
        self._look(0, now)
        return tuple(
            [self._weight(&self.standing[i]) * self.standing[i].ramp / <double>RAMP_FULL for i in range(self.count)]
        )

    def take(self, key: int | None = None, tried: Sequence[int] = (), random: int = 0, now: int = 0) -> int:
        """`pick`, for tests: a position, Group.NONE or Group.FULL."""
        cdef int i
        cdef int[64] indices
        cdef uint64_t hashed = 0 if key is None else key
        if len(tried) > 64:
            raise ValueError("at most 64 have been tried")
        for i in range(<int>len(tried)):
            indices[i] = tried[i]
        return self.pick(key is not None, hashed, indices, <int>len(tried), random, now)
