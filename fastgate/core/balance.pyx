# Theory of operation. A Balancer knows the seats of one tier. The group tells it with every change who of them is in use
# and with which weight; between changes a choice reads the members alone, and what is live: how many requests are under
# way at each, in this worker (Seat.active).
#
# Two random choices (Mitzenmacher, "The power of two choices in randomized load balancing"): two members are drawn and
# the one with the lower cost is taken, the first on a tie. No loop, and no herd: workers that know only their own
# requests do not all run to the one that looks idle.
#
# Weights. The draw is by weight (Walker's alias table, as Vose builds it: one step for any number of members), and the
# load that is compared is active / weight. Of idle endpoints each so gets exactly its share, and under load those
# with twice the weight carry twice the requests. Comparing (active + 1) / weight would count the weight twice: of two
# idle ones with weights 1 and 3, both drawn, always the heavier would win, and get 15 of 16 instead of 3 of 4. (Envoy
# draws evenly while weights are alike, as we do, and else turns to a schedule by weight / (active + 1), which is a loop
# or a heap.)

from libc.math cimport exp


cdef inline bint _usable(const Member* member, const Draw* draw) noexcept:
    if draw.mark != NULL and draw.mark[member.index] >= draw.mark_from:
        return False
    return member.cap == 0 or (<Seat>member.seat).active < member.cap


cdef class Balancer:
    def __dealloc__(self):
        free(self.places)
        free(self.members)
        free(self.work)

    cdef int lay(self, list seats, int group_size) except -1:
        cdef int i
        cdef size_t count = <size_t>len(seats)
        self.places = <Place*>calloc(count, sizeof(Place))
        self.members = <Member*>calloc(count, sizeof(Member))
        self.work = <uint32_t*>calloc(count, sizeof(uint32_t))
        if self.places == NULL or self.members == NULL or self.work == NULL:
            raise MemoryError
        for i, (index, seat) in enumerate(seats):
            self.places[i].index = index
            self.places[i].seat = <void*><Seat?>seat
        self.place_count = <int>count
        return 0

    cdef void begin(self) noexcept:
        self.count = 0

    cdef void tell(self, int place, int64_t weight, int ramp) noexcept:
        cdef Member* member
        if ramp == 0:
            return
        member = &self.members[self.count]
        member.seat = self.places[place].seat
        member.index = self.places[place].index
        member.cap = (<Seat>member.seat).max_requests
        member.weight = weight * ramp
        self.count += 1

    cdef void end(self) noexcept:
        # Vose, "A linear algorithm for generating random numbers with a given distribution": columns that have less
        # than the mean are filled up by those that have more. `work` holds the poor from the front, the rich from the
        # back.
        cdef int i, poor = 0, rich = self.count, low, high
        cdef double total = 0
        cdef double* share
        self.uniform = True
        self.capped = False
        for i in range(self.count):
            self.uniform = self.uniform and self.members[i].weight == self.members[0].weight
            self.capped = self.capped or self.members[i].cap != 0
            total += <double>self.members[i].weight
        for i in range(self.count):
            # First the weight relative to the mean, which is also what is left of a column's share while it is filled.
            self.members[i].per_weight = <double>self.members[i].weight * self.count / total
            self.members[i].cut = 0xFFFFFFFF
            self.members[i].other = <uint32_t>i
            if self.members[i].per_weight < 1:
                self.work[poor] = <uint32_t>i
                poor += 1
            else:
                rich -= 1
                self.work[rich] = <uint32_t>i
        if not self.uniform:
            while poor > 0 and rich < self.count:
                poor -= 1
                low = <int>self.work[poor]
                high = <int>self.work[rich]
                share = &self.members[high].per_weight
                self.members[low].cut = <uint32_t>(self.members[low].per_weight * 4294967295.0)
                self.members[low].other = <uint32_t>high
                share[0] -= 1 - self.members[low].per_weight
                if share[0] < 1:
                    rich += 1
                    self.work[poor] = <uint32_t>high
                    poor += 1
        for i in range(self.count):
            self.members[i].per_weight = total / (<double>self.members[i].weight * self.count)

    cdef int choose(self, const Draw* draw) noexcept:
        return NOBODY

    cdef double cost(self, const Member* member, int64_t now) noexcept:
        return 0

    cdef int _cheapest(self, const Draw* draw) noexcept:
        # The draws met nobody whom they may take: the best of all, by chance among equals. Rare, so it may be a loop.
        cdef int i, best = NOBODY
        cdef double lowest = 0, cost
        cdef uint64_t lot, drawn = 0
        for i in range(self.count):
            if not _usable(&self.members[i], draw):
                continue
            cost = self.cost(&self.members[i], draw.now)
            lot = fg_mix64(draw.random + <uint64_t>i)
            if best < 0 or cost < lowest or (cost == lowest and lot > drawn):
                lowest = cost
                drawn = lot
                best = self.members[i].index
        return best


