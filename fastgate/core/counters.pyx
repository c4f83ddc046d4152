# Counters in shared memory.
#
# An anonymous shared mapping is made before the workers are forked; each writes its own block, and any
# process can add them up at any time, also after a worker has died. Pages that no exchange touched cost
# nothing, so 10,000 routes of which few are used cost little: the exchanges of all routes lie together, and a
# snapshot looks further only at those that have some.
#
# A histogram's bucket is at most a quarter of its lower bound wide: taking the middle of a bucket for a
# quantile is off by at most an eighth (12.5 %) of the true value, between 33 us and 69 s.


cdef enum:
    _COUNTERS_VERSION = 3
    # Endpoints with numbers of their own, over all upstreams; and pairs of a plugin and what it counts.
    _ENDPOINT_PLACES = 1024
    _PLUGIN_PLACES = 512
    _PART_PLACES = 2048
    # An exemplar is taken from the first exchanges of a bucket, then from one in so many (a power of two).
    _EXEMPLARS_FIRST = 32
    _EXEMPLARS_EVERY = 256

GAUGES: tuple[str, ...] = (
    "connections_open", "connections_accepted", "connections_refused", "exchanges_active", "tunnels_active",
    "log_dropped", "tls_handshakes", "tls_resumed", "tls_timeouts", "tls_failed", "tls_refused",
    "traces_sampled", "traces_exported", "traces_dropped",
)
UPSTREAM_COUNTS: tuple[str, ...] = (
    "exchanges", "attempts", "retries", "failures",
    "connections_open", "connections_idle", "connections_made", "requests_waiting",
)
_STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
# By METHOD_...
METHOD_CLASSES: tuple[str, ...] = (
    "other", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT",
)

if len(GAUGES) != GAUGE_COUNT or len(UPSTREAM_COUNTS) != UPSTREAM_COUNT or len(METHOD_CLASSES) != METHOD_COUNT:
    raise ImportError("core/counters.pxd and .pyx name different numbers")


cdef inline int _histogram_bucket(int64_t ns) noexcept nogil:
    cdef int octave
    if ns < <int64_t>1 << HISTOGRAM_OCTAVE:
        return 0
    octave = 63 - _net_clz64(<uint64_t>ns)
    if octave >= HISTOGRAM_OCTAVE + HISTOGRAM_OCTAVES:
        return HISTOGRAM_BUCKETS - 1
    return 1 + 4 * (octave - HISTOGRAM_OCTAVE) + <int>((ns >> (octave - 2)) & 3)


cdef enum:
    USUAL_BUCKET = 1 + 4 * 3    # 262 us: for `expect`


def histogram_bounds() -> tuple[int, ...]:
    """Upper bounds (exclusive, in nanoseconds) of all buckets but the last, which has none."""
    bounds = [1 << HISTOGRAM_OCTAVE]
    for octave in range(HISTOGRAM_OCTAVE, HISTOGRAM_OCTAVE + HISTOGRAM_OCTAVES):
        bounds += [(4 + quarter) << (octave - 2) for quarter in (1, 2, 3, 4)]
    return tuple(bounds)


# Of each bucket, the one of METRIC_BOUNDS that it lies in.
cdef uint8_t[HISTOGRAM_BUCKETS] _METRIC_BUCKET


cdef tuple _metric_bounds():
    # 1, 2.5 and 5 of each power of ten, as near as a bucket's bound comes.
    bounds = histogram_bounds()
    wanted = [figure * 10**power for power in range(6, 11) for figure in (1, 2.5, 5)][:METRIC_BUCKETS - 2]
    near = [min(bounds, key=lambda bound: abs(bound - each)) for each in (0.5e6, *wanted)]
    for bucket, bound in enumerate((*bounds, 1 << 62)):
        _METRIC_BUCKET[<int>bucket] = sum(each < bound for each in near)
    return tuple(near)


METRIC_BOUNDS: tuple[int, ...] = _metric_bounds()
if len(METRIC_BOUNDS) != METRIC_BUCKETS - 1:
    raise ImportError("core/counters.pxd and .pyx know different numbers of buckets")


