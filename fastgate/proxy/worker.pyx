# What all connections of one event loop share: time, scratch memory, records, and the list of who is here.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport malloc

import os
import time
import weakref

cdef extern from *:
    """
    #ifndef FASTGATE_FREE_EXCHANGES
    #define FASTGATE_FREE_EXCHANGES 256
    #endif
    """
    # Kept for the next requests. With none (tools/sanitize.sh) an address sanitizer sees who uses one that is over.
    const int FREE_EXCHANGES "FASTGATE_FREE_EXCHANGES"


cdef double TICK_SECONDS = (1 << TICK_SHIFT) / 1e9


cdef (int64_t, int64_t, int64_t) _connections_of(Upstream upstream) except *:
    # Open, idle, and requests that wait for one.
    cdef Endpoint endpoint
    cdef int64_t open = 0, idle = 0, waiting = 0
    for endpoint in upstream.group.seats:
        open += endpoint.open - endpoint.connecting
        idle += endpoint.idle.count
        waiting += len(endpoint.waiting)
    return open, idle, waiting


cdef class Worker:
    """One event loop's worth of gateway.

    loop: the running asyncio or uvloop loop. log: an AccessLog or None. max_connections, max_per_address: caps on
    downstream connections; 0 for none. flush_interval: nanoseconds between flushes of the access log.
    """

    def __cinit__(self):
        self.field_room = 64
        self.fields = <Field*>malloc(self.field_room * sizeof(Field))
        if self.fields == NULL:
            raise MemoryError()

    def __init__(self, loop, AccessLog log, Counters counters not None, *, max_connections, max_per_address,
                 flush_interval):
        cdef bytes prefix
        self.loop = loop
        self.log = log
        self.counters = counters
        self.wheel = TimerWheel()
        self.free_exchanges = Stack()
        random_seed(&self.random)
        random_seed(&self.trace_random)
        self.tls_scratch = bytearray(TLS_SCRATCH)
        self.inner = set()
        self.downstreams = set()
        self.upstreams = set()
        self.connectors = set()
        self.per_address = {}
        self.watched = ()
        self.unwatched = []
        self.shown_endpoints = []
        self.retired = weakref.WeakSet()
        self.limit(max_connections, max_per_address)
        self.flush_every = flush_interval
        self.flush_ns = now_ns() + flush_interval
        self.wall_offset = wall_ns() - now_ns()
        self.date_second = -1
        prefix = os.urandom(8).hex().encode()
        memcpy(self.id_prefix, PyBytes_AS_STRING(prefix), 16)
        self.id_next = int.from_bytes(os.urandom(8), "little")
        self.tick_handle = loop.call_later(TICK_SECONDS, self._tick)

    def __dealloc__(self):
        free(self.fields)
        out_free(&self.out)
        out_free(&self.gathered)

    # -- time ----------------------------------------------------------------------------------------------------

    def _tick(self):
        cdef int64_t now = now_ns()
        self.wall_offset = wall_ns() - now
        self.wheel.advance(now)
        if self.log is not None and now >= self.flush_ns:
            self.flush_ns = now + self.flush_every
            self.log.hand_over()
        if now >= self.gauges_ns:
            self.gauges_ns = now + SECOND
            self.show_gauges()
        self.tick_handle = self.loop.call_later(TICK_SECONDS, self._tick)

    def serve_inner(self, Listener listener not None, Route route not None):
        """What stands for the listener and the route of requests that the gateway makes itself."""
        self.inner_listener = listener
        self.inner_route = route

    def answer_challenges(self, dict challenges):
        """Requests for an ACME token get its key authorization, on every listener and before any route: {token: key
        authorization}, both bytes. Empty or None: none is under way."""
        self.challenges = challenges or None

    # -- what a reload changes -------------------------------------------------------------------------------------

    def limit(self, int64_t max_connections, int64_t max_per_address):
        """Caps on downstream connections that come from now on; 0 for none."""
        self.max_connections = max_connections
        self.max_per_address = max_per_address

    def log_to(self, AccessLog log, int64_t flush_interval, int64_t dropped):
        """Exchanges that end from now on are logged there; None: nowhere. dropped: lines lost by logs before it. What the
        log so far has gathered is handed over to its writer."""
        if self.log is not None:
            self.log.hand_over()
        self.log = log
        self.log_dropped = dropped
        self.flush_every = flush_interval
        self.flush_ns = now_ns() + flush_interval

    def trail_to(self, Trails trails):
        """Where traces of exchanges that end from now on are kept; None: nowhere."""
        self.trails = trails

    def watch(self, tuple upstreams):
        """Every Upstream in use, once it has changed. Those that were and are no longer are retired: their idle
        connections are closed, and what runs there ends without its connection being kept."""
        cdef Upstream upstream
        cdef Endpoint endpoint
        cdef set slots = {upstream.slot for upstream in upstreams}
        for upstream in set(self.watched) - set(upstreams):
            self.retired.add(upstream)
            for endpoint in upstream.group.seats:
                endpoint.retire()
        self.watched = upstreams
        self.unwatched = [slot for slot in range(len(self.counters.upstream_slots.names)) if slot not in slots]
        self.show_gauges()

    def close_listener(self, ListenerSlot slot not None):
        """Ends its connections: idle ones now, the others behind their request."""
        cdef Downstream1 connection
        slot.closed = True
        for connection in list(self.downstreams):
            if connection.slot is slot:
                connection.drain()

    def connections(self, Upstream upstream not None) -> list[tuple[str, int, int, int]]:
        """(address, open, idle, waiting) of each endpoint: connections made, those of them that are not in use, and
        requests that wait for one."""
        cdef Endpoint endpoint
        return [
            (endpoint.address, endpoint.open - endpoint.connecting, endpoint.idle.count, len(endpoint.waiting))
            for endpoint in upstream.group.seats
        ]

    # -- gauges --------------------------------------------------------------------------------------------------

    cpdef int show_gauges(self) except -1:
        """Writes the gauges into the counters. The clock calls it once a second: nothing is counted twice on the way of a
        request."""
        cdef Counters counters = self.counters
        cdef EndpointCounts* counts
        cdef Tally tally
        cdef Upstream upstream
        cdef int slot
        cdef int64_t open, idle, waiting, dropped
        counters.gauge_set(GAUGE_CONNECTIONS_OPEN, len(self.downstreams))
        # What only goes up goes on where another process, in this one's place before it, has left it.
        counters.gauge_add(GAUGE_CONNECTIONS_ACCEPTED, self.accepted - self.shown_accepted)
        counters.gauge_add(GAUGE_CONNECTIONS_REFUSED, self.refused - self.shown_refused)
        self.shown_accepted = self.accepted
        self.shown_refused = self.refused
        counters.gauge_set(GAUGE_EXCHANGES_ACTIVE, self.exchanges)
        counters.gauge_set(GAUGE_TUNNELS_ACTIVE, self.tunnels)
        if self.trails is not None:
            self.trails.show(counters)
        if self.log is not None:
            dropped = self.log_dropped + <int64_t>self.log.dropped
            counters.gauge_add(GAUGE_LOG_DROPPED, dropped - self.shown_dropped)
            self.shown_dropped = dropped
        for slot in self.unwatched:
            counters.upstream_set(slot, UPSTREAM_CONNECTIONS_OPEN, 0)
            counters.upstream_set(slot, UPSTREAM_CONNECTIONS_IDLE, 0)
            counters.upstream_set(slot, UPSTREAM_REQUESTS_WAITING, 0)
        for upstream in self.watched:
            open, idle, waiting = _connections_of(upstream)
            counters.upstream_set(upstream.slot, UPSTREAM_CONNECTIONS_OPEN, open)
            counters.upstream_set(upstream.slot, UPSTREAM_CONNECTIONS_IDLE, idle)
            counters.upstream_set(upstream.slot, UPSTREAM_REQUESTS_WAITING, waiting)
        for tally in self.shown_endpoints:
            counts = <EndpointCounts*>tally.own(counters.place)
            counts.active = counts.open = counts.idle = 0
        self.shown_endpoints.clear()
        for upstream in self.watched:
            self._add_endpoints(upstream)
        # A changed upstream and what it was before have one name, and are counted together.
        for upstream in self.retired:
            open, idle, waiting = _connections_of(upstream)
            counters.upstream_add(upstream.slot, UPSTREAM_CONNECTIONS_OPEN, open)
            counters.upstream_add(upstream.slot, UPSTREAM_CONNECTIONS_IDLE, idle)
            counters.upstream_add(upstream.slot, UPSTREAM_REQUESTS_WAITING, waiting)
            self._add_endpoints(upstream)
        return 0

    cdef int _add_endpoints(self, Upstream upstream) except -1:
        # Several may have one place: those before and behind a change of the upstream.
        cdef Endpoint endpoint
        for endpoint in upstream.group.seats:
            endpoint.counts.active += endpoint.active
            endpoint.counts.open += endpoint.open - endpoint.connecting
            endpoint.counts.idle += endpoint.idle.count
            self.shown_endpoints.append(endpoint.tally)
        return 0

    cdef void arm(self, Timed timed, int64_t deadline_ns) noexcept:
        self.wheel.arm(timed, deadline_ns)

    cdef const char* date(self, int64_t now) noexcept:
        # "Date: ...\r\n", 37 bytes (RFC 9110 6.6.1); made once a second.
        cdef int64_t second = (now + self.wall_offset) // SECOND
        cdef bytes text
        if second != self.date_second:
            self.date_second = second
            text = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(second)).encode()
            memcpy(self.date_line, PyBytes_AS_STRING(text), 37)
        return self.date_line

    cdef int make_request_id(self, char* into) noexcept:
        # 128 bits: a random prefix of this worker, and a counter passed through a mixer (splitmix64's constants).
        cdef uint64_t mixed
        cdef int i
        self.id_next += 1
        mixed = self.id_next
        mixed = (mixed ^ (mixed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        mixed = (mixed ^ (mixed >> 27)) * <uint64_t>0x94D049BB133111EB
        mixed ^= mixed >> 31
        memcpy(into, self.id_prefix, 16)
        for i in range(8):
            memcpy(into + 16 + 2 * i, &HEX_PAIRS[2 * ((mixed >> (8 * i)) & 255)], 2)
        return 32

    # -- scratch -------------------------------------------------------------------------------------------------

    cdef Field* room(self, int count) except NULL:
        cdef Field* grown
        if count > self.field_room:
            grown = <Field*>realloc(self.fields, count * sizeof(Field))
            if grown == NULL:
                raise MemoryError()
            self.fields = grown
            self.field_room = count
        return self.fields

    cdef Exchange take_exchange(self):
        cdef Exchange x
        self.exchanges += 1
        if self.free_exchanges.count:
            x = <Exchange>self.free_exchanges.pop()
        else:
            x = Exchange()
            x.worker = self
        x.phase = X_NEW
        return x

    cdef void give_exchange(self, Exchange x) noexcept:
        self.exchanges -= 1
        x.reset()
        if self.free_exchanges.count < FREE_EXCHANGES:
            self.free_exchanges.push(x)

    cdef bint take_handshake(self, Listener listener) noexcept:
        # A burst of one second's worth is let through.
        cdef int64_t now = now_ns()
        cdef int64_t due = max(self.handshakes_ns, now)
        if listener.handshake_gap_ns == 0:
            return True
        if due - now > SECOND:
            return False
        self.handshakes_ns = due + listener.handshake_gap_ns
        return True

    # -- who is here ---------------------------------------------------------------------------------------------

    cdef bint admit(self, Downstream1 connection) except -1:
        # False: over a cap. Trusted proxies stand for many clients and are not held to the cap of one; who is behind a
        # PROXY header is counted when it has been read.
        if self.draining or (self.max_connections and len(self.downstreams) >= self.max_connections):
            self.refused += 1
            return False
        self.downstreams.add(connection)
        self.accepted += 1
        return connection.state == D_PROXY or self.count_address(connection)

    cdef bint count_address(self, Downstream1 connection) except -1:
        cdef bytes address
        if self.max_per_address and connection.address.family and not connection.trusted:
            address = PyBytes_FromStringAndSize(<char*>connection.address.bytes, 16)
            if self.per_address.get(address, 0) >= self.max_per_address:
                self.refused += 1
                return False
            self.per_address[address] = self.per_address.get(address, 0) + 1
            connection.counted_as = address
        return True

    cdef int leave(self, Downstream1 connection) except -1:
        if connection.counted_as is not None:
            if self.per_address[connection.counted_as] == 1:
                del self.per_address[connection.counted_as]
            else:
                self.per_address[connection.counted_as] -= 1
            connection.counted_as = None
        self.downstreams.discard(connection)
        return self.left()

    cdef int left(self) except -1:
        if self.drained is not None and not self.drained.done() and not self.downstreams and not self.upstreams \
                and not self.connecting:
            self.drained.set_result(None)
        return 0

    # -- the end -------------------------------------------------------------------------------------------------

    async def drain(self, double timeout, double grace=0):
        """Finishes what runs, takes nothing new, cuts what is left after `timeout` seconds.

        grace: for so many seconds a connection between two requests may bring one more, which is its last. Whoever
        closes at once may cross a request that is on its way, and it fails (RFC 9112 9.6 asks for more than that).
        `cut` then tells how many exchanges were cut. Listening sockets are the caller's to close, before.
        """
        cdef Downstream1 connection
        cdef Connector connector
        cdef Exchange x
        self.draining = True
        self.drained = self.loop.create_future()
        for x in list(self.inner):
            # Hedges and what plugins ask end with the exchange that they are for; and who got the place of one before it
            # may be over by now.
            if x in self.inner and x.kind != KIND_HEDGE and x.kind != KIND_PART and (x.kind != KIND_SUBREQUEST or x.pinned):
                x.client_gone(R_DRAIN_CUT, None)
        if grace > 0:
            self.grace_until = now_ns() + <int64_t>(grace * 1e9)
            for connection in list(self.downstreams):
                connection.last_chance(self.grace_until)
        else:
            for connection in list(self.downstreams):
                connection.drain()
            self._close_pools()
        self.left()
        try:
            async with asyncio.timeout(timeout):
                if grace > 0:
                    await asyncio.wait((self.drained,), timeout=grace)
                    self._close_pools()
                    self.left()
                await self.drained
        except TimeoutError:
            self.cut = self.exchanges
            for connection in list(self.downstreams):
                connection.cut_off()
            for x in list(self.inner):
                if x in self.inner and x.kind == KIND_SUBREQUEST:
                    x.client_gone(R_DRAIN_CUT, None)
            for connector in list(self.connectors):
                connector.drop()
            self.drained = self.loop.create_future()
            self.left()
            async with asyncio.timeout(5):
                await self.drained
        finally:
            self.wheel.advance(now_ns())

    cdef int _close_pools(self) except -1:
        cdef Upstream upstream
        cdef Endpoint endpoint
        for upstream in self.watched:
            for endpoint in upstream.group.seats:
                endpoint.close_idle()
        return 0

    def close(self):
        """Stops the clock. Call after `drain`."""
        self.tick_handle.cancel()

    def census(self) -> dict[str, int]:
        """What is held right now; all zero after a clean drain."""
        return {
            "connections": len(self.downstreams),
            "exchanges": self.exchanges,
            "pooled": len(self.upstreams) + self.connecting,
            "timers": self.wheel.armed,
        }


def skip_time(Worker worker not None, int64_t ns):
    """For tests: all clocks of this process's gateways go forward by `ns` nanoseconds, and what was due meanwhile happens."""
    global skipped_ns
    if ns < 0:
        raise ValueError("time goes forward only")
    skipped_ns += ns
    worker.wheel.advance(now_ns())


def restore_time():
    """For tests: the system's time again, once no gateway that has skipped some is left."""
    global skipped_ns
    skipped_ns = 0


def sample_time(Worker worker not None, int64_t ahead_ns):
    """For tests: every deadline passes that lies within `ahead_ns` nanoseconds from now."""
    worker.wheel.advance(now_ns() + ahead_ns)


def sample_chance(Worker worker not None, uint64_t seed):
    """For tests: what this worker draws from now on hangs on `seed` alone."""
    cdef int i
    for i in range(4):
        worker.random.words[i] = fg_mix64(seed + <uint64_t>i) | 1