cdef inline int _drawn(Balancer self, uint32_t bits) noexcept:
    # The whole part of bits x count is a column, the fraction the coin that is thrown in it.
    cdef uint64_t product = <uint64_t>bits * <uint64_t>self.count
    cdef int i = <int>(product >> 32)
    if not self.uniform and <uint32_t>product >= self.members[i].cut:
        return <int>self.members[i].other
    return i


cdef inline int _drawn_beside(Balancer self, int first, uint64_t random) noexcept:
    # A second one, another than the first. With weights, one that outweighs all others is drawn again and again; then
    # it stands for both.
    cdef int i, k
    if self.uniform:
        i = first + 1 + <int>(((random >> 32) * <uint64_t>(self.count - 1)) >> 32)
        return i if i < self.count else i - self.count
    i = _drawn(self, <uint32_t>(random >> 32))
    for k in range(3):
        if i != first:
            break
        random = fg_mix64(random)
        i = _drawn(self, <uint32_t>random)
    return i


cdef class RandomChoice(Balancer):
    """By weight alone."""

    cdef int choose(self, const Draw* draw) noexcept:
        cdef Member* member
        cdef int i
        cdef int64_t left = 0
        if self.count == 0:
            return NOBODY
        member = &self.members[_drawn(self, <uint32_t>draw.random)]
        if _usable(member, draw):
            return member.index
        # By weight among the rest.
        for i in range(self.count):
            if _usable(&self.members[i], draw):
                left += self.members[i].weight
        if left == 0:
            return NOBODY
        left = <int64_t>(<double>(fg_mix64(draw.random) >> 32) / 4294967296.0 * <double>left)
        member = NULL
        for i in range(self.count):
            if _usable(&self.members[i], draw):
                member = &self.members[i]
                if left < member.weight:
                    break
                left -= member.weight
        return member.index


cdef inline int64_t burden(Seat seat, bint forgive) noexcept nogil:
    # One that fails has nothing to do, and would draw all requests upon itself: its failures in a row count as requests
    # that it is still busy with. Only a success ends the row, so now and then they do not count.
    return seat.active if forgive else seat.active + <int64_t>min(seat.state.errors_row, BURDEN_MOST)


cdef inline bint forgiven(uint64_t random) noexcept nogil:
    # One choice in eight.
    return (fg_mix64(random) & 7) == 0


cdef inline double _least_cost(const Member* member, bint forgive) noexcept nogil:
    return burden(<Seat>member.seat, forgive) * member.per_weight


cdef inline int _better_of_two(Balancer self, const Draw* draw, bint by_latency) noexcept:
    # Of two drawn by weight the cheaper one. `by_latency` is known where this is compiled in: nothing is asked at run time.
    cdef Member* one
    cdef Member* other
    cdef int first
    cdef bint forgive = forgiven(draw.random)
    if self.count < 2:
        return self._cheapest(draw)
    first = _drawn(self, <uint32_t>draw.random)
    one = &self.members[first]
    other = &self.members[_drawn_beside(self, first, draw.random)]
    if by_latency:
        if _ewma_cost(other, forgive, draw.now) < _ewma_cost(one, forgive, draw.now):
            one, other = other, one
    elif _least_cost(other, forgive) < _least_cost(one, forgive):
        one, other = other, one
    if _usable(one, draw):
        return one.index
    if _usable(other, draw):
        return other.index
    return self._cheapest(draw)


cdef class LeastRequest(Balancer):
    """Of two drawn by weight the one with fewer requests under way (and failures in a row), for its weight."""

    cdef double cost(self, const Member* member, int64_t now) noexcept:
        return _least_cost(member, False)

    cdef int choose(self, const Draw* draw) noexcept:
        return _better_of_two(self, draw, False)