cdef class Counters:
    """Counters of `workers` processes over routes and upstreams.

    Make it before the fork; the maker writes to block 0 until `use_worker` says otherwise. spare_routes,
    spare_upstreams: room for names that later configurations bring. Raises OSError if there is no memory for
    the mapping, ValueError for no workers.
    """

    def __cinit__(
        self, routes: Sequence[str], upstreams: Sequence[str], workers: int = 1, *, spare_routes: int = 0,
        spare_upstreams: int = 0,
    ) -> None:
        cdef CountersHead head
        cdef void* mapping
        cdef int i
        if workers < 1:
            raise ValueError("there is at least one worker")
        self.route_room = len(routes) + spare_routes
        self.upstream_room = len(upstreams) + spare_upstreams
        self.route_slots = SlotTable(self.route_room)
        self.upstream_slots = SlotTable(self.upstream_room)
        self.endpoints = Tallies(workers, sizeof(EndpointCounts), _ENDPOINT_PLACES)
        self.endpoint_other = self.endpoints.hold("", "other")
        self.parts = Tallies(workers, sizeof(PartCounts), _PART_PLACES)
        self.plugins = Tallies(workers, sizeof(uint64_t), _PLUGIN_PLACES)
        self.plugin_tallies = {}
        self.route_slots.take(routes)
        self.upstream_slots.take(upstreams)
        head.magic = <uint64_t>0x6661737467617465U       # "fastgate"
        head.version = _COUNTERS_VERSION
        head.workers = workers
        head.routes = <uint64_t>self.route_room + 1
        head.upstreams = <uint64_t>self.upstream_room
        head.reasons = R_COUNT
        head.histogram_octave = HISTOGRAM_OCTAVE
        head.histogram_octaves = HISTOGRAM_OCTAVES
        head.first_block = 4096
        head.gauges_at = head.routes * sizeof(uint64_t)
        head.upstreams_at = head.gauges_at + GAUGE_COUNT * sizeof(int64_t)
        head.upstream_times_at = head.upstreams_at + head.upstreams * UPSTREAM_COUNT * sizeof(int64_t)
        head.routes_at = head.upstream_times_at + head.upstreams * sizeof(UpstreamTimes)
        # Whole cache lines, so that what lies together in a route's numbers does so in memory.
        head.routes_at = (head.routes_at + 63) & ~<uint64_t>63
        head.route_stride = (sizeof(RouteCounts) + 63) & ~<uint64_t>63
        # Whole pages: no two workers write to one cache line.
        head.block_stride = (head.routes_at + head.routes * head.route_stride + 4095) & ~<uint64_t>4095
        self.length = head.first_block + head.workers * head.block_stride
        mapping = mmap(
            NULL, self.length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
        )
        if mapping == MAP_FAILED:
            raise OSError(f"no {self.length} bytes of shared memory for counters")
        self.head = <CountersHead*>mapping
        self.head[0] = head
        for i in range(<int>R_COUNT):
            self.upstream_fault[i] = REASONS[i].source == "upstream"
        self._use(0)

    def __dealloc__(self):
        if self.head != NULL:
            munmap(self.head, self.length)

    cdef int _use(self, uint64_t worker) except -1:
        if worker >= self.head.workers:
            raise ValueError(f"there is no worker {worker}")
        self.block = <char*>self.head + self.head.first_block + worker * self.head.block_stride
        self.exchanges = <uint64_t*>self.block
        self.gauges = <int64_t*>(self.block + self.head.gauges_at)
        self.upstreams = <int64_t*>(self.block + self.head.upstreams_at)
        self.upstream_times = <UpstreamTimes*>(self.block + self.head.upstream_times_at)
        self.routes = self.block + self.head.routes_at
        self.place = <int>worker
        return 0

    cdef inline RouteCounts* _route(self, int at) noexcept nogil:
        return <RouteCounts*>(self.routes + <size_t>at * self.head.route_stride)

    def use_worker(self, worker: int) -> None:
        """Chooses the block that this process writes; to be called behind the fork. The gauges that go up and
        down begin at 0: a worker that takes the place of a dead one does not inherit its connections."""
        cdef EndpointCounts* counts
        cdef TallyHead* head
        cdef uint64_t place
        cdef int i
        if worker < 0:
            raise ValueError(f"there is no worker {worker}")
        self._use(worker)
        for gauge in (GAUGE_CONNECTIONS_OPEN, GAUGE_EXCHANGES_ACTIVE, GAUGE_TUNNELS_ACTIVE):
            self.gauges[<int>gauge] = 0
        for i in range(len(self.upstream_slots.names)):
            for gauge in (UPSTREAM_CONNECTIONS_OPEN, UPSTREAM_CONNECTIONS_IDLE, UPSTREAM_REQUESTS_WAITING):
                self.upstreams[i * UPSTREAM_COUNT + <int>gauge] = 0
        for place in range(self.endpoints.table.capacity):
            head = self.endpoints.at(place)
            if head != NULL:
                counts = <EndpointCounts*>self.endpoints.block(head, self.place)
                # A page that nobody has written to costs nothing so far.
                if counts.active or counts.open or counts.idle:
                    counts.active = counts.open = counts.idle = 0

    cdef Tally endpoint_tally(self, str upstream, Seat seat):
        cdef Tally tally
        try:
            tally = self.endpoints.hold(upstream, seat.address)
        except (MemoryError, ValueError):
            return self.endpoint_other
        # The same in every process that holds both.
        fg_store64(&(<TallyHead*>tally.record.at).state, seat.record.place + 1)
        return tally

    def assign(
        self, routes: Sequence[str], upstreams: Sequence[str], held: tuple[Iterable[int], Iterable[int]] = ((), ()),
    ) -> tuple[list[Slot], list[Slot]]:
        """Places for the routes and upstreams of the next configuration: those that their names had before, or
        new ones, counting from zero.

        Whoever records under a Slot's index holds the Slot: only the place of a name that is gone and that nobody
        holds is given to another name, and only when no place is left that nobody ever had. held: the places of
        routes and upstreams that other processes hold (their `held`). Raises SlotsFull.
        """
        cdef int place
        route_slots, again = self.route_slots.take(routes, held[0])
        for place in again:
            self._forget_route(place)
        upstream_slots, again = self.upstream_slots.take(upstreams, held[1])
        for place in again:
            self._forget_upstream(place)
        return route_slots, upstream_slots

    def follow(
        self, routes: Mapping[str, int], upstreams: Mapping[str, int]
    ) -> tuple[list[Slot], list[Slot]]:
        """As `assign`, for a process that writes where another has assigned."""
        return self.route_slots.follow(routes), self.upstream_slots.follow(upstreams)

    @property
    def held(self) -> tuple[list[int], list[int]]:
        """The places of routes and of upstreams that this process may still write to."""
        return list(self.route_slots.held), list(self.upstream_slots.held)

    cdef int _forget_route(self, int route) except -1:
        cdef uint64_t worker
        cdef char* block
        for worker in range(self.head.workers):
            block = <char*>self.head + self.head.first_block + worker * self.head.block_stride
            if (<uint64_t*>block)[route] == 0:
                continue                        # no page is touched that costs nothing so far
            (<uint64_t*>block)[route] = 0
            memset(block + self.head.routes_at + <size_t>route * self.head.route_stride, 0, sizeof(RouteCounts))
        return 0

    cdef int _forget_upstream(self, int upstream) except -1:
        cdef uint64_t worker
        cdef char* block
        for worker in range(self.head.workers):
            block = <char*>self.head + self.head.first_block + worker * self.head.block_stride
            memset(
                block + self.head.upstreams_at + <size_t>upstream * UPSTREAM_COUNT * sizeof(int64_t), 0,
                UPSTREAM_COUNT * sizeof(int64_t),
            )
            memset(
                block + self.head.upstream_times_at + <size_t>upstream * sizeof(UpstreamTimes), 0,
                sizeof(UpstreamTimes),
            )
        return 0

    cdef void record(self, const ExchangeRecord* record) noexcept nogil:
        cdef int at = record.route_index if 0 <= record.route_index < self.route_room else self.route_room
        cdef RouteCounts* route = self._route(at)
        cdef UpstreamTimes* times
        cdef int status = record.status // 100
        cdef int method = record.method_id if record.method_id < METHOD_COUNT else METHOD_OTHER
        cdef int bucket
        cdef int64_t* upstream
        self.exchanges[at] += 1
        route.status[method][status if 0 < status < STATUS_CLASSES else 0] += 1
        route.bytes_in += <uint64_t>record.bytes_in
        route.bytes_out += <uint64_t>record.bytes_out
        if 0 < record.reason < R_COUNT:
            route.reasons[record.reason] += 1
        if record.total_ns >= 0:
            bucket = _histogram_bucket(record.total_ns)
            route.total_sum_ns += <uint64_t>record.total_ns
            route.total[bucket] += 1
            if route.total[bucket] < _EXEMPLARS_FIRST or not route.total[bucket] & (_EXEMPLARS_EVERY - 1):
                _set_exemplar(&route.exemplars[_METRIC_BUCKET[bucket]], record)
        if record.upstream_head_ns >= 0:
            route.upstream_head_sum_ns += <uint64_t>record.upstream_head_ns
            route.upstream_head[_histogram_bucket(record.upstream_head_ns)] += 1
        if 0 <= record.upstream_index < self.upstream_room and record.attempts > 0:
            upstream = &self.upstreams[record.upstream_index * UPSTREAM_COUNT]
            upstream[<int>UPSTREAM_EXCHANGES] += 1
            upstream[<int>UPSTREAM_ATTEMPTS] += record.attempts
            upstream[<int>UPSTREAM_RETRIES] += record.attempts - 1
            if 0 < record.reason < R_COUNT and self.upstream_fault[record.reason]:
                upstream[<int>UPSTREAM_FAILURES] += 1
            if record.connect_ns >= 0 or record.queue_ns >= 0:      # no idle connection was there
                times = &self.upstream_times[record.upstream_index]
                if record.connect_ns >= 0:
                    times.connect_sum_ns += <uint64_t>record.connect_ns
                    times.connect[_histogram_bucket(record.connect_ns)] += 1
                if record.queue_ns >= 0:
                    times.queue_sum_ns += <uint64_t>record.queue_ns
                    times.queue[_histogram_bucket(record.queue_ns)] += 1

    cdef void expect(self, int route_index) noexcept nogil:
        cdef RouteCounts* route = self._route(route_index)
        prefetch(&self.exchanges[route_index])
        prefetch(&route.bytes_in)
        prefetch(&route.status[<int>METHOD_GET][5])
        prefetch(&route.total[USUAL_BUCKET])
        prefetch(&route.upstream_head[USUAL_BUCKET])

    cdef void gauge_add(self, int gauge, int64_t by) noexcept nogil:
        self.gauges[gauge] += by

    cdef void gauge_set(self, int gauge, int64_t value) noexcept nogil:
        self.gauges[gauge] = value

    cdef void upstream_add(self, int upstream_index, int which, int64_t by) noexcept nogil:
        if 0 <= upstream_index < self.upstream_room:
            self.upstreams[upstream_index * UPSTREAM_COUNT + which] += by

    cdef void upstream_set(self, int upstream_index, int which, int64_t value) noexcept nogil:
        if 0 <= upstream_index < self.upstream_room:
            self.upstreams[upstream_index * UPSTREAM_COUNT + which] = value

    def count(self, exchange: SampleExchange) -> None:
        """`record` for an exchange made in Python."""
        self.record(&(<SampleExchange?>exchange).record)

    def add(self, gauge: str, by: int) -> None:
        """`gauge_add` by name (of GAUGES)."""
        self.gauge_add(GAUGES.index(gauge), by)

    def part(self, route: str, part: str) -> PartTally:
        """What counts for this part of an aggregation; nothing, where there is no more room for names."""
        cdef PartTally made = PartTally.__new__(PartTally)
        try:
            made.tally = self.parts.hold(route, part)
        except (MemoryError, ValueError):
            return made
        made.counts = <PartCounts*>made.tally.own(self.place)
        return made

    def add_plugin(self, plugin: str, what: str, by: int) -> None:
        """Counts what a plugin has decided; nothing, where there is no more room for names."""
        tally = self.plugin_tallies.get((plugin, what))
        if tally is None:
            try:
                tally = self.plugin_tallies[plugin, what] = self.plugins.hold(plugin, what)
            except (MemoryError, ValueError):
                return
        (<uint64_t*>(<Tally>tally).own(self.place))[0] += <uint64_t>by

    def add_endpoint(self, upstream: str, Seat seat not None, head_ns: int) -> Tally:
        """Counts an answer of an endpoint, whose head took so long. What is counted is shown while the Tally lives."""
        cdef Tally tally = self.endpoint_tally(upstream, seat)
        cdef EndpointCounts* counts = <EndpointCounts*>tally.own(self.place)
        counts.head[_histogram_bucket(head_ns)] += 1
        counts.head_sum_ns += <uint64_t>head_ns
        return tally

    def add_upstream(self, upstream: str, count: str, by: int) -> None:
        """`upstream_add` by names (of UPSTREAM_COUNTS)."""
        self.upstream_add(self.upstream_slots.names.index(upstream), UPSTREAM_COUNTS.index(count), by)

    cdef dict _sum_route(self, int route):
        # All workers' numbers of one route, or None if it had no exchange.
        cdef RouteCounts total
        cdef uint64_t* sums = <uint64_t*>&total
        cdef uint64_t* other
        cdef char* block
        cdef uint64_t worker, exchanges = 0
        cdef size_t i, words = ROUTE_WORDS
        memset(&total, 0, sizeof(RouteCounts))
        for worker in range(self.head.workers):
            block = <char*>self.head + self.head.first_block + worker * self.head.block_stride
            if (<uint64_t*>block)[route] == 0:
                continue
            exchanges += (<uint64_t*>block)[route]
            other = <uint64_t*>(block + self.head.routes_at + <size_t>route * self.head.route_stride)
            for i in range(words):
                sums[i] += other[i]
        if exchanges == 0:
            return None
        return {
            "exchanges": exchanges,
            "status": {
                name: sum([total.status[<int>k][<int>i] for k in range(<int>METHOD_COUNT)])
                for i, name in enumerate(_STATUS_CLASSES)
            },
            "reasons": {
                REASONS[k].code: total.reasons[<int>k] for k in range(<int>R_COUNT) if total.reasons[<int>k]
            },
            "bytes_in": total.bytes_in,
            "bytes_out": total.bytes_out,
            "total": _histogram_dict(total.total, total.total_sum_ns),
            "upstream_head": _histogram_dict(total.upstream_head, total.upstream_head_sum_ns),
        }

    def sum_gauges(self, live: Container[int]) -> dict[str, int]:
        """Of GAUGES, over all workers; what goes up and down over those in `live`."""
        cdef uint64_t worker
        cdef int i
        cdef int64_t* found
        sums = dict.fromkeys(GAUGES, 0)
        for worker in range(self.head.workers):
            found = <int64_t*>(
                <char*>self.head + self.head.first_block + worker * self.head.block_stride + self.head.gauges_at
            )
            for i, name in enumerate(GAUGES):
                if worker in live or not name.endswith(("_open", "_active", "_waiting")):
                    sums[name] += found[i]
        return sums

    def snapshot(self) -> dict[str, object]:
        """All workers' numbers, added up; see docs/access-log.md.

        {"workers": n, "gauges": {name: n}, "routes": {name: {...}}, "no_route": {...} or None, "upstreams":
        {name: {count: n}}, "endpoints": {upstream: {address: {...}}}, "bounds_ns": histogram_bounds()}; routes without exchanges are left out. What a reload
        took away is still there: sums never go backwards.
        """
        cdef uint64_t worker
        cdef char* block
        cdef int i, k
        gauges = dict.fromkeys(GAUGES, 0)
        upstreams = {name: dict.fromkeys(UPSTREAM_COUNTS, 0) for name in self.upstream_slots.names}
        for worker in range(self.head.workers):
            block = <char*>self.head + self.head.first_block + worker * self.head.block_stride
            for i in range(<int>GAUGE_COUNT):
                gauges[GAUGES[i]] += (<int64_t*>(block + self.head.gauges_at))[i]
            for i, name in enumerate(self.upstream_slots.names):
                for k in range(<int>UPSTREAM_COUNT):
                    upstreams[name][UPSTREAM_COUNTS[k]] += (
                        <int64_t*>(block + self.head.upstreams_at)
                    )[i * UPSTREAM_COUNT + k]
        routes = {}
        for i, name in enumerate(self.route_slots.names):
            counts = self._sum_route(i)
            if counts is not None:
                routes[name] = counts
        return {
            "workers": self.head.workers,
            "gauges": gauges,
            "routes": routes,
            "no_route": self._sum_route(self.route_room),
            "upstreams": upstreams,
            "endpoints": self._sum_endpoints(),
            "bounds_ns": histogram_bounds(),
        }

    cdef dict _sum_endpoints(self):
        # Those that anybody uses. `head` is the time to an attempt's head, and its count that of the answers.
        cdef EndpointCounts total
        cdef EndpointCounts* counts
        cdef TallyHead* head
        cdef uint64_t place
        cdef int worker, i
        found = {}
        for place in range(self.endpoints.table.capacity):
            head = self.endpoints.at(place)
            if head == NULL:
                continue
            memset(&total, 0, sizeof(total))
            for worker in range(self.endpoints.workers):
                counts = <EndpointCounts*>self.endpoints.block(head, worker)
                total.head_sum_ns += counts.head_sum_ns
                total.failed += counts.failed
                total.unanswered += counts.unanswered
                for i in range(<int>HISTOGRAM_BUCKETS):
                    total.head[i] += counts.head[i]
            upstream = head.text[:head.lengths[0]].decode()
            address = head.text[head.lengths[0]:head.lengths[0] + head.lengths[1]].decode()
            numbers = {
                "failed": total.failed,
                "unanswered": total.unanswered,
                "head": _histogram_dict(total.head, total.head_sum_ns),
            }
            if upstream or numbers["unanswered"] or numbers["head"]["count"]:
                found.setdefault(upstream, {})[address] = numbers
        return found

    @property
    def size_bytes(self) -> int:
        """Bytes of the mapping; untouched pages cost nothing."""
        return self.length


