# Smooth weighted round robin.
#
# In each turn every endpoint that takes part gains its weight, the one with the most is chosen and pays the
# sum of the weights that took part. Over a cycle (the sum of weights) each is chosen exactly weight times,
# and its turns lie spread out (weights 5, 1, 1 give a a b a c a a) instead of in a row. A turn costs a few
# nanoseconds for each endpoint.


from collections.abc import Iterable, Sequence


cdef class RoundRobin:
    """Smooth weighted round robin over positions 0..len(weights)-1.

    weights: whole numbers from 1. start: turns to skip, so that workers do not all begin with the same
    endpoint. Raises ValueError for no weights or one below 1.
    """

    def __cinit__(self, weights: Sequence[int], start: int = 0) -> None:
        cdef int i
        if not weights or min(weights) < 1 or max(weights) > 1000000:
            raise ValueError("weights are whole numbers from 1 to 1000000, and there is at least one")
        self.count = len(weights)
        self.weight = <int64_t*>calloc(<size_t>self.count, sizeof(int64_t))
        self.current = <int64_t*>calloc(<size_t>self.count, sizeof(int64_t))
        if self.weight == NULL or self.current == NULL:
            raise MemoryError
        for i in range(self.count):
            self.weight[i] = weights[i]
            self.total += self.weight[i]
        for i in range(start % self.total):
            self.next()

    def __dealloc__(self):
        free(self.weight)
        free(self.current)

    cdef int next(self) noexcept nogil:
        cdef int i, best = 0
        if self.count == 1:
            return 0
        for i in range(self.count):
            self.current[i] += self.weight[i]
            if self.current[i] > self.current[best]:
                best = i
        self.current[best] -= self.total
        return best

    cdef int next_except(self, const uint64_t* excluded) noexcept nogil:
        cdef int i, best = -1
        cdef int64_t total = 0
        for i in range(self.count):
            if (excluded[i >> 6] >> (i & 63)) & 1:
                continue
            self.current[i] += self.weight[i]
            total += self.weight[i]
            if best < 0 or self.current[i] > self.current[best]:
                best = i
        if best >= 0:
            self.current[best] -= total
        return best

    cdef int mask_words(self) noexcept nogil:
        return (self.count + 63) >> 6

    def take(self, excluded: Iterable[int] = ()) -> int | None:
        """The next position, or None if all are excluded."""
        cdef uint64_t* mask
        cdef int i
        if not excluded:
            return self.next()
        mask = <uint64_t*>calloc(<size_t>self.mask_words(), sizeof(uint64_t))
        if mask == NULL:
            raise MemoryError
        try:
            for i in excluded:
                if not 0 <= i < self.count:
                    raise ValueError(f"there is no position {i}")
                mask[i >> 6] |= <uint64_t>1 << (i & 63)
            i = self.next_except(mask)
        finally:
            free(mask)
        return None if i < 0 else i
