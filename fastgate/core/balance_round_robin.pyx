# Smooth weighted round robin (nginx).
#
# In each turn every endpoint that takes part gains its weight, the one with the most is chosen and pays the
# sum of the weights that took part. Over a cycle (the sum of weights) each is chosen exactly weight times,
# and its turns lie spread out (weights 5, 1, 1 give a a b a c a a) instead of in a row. A turn costs about a
# nanosecond for each endpoint.
#
# What each has gained is kept when the members are laid anew, so that frequent changes do not favour the first; but no
# more than one cycle of it, lest one whose weight was cut pays for the old one.


cdef class RoundRobin(Balancer):
    """Each in turn, by weight."""

    def __dealloc__(self):
        free(self.current)
        free(self.gain)
        free(self.kept)

    cdef int lay(self, list seats, int group_size) except -1:
        Balancer.lay(self, seats, group_size)
        self.current = <int64_t*>calloc(<size_t>self.place_count, sizeof(int64_t))
        self.gain = <int64_t*>calloc(<size_t>self.place_count, sizeof(int64_t))
        self.kept = <int64_t*>calloc(<size_t>group_size, sizeof(int64_t))
        if self.current == NULL or self.gain == NULL or self.kept == NULL:
            raise MemoryError
        return 0

    cdef void begin(self) noexcept:
        cdef int i
        for i in range(self.count):
            self.kept[self.members[i].index] = self.current[i]
        Balancer.begin(self)

    cdef void end(self) noexcept:
        cdef int i
        cdef int64_t kept, total = 0
        Balancer.end(self)
        for i in range(self.count):
            self.gain[i] = self.members[i].weight
            total += self.gain[i]
        for i in range(self.count):
            kept = self.kept[self.members[i].index]
            self.current[i] = max(-total, min(total, kept))

    cdef int choose(self, const Draw* draw) noexcept:
        cdef int i, best = NOBODY
        cdef int64_t total = 0, highest = 0, current
        cdef bint all_take_part = draw.mark == NULL and not self.capped
        for i in range(self.count):
            if not all_take_part and not _usable(&self.members[i], draw):
                continue
            current = self.current[i] + self.gain[i]
            self.current[i] = current
            total += self.gain[i]
            if best < 0 or current > highest:
                highest = current
                best = i
        if best < 0:
            return NOBODY
        self.current[best] -= total
        return self.members[best].index
