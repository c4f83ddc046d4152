# Theory of operation. There are as many slots as requests may be under way. A request takes a slot, or waits for one in the
# list of its priority, or is sent away. A slot that comes free goes to the first list that has somebody: critical, normal,
# sheddable. Sheddable requests may fill 80 % of the slots and of the queue, so that there is always some room for others
# before they have to push; and a full queue makes room by sending away one of a lower priority.
#
# Which of a list is next, the order says. "adaptive" is Facebook's (Maurer, "Fail at Scale", ACM Queue 2015: adaptive LIFO
# with controlled delay, after CoDel): a queue that empties now and then absorbs a burst, and oldest first is fair; one that
# has not been empty for 100 ms stands, whoever waits it out is served too late, and so the newest come first and a newcomer
# waits only a twentieth of the time. What cannot be served is then refused quickly instead of slowly, and what is served
# has waited little. When newest come first and the queue is full, the oldest of the same priority gives its place to the
# newcomer.
#
# Every operation is O(1). Nothing expires in here: a waiter whose timer runs late may still be served.

PRIORITY_NAMES: tuple[str, ...] = ("critical", "normal", "sheddable")
_ORDERS: dict[str, int] = {
    "adaptive": ORDER_ADAPTIVE, "oldest-first": ORDER_OLDEST_FIRST, "newest-first": ORDER_NEWEST_FIRST,
}


