# Theory of operation. A table (Maglev or ring) is made of all seats of a tier, whoever is in use. A key meets seats in an
# order of its own: its slot first, then the next on its way, and goes to the first that takes it. So an ejected seat
# loses its keys, each to the next on that key's way, no other key moves, and when it comes back it gets the same keys:
# nothing is rebuilt. Only other seats, or another weight, make another table.
#
# A seat that ramps up takes the part of its keys that a second hash picks, more and more of the same ones.
#
# Bounded load (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads"): nobody has more than
# ceil(bound x (all requests under way + 1) x its share of the weights); a key that meets a seat at its bound goes on. The
# requests are those of this worker.

from libc.math cimport ceil, log

cdef enum:
    _HASH_ALL = 0x7FFFFFFF
    _HASH_STEPS = 128           # then rendezvous: at most one of 8 seats in use, and still 1 key in 26 million comes so far


cdef inline bint _takes(const Node* node, const Draw* draw) noexcept:
    if node.accept == 0 or (draw.mark != NULL and draw.mark[node.index] >= draw.mark_from):
        return False
    return node.cap == 0 or (<Seat>node.seat).active < node.cap


cdef class HashBalancer(Balancer):
    def __dealloc__(self):
        free(self.nodes)
        free(self.in_order)
        free(self.in_use)

    cdef int lay(self, list seats, int group_size) except -1:
        cdef int i
        cdef size_t count = <size_t>len(seats)
        cdef Node* node
        Balancer.lay(self, seats, group_size)
        self.nodes = <Node*>calloc(count, sizeof(Node))
        self.in_order = <uint32_t*>calloc(count, sizeof(uint32_t))
        self.in_use = <uint32_t*>calloc(count, sizeof(uint32_t))
        if self.nodes == NULL or self.in_order == NULL or self.in_use == NULL:
            raise MemoryError
        for i in range(self.place_count):
            node = &self.nodes[i]
            node.seat = self.places[i].seat
            node.index = self.places[i].index
            node.id = (<Seat>node.seat).id
        for i, place in enumerate(sorted(range(self.place_count), key=lambda at: (<Seat>self.nodes[<int>at].seat).id)):
            self.in_order[i] = place
            if i and (<Seat>self.nodes[self.in_order[i - 1]].seat).id == self.nodes[self.in_order[i]].id:
                self.nodes[self.in_order[i]].id = self.nodes[self.in_order[i - 1]].id + 1
        self.stale = True
        return 0

    cdef void tell(self, int place, int64_t weight, int ramp) noexcept:
        cdef Node* node = &self.nodes[place]
        if node.weight != weight:
            node.weight = weight
            self.stale = True
        node.ramp = ramp
        node.cap = (<Seat>node.seat).max_requests
        if ramp:
            self.in_use[self.count] = <uint32_t>place
            self.count += 1

    cdef void end(self) noexcept:
        cdef int i, highest = 1
        cdef double total = 0
        cdef Node* node
        for i in range(self.count):
            node = &self.nodes[self.in_use[i]]
            highest = max(highest, node.ramp)
            total += <double>(node.weight * node.ramp)
        for i in range(self.place_count):
            node = &self.nodes[i]
            # Against the highest: where all ramp up together each takes all of its keys.
            node.accept = <uint32_t>(<int64_t>_HASH_ALL * node.ramp // highest)
            node.share = <double>(node.weight * node.ramp) / total if total else 0

    cdef bint build(self) noexcept:
        return False

    cdef int met(self, uint64_t key, int step) noexcept:
        return 0

    cdef int64_t _active(self) noexcept:
        cdef int i
        cdef int64_t active = 0
        for i in range(self.count):
            active += (<Seat>self.nodes[self.in_use[i]].seat).active
        return active

    cdef int choose(self, const Draw* draw) noexcept:
        cdef int step, active
        cdef int64_t load = 0
        cdef const Node* node
        if self.count == 0:
            return NOBODY
        if self.stale:
            self.stale = False
            self.built = self.build()
        for step in range(_HASH_STEPS if self.built else 0):
            node = &self.nodes[self.met(draw.key, step)]
            if not _takes(node, draw):
                continue
            if node.accept < _HASH_ALL and <uint32_t>(fg_mix64(draw.key ^ node.id) >> 33) >= node.accept:
                continue
            active = (<Seat>node.seat).active
            if self.bound and active:           # the bound is never below 1: an idle one need not ask
                if load == 0:
                    load = self._active() + 1
                if active >= ceil(self.bound * <double>load * node.share):
                    continue
            return node.index
        return self._by_rendezvous(draw, load if load else self._active() + 1)

    cdef int _by_rendezvous(self, const Draw* draw, int64_t load) noexcept:
        # Thaler and Ravishankar, "Using name-based mappings to increase hit rates"; with weights by Schindelhauer and
        # Schomaker's logarithmic method. Those below their bound first; if there is none, the bound has to give way to
        # those who are full or were tried.
        cdef int i, best, bounded
        cdef double score, highest
        cdef const Node* node
        for bounded in range(1 if self.bound else 0, -1, -1):
            best = NOBODY
            highest = -1
            for i in range(self.count):
                node = &self.nodes[self.in_use[i]]
                if not _takes(node, draw):
                    continue
                if bounded and (<Seat>node.seat).active >= ceil(self.bound * <double>load * node.share):
                    continue
                score = -node.share / log((<double>(fg_mix64(draw.key ^ node.id) >> 12) + 0.5) / 4503599627370496.0)
                if score > highest:
                    highest = score
                    best = node.index
            if best >= 0:
                return best
        return NOBODY
