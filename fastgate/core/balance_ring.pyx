# A ring of points (Karger et al., "Consistent hashing and random trees"; ketama gives each server 160 points). A key goes
# to the first point at or behind it, and its way on is around the ring.
#
# A seat has RING_POINTS for each unit of its weight, not 160: with those the share of one of 8 strays by 8 % (of itself),
# with 4096 by 1.5 %. A ring holds RING_POINTS_MAX; where the weights together ask for more, the points of all are halved
# until they fit, and each keeps the first of its points. Crossing such a limit moves half of the keys: there is one above
# 128, 256, 512 ... weights in all. Between them a seat that comes or goes moves no key but its own, which Maglev cannot say.

cdef enum:
    _RING_BITS = 16


cdef class Ring(HashBalancer):
    """A key's point is found by the upper bits of both."""

    def __dealloc__(self):
        free(self.points)
        free(self.first)

    cdef int met(self, uint64_t key, int step) noexcept:
        cdef uint32_t i = self.first[key >> (64 - _RING_BITS)]
        while i < self.count_points and self.points[i] < key:
            i += 1
        i += <uint32_t>step
        while i >= self.count_points:
            i -= self.count_points
        return <int>(self.points[i] & 0xFFFF)

    cdef bint build(self) noexcept:
        # Sorted by counting the upper bits, then each of the small buckets by insertion.
        cdef int64_t total = 0, count, k
        cdef int halved = 0, i, writing
        cdef uint32_t at, begin, size = 0
        cdef uint64_t point
        cdef const Node* node
        for i in range(self.place_count):
            total += self.nodes[i].weight
        while (total * RING_POINTS) >> halved > RING_POINTS_MAX:
            halved += 1
        for i in range(self.place_count):
            size += <uint32_t>max(<int64_t>1, (self.nodes[i].weight * RING_POINTS) >> halved)
        free(self.points)
        free(self.first)
        self.points = <uint64_t*>malloc(size * sizeof(uint64_t))
        self.first = <uint32_t*>calloc((1 << _RING_BITS) + 1, sizeof(uint32_t))
        self.count_points = size
        if self.points == NULL or self.first == NULL:
            return False
        for writing in range(2):
            for i in range(self.place_count):
                node = &self.nodes[i]
                count = max(<int64_t>1, (node.weight * RING_POINTS) >> halved)
                point = fg_mix64(node.id)
                for k in range(count):
                    point = fg_mix64(point)
                    at = <uint32_t>(point >> (64 - _RING_BITS))
                    if writing:
                        self.first[at] -= 1
                        self.points[self.first[at]] = (point & ~<uint64_t>0xFFFF) | <uint64_t>i
                    else:
                        self.first[at] += 1
            if not writing:
                for i in range(1, (1 << _RING_BITS) + 1):
                    self.first[i] += self.first[i - 1]
        for i in range(1 << _RING_BITS):
            begin = self.first[i]
            for at in range(begin + 1, self.first[i + 1]):
                point = self.points[at]
                while at > begin and self.points[at - 1] > point:
                    self.points[at] = self.points[at - 1]
                    at -= 1
                self.points[at] = point
        return True