cdef class Admission:
    """The slots of one upstream in this worker, and the queue for them.

    limit: slots; 0: any number. adaptive: a GradientLimit between min_limit and max_limit decides, and `limit` is where it
    begins (0: 20). queue: how many may wait, 0 .. 100,000. queue_timeout_ns: for how long. order: "adaptive",
    "oldest-first" or "newest-first". Raises ValueError.
    """

    def __init__(
        self, *, int limit=0, bint adaptive=False, int min_limit=4, int max_limit=1000, int queue=128,
        int64_t queue_timeout_ns=500000000, str order not None="adaptive",
    ):
        cdef int i
        if self.nodes != NULL:
            raise TypeError("an Admission is built once")
        if limit < 0 or queue_timeout_ns < 0:
            raise ValueError("a limit or time is not negative")
        if not 0 <= queue <= QUEUE_MOST:
            raise ValueError(f"a queue has 0 to {QUEUE_MOST} places")
        if order not in _ORDERS:
            raise ValueError(f"{order!r} is not one of {', '.join(_ORDERS)}")
        self.order = _ORDERS[order]
        self.queue = queue
        self.queue_timeout_ns = queue_timeout_ns
        if adaptive:
            self.gradient = GradientLimit(min_limit=min_limit, max_limit=max_limit, begin=limit)
            limit = self.gradient.limit()
        self._set_limit(limit)
        for i in range(PRIORITIES):
            self.queue_room[i] = queue * SHEDDABLE_PERCENT // 100 if i == PRIORITY_SHEDDABLE else queue
        self.nodes = <WaitNode*>calloc(<size_t>queue + 1, sizeof(WaitNode))
        if self.nodes == NULL:
            raise MemoryError
        for i in range(1, queue):
            self.nodes[i].newer = i + 1
        self.free = 1 if queue else 0
        self.who = [None] * (queue + 1)
        self.places = {}

    def __dealloc__(self):
        free(self.nodes)

    cdef void _set_limit(self, int limit) noexcept nogil:
        cdef int i, room = limit if limit else 0x7FFFFFFF
        self.limit = limit
        for i in range(PRIORITIES):
            self.room[i] = room
        # Of few slots, one at least.
        self.room[<int>PRIORITY_SHEDDABLE] = <int>max(<int64_t>1, <int64_t>room * SHEDDABLE_PERCENT // 100)

    cpdef bint enter(self, int priority, int64_t now) noexcept nogil:
        """Takes a slot, if there is one and nobody of this or a higher priority waits for it."""
        cdef int i
        if self.waiting:
            for i in range(priority + 1):
                if self.lists[i].count:
                    return False
        if self.active >= self.room[priority]:
            return False
        self.active += 1
        return True

    cdef bint _newest_first(self, int priority, int64_t now) noexcept nogil:
        cdef WaitList* waiters = &self.lists[priority]
        if self.order == ORDER_ADAPTIVE:
            return waiters.count > 0 and now - waiters.since_ns > STANDING_NS
        return self.order == ORDER_NEWEST_FIRST

    cpdef int64_t wait_ns(self, int priority, int64_t now) noexcept nogil:
        """Nanoseconds that one who is offered now may wait."""
        if self.order == ORDER_ADAPTIVE and self._newest_first(priority, now):
            return min(
                self.queue_timeout_ns,
                max(self.queue_timeout_ns // STANDING_WAIT_PART, <int64_t>STANDING_WAIT_LEAST_NS),
            )
        return self.queue_timeout_ns

    cdef int _victim(self, int priority, int64_t now) noexcept nogil:
        # Who gives its place to a newcomer of this priority: of the lowest priority below it, the one that would be served
        # last. 0: nobody.
        cdef int i
        for i in range(PRIORITIES - 1, priority, -1):
            if self.lists[i].count:
                return self.lists[i].oldest if self._newest_first(i, now) else self.lists[i].newest
        return self.lists[priority].oldest if self._newest_first(priority, now) else 0

    cpdef object offer(self, object who, int priority, int64_t now):
        """Lets `who` wait. Returns who has to be sent away for it: None, another, or `who` itself. Raises ValueError if it
        waits already."""
        cdef object other = None
        cdef WaitList* waiters = &self.lists[priority]
        cdef WaitNode* node
        cdef int at
        if who in self.places:
            raise ValueError("it waits already")
        if self.waiting >= self.queue_room[priority]:
            at = self._victim(priority, now)
            if at == 0:
                self.refused += 1
                return who
            other = self._take(at)
            self.evicted += 1
        at = self.free
        self.places[who] = at
        self.who[at] = who
        node = &self.nodes[at]
        self.free = node.newer
        node.priority = priority
        node.newer = 0
        node.older = waiters.newest
        if waiters.count:
            self.nodes[waiters.newest].newer = at
        else:
            waiters.oldest = at
            waiters.since_ns = now
        waiters.newest = at
        waiters.count += 1
        self.waiting += 1
        self.queued += 1
        return other

    cdef object _take(self, int at):
        cdef WaitNode* node = &self.nodes[at]
        cdef WaitList* waiters = &self.lists[node.priority]
        cdef object who = self.who[at]
        if node.older:
            self.nodes[node.older].newer = node.newer
        else:
            waiters.oldest = node.newer
        if node.newer:
            self.nodes[node.newer].older = node.older
        else:
            waiters.newest = node.older
        waiters.count -= 1
        self.waiting -= 1
        self.who[at] = None
        node.newer = self.free
        self.free = at
        del self.places[who]
        return who

    cpdef int withdraw(self, object who) except -1:
        """Takes it out of the queue; 1 if it was there, else 0."""
        cdef object at = self.places.get(who)
        if at is None:
            return 0
        self._take(at)
        return 1

    cpdef object leave(self, int64_t latency_ns, bint ok, int64_t now):
        """Gives a slot back; returns one that waited and has a slot now, or None."""
        if ok and self.gradient is not None:
            self._set_limit(self.gradient.observe(latency_ns, self.active, now))
        if self.active > 0:
            self.active -= 1
        return self.next(now)

    cpdef object next(self, int64_t now):
        """One that waited and has a slot now, or None if there is nobody, or no slot."""
        cdef int i
        if self.waiting:
            for i in range(PRIORITIES):
                if self.lists[i].count:
                    if self.active >= self.room[i]:
                        return None
                    self.active += 1
                    return self._take(self.lists[i].newest if self._newest_first(i, now) else self.lists[i].oldest)
        return None
