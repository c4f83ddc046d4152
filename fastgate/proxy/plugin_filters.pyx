# Native filters that stand beside plugins: limits that have to be waited for, and filters for some consumers alone.

cdef class Ticket:
    """One decision that is waited for. ``settle`` it once; what comes later is not heard."""

    @property
    def cancelled(self):
        """The exchange is over: nobody waits any more."""
        return self.run is None or self.run.x is None

    def settle(self, bint refused, str code="", bytes lines=b""):
        """refused: the exchange ends with the reason ``code``. lines: whole field lines for whatever answer goes out."""
        cdef PluginRun run = self.run
        if self.settled:
            return
        self.settled = True
        self.reason = _REASON_BY_CODE[code] if refused else R_NONE
        self.lines = lines
        if run is not None and run.ticket is self and run.suspended:
            run._wake()


cdef class PendingFilter(NativeFilter):
    """A limit whose decision may have to be waited for. ``begin(key, ticket)`` is called with 16 bytes that stand for the
    request's key, and settles the ticket, at once or later; it has ``timeout_ns`` for that, then the answer is 503.

    charge: ``charge(key, tokens)``, called with what ``cost_header`` of the upstream's answer says beyond ``cost``. scope_route: the route
    is a part of the key.
    """

    def __init__(self, str name, RequestKey key not None, begin not None, *, int64_t cost=1, bint per_route=False, charge=None,
                 str cost_header="", int64_t timeout_ns=1000000000):
        self.name = name
        self.key = key
        self.begin = begin
        self.cost = cost
        self.per_route = per_route
        self.charge = charge if cost_header else None
        self.cost_header = cost_header.lower().encode("ascii")
        self.timeout_ns = timeout_ns

    cdef bint waits(self) noexcept:
        return True

    cdef bint observes(self) noexcept:
        return self.charge is not None

    cdef int observe(self, Exchange x, ResponseHead* head) except -1:
        cdef int64_t cost = cost_of(head, self.cost_header)
        if cost >= 0:
            self.charge(self._key_of(x), cost - self.cost)
        return 0

    cdef Ticket start(self, PluginRun run):
        cdef Ticket ticket = Ticket()
        ticket.run = run
        ticket.cost = self.cost
        ticket.timeout_ns = self.timeout_ns
        ticket.key = self._key_of(run.x)
        run.ticket = ticket
        self.begin(ticket.key, ticket)
        return ticket

    cdef bytes _key_of(self, Exchange x):
        cdef Hash128 key = self.key.every(&x.view, x.route.id if self.per_route else 0)
        return (<char*>&key)[:sizeof(key)]


cdef class OnlyFor(NativeFilter):
    """Another filter, for some consumers alone: by name, or by their plan."""

    def __init__(self, NativeFilter inner not None, consumers=(), str plan=""):
        self.name = inner.name
        self.inner = inner
        self.consumers = frozenset([each.encode() for each in consumers])
        self.plan = plan

    cdef bint applies(self, Exchange x) except -1:
        if self.consumers and (x.consumer_name is None or x.consumer_name not in self.consumers):
            return False
        return not self.plan or (x.consumer_plan is not None and x.consumer_plan == self.plan)

    cdef int check(self, Exchange x) except -1:
        return self.inner.check(x) if self.applies(x) else R_NONE

    cdef bint waits(self) noexcept:
        return self.inner.waits()

    cdef bint observes(self) noexcept:
        return self.inner.observes()

    cdef int observe(self, Exchange x, ResponseHead* head) except -1:
        return self.inner.observe(x, head) if self.applies(x) else 0
