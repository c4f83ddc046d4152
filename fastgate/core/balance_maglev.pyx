# Maglev hashing (Eisenbud et al., "Maglev: a fast and reliable software network load balancer", 3.4): every seat has its
# own permutation of the slots, and in turn each takes the first on its list that is still free. All so get the same number
# of slots, to one, and when a seat leaves few slots but its own change hands.
#
# With weights, a seat has a number of turns in proportion (whole numbers, summing to the table's size) and they are spread
# evenly over the time that the table takes to fill; with equal weights that is the paper's round robin. A share below one
# slot may come to none at all: such a seat is met only where others were passed over.


cdef class Maglev(HashBalancer):
    """A key's slot is one multiplication away; the way on steps through the table by a stride of the key's own."""

    def __dealloc__(self):
        free(self.slots)

    cdef int met(self, uint64_t key, int step) noexcept:
        cdef uint64_t slot = ((key >> 32) * MAGLEV_SIZE) >> 32
        if step:
            # The size is prime: every stride meets every slot.
            slot += <uint64_t>step * (1 + ((<uint64_t><uint32_t>key * (MAGLEV_SIZE - 1)) >> 32))
            slot %= MAGLEV_SIZE
        return self.slots[slot]

    cdef bint build(self) noexcept:
        cdef uint16_t* turns = <uint16_t*>malloc(MAGLEV_SIZE * sizeof(uint16_t))
        cdef uint32_t* at = <uint32_t*>malloc(<size_t>self.place_count * sizeof(uint32_t))
        cdef uint32_t* stride = <uint32_t*>malloc(<size_t>self.place_count * sizeof(uint32_t))
        cdef uint32_t place, slot
        cdef uint64_t mixed
        cdef int i
        if self.slots == NULL:
            self.slots = <uint16_t*>malloc(MAGLEV_SIZE * sizeof(uint16_t))
        if self.slots == NULL or turns == NULL or at == NULL or stride == NULL or not self._turns(turns):
            free(turns)
            free(at)
            free(stride)
            return False
        for i in range(self.place_count):
            mixed = fg_mix64(self.nodes[i].id)
            at[i] = <uint32_t>(mixed % MAGLEV_SIZE)
            stride[i] = <uint32_t>(1 + fg_mix64(mixed) % (MAGLEV_SIZE - 1))
        memset(self.slots, 0xFF, MAGLEV_SIZE * sizeof(uint16_t))      # 0xFFFF: free; no place has that number
        for i in range(MAGLEV_SIZE):
            place = turns[i]
            slot = at[place]
            while self.slots[slot] != 0xFFFF:
                slot += stride[place]
                if slot >= MAGLEV_SIZE:
                    slot -= MAGLEV_SIZE
            self.slots[slot] = <uint16_t>place
            at[place] = slot
        free(turns)
        free(at)
        free(stride)
        return True

    cdef bint _turns(self, uint16_t* turns) noexcept:
        # Whose turn is when: the k-th of n turns stands at (k + 1/2) / n of the time, sorted by counting.
        cdef uint32_t* next_turn = <uint32_t*>calloc(MAGLEV_SIZE + 1, sizeof(uint32_t))
        cdef int i, writing
        cdef int64_t total = 0, seen, count, before, k, when
        cdef const Node* node
        if next_turn == NULL:
            return False
        for i in range(self.place_count):
            total += self.nodes[i].weight
        for writing in range(2):
            seen = 0
            before = 0
            for i in range(self.place_count):
                node = &self.nodes[self.in_order[i]]
                seen += node.weight
                count = seen * MAGLEV_SIZE // total - before
                before += count
                for k in range(count):
                    when = (2 * k + 1) * MAGLEV_SIZE // (2 * count)
                    if writing:
                        turns[next_turn[when]] = <uint16_t>(node - self.nodes)
                        next_turn[when] += 1
                    else:
                        next_turn[when + 1] += 1
            if not writing:
                for i in range(1, MAGLEV_SIZE + 1):
                    next_turn[i] += next_turn[i - 1]
        free(next_turn)
        return True