cdef void _set_exemplar(Exemplar* at, const ExchangeRecord* record) noexcept nogil:
    cdef Span id = record.trace_id if record.trace_id.ptr != NULL else record.request_id
    if id.ptr == NULL or id.len > EXEMPLAR_ID:
        return
    # One writer; a reader that finds `turn` odd or changed takes nothing.
    fg_add32(&at.turn, 1)
    at.is_trace = record.trace_id.ptr != NULL
    at.length = <uint8_t>id.len
    at.total_ns = record.total_ns
    at.unix_ns = record.start_unix_ns + record.total_ns
    memcpy(at.id, id.ptr, <size_t>id.len)
    fg_add32(&at.turn, 1)


cdef dict _histogram_dict(const uint64_t* counts, uint64_t sum_ns):
    cdef int i
    buckets = [counts[i] for i in range(HISTOGRAM_BUCKETS)]
    return {"count": sum(buckets), "sum_ns": sum_ns, "buckets": buckets}


cdef class PartTally:
    """See Counters.part."""

    def ok(self) -> None:
        self._count(PART_OK)

    def failed(self) -> None:
        self._count(PART_FAILED)

    def skipped(self) -> None:
        self._count(PART_SKIPPED)

    def cached(self) -> None:
        self._count(PART_CACHED)

    def coalesced(self) -> None:
        self._count(PART_COALESCED)

    def took(self, int64_t ns) -> None:
        """A request of it has ended."""
        if self.counts != NULL:
            self.counts.took_sum_ns += <uint64_t>ns
            self.counts.took[_histogram_bucket(ns)] += 1

    cdef void _count(self, int result) noexcept:
        if self.counts != NULL:
            self.counts.results[result] += 1
