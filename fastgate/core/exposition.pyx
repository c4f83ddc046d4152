# Theory of operation. Samples of one family stand together in the text, while what a route counts lies together in
# memory. So each route, upstream or endpoint is added up once, over all workers, and its samples go to the end of the
# texts of all families at the same time, which are joined in the end. A caller that serves traffic meanwhile asks for a
# part of the routes at a time.
#
# The memory of these texts is kept for the next scrape: to be given new pages by the kernel each time took as long as all
# the rest. What is handed out is copied once, into the bytes that are sent.
#
# What counts up is taken from every worker's block, the dead ones' among them. What goes up and down is taken from those
# that run.

METRIC_FAMILIES: tuple[str, ...] = (
    "requests", "reasons", "bytes_in", "bytes_out", "total", "head",
    "upstream_exchanges", "upstream_attempts", "upstream_retries", "upstream_failures", "upstream_made",
    "upstream_open", "upstream_idle", "upstream_waiting", "upstream_active", "upstream_retrying", "upstream_refused",
    "upstream_retries_refused", "upstream_breaker", "upstream_connect", "upstream_queue",
    "endpoint_requests", "endpoint_active", "endpoint_open", "endpoint_idle", "endpoint_state", "endpoint_head",
    "part", "part_spared", "part_took",
    "plugin",
)
if len(METRIC_FAMILIES) != METRIC_COUNT:
    raise ImportError("core/exposition.pxd and .pyx name different families")


cdef void _out_seconds(Out* out, uint64_t ns) noexcept nogil:
    # Exact, and always with a fraction, as OpenMetrics has floats.
    cdef char[9] digits
    cdef int i, length = 9
    cdef uint64_t rest = ns % 1000000000
    out_decimal(out, <int64_t>(ns // 1000000000))
    for i in range(8, -1, -1):
        digits[i] = <char>(48 + rest % 10)
        rest //= 10
    while length > 1 and digits[length - 1] == 48:
        length -= 1
    out_byte(out, b'.')
    out_put(out, digits, <size_t>length)


def _seconds(ns: int) -> bytes:
    cdef Out out = Out(NULL, 0, 0, False)
    try:
        _out_seconds(&out, ns)
        return out.data[:out.len]
    finally:
        out_free(&out)


cdef tuple _BOUND_LABELS = (*[b'le="' + _seconds(bound) + b'"' for bound in METRIC_BOUNDS], b'le="+Inf"')
cdef tuple _STATUS_LABELS = tuple([name.encode() for name in _STATUS_CLASSES])
cdef tuple _METHOD_LABELS = tuple([name.encode() for name in METHOD_CLASSES])
cdef tuple _ENDPOINT_LABELS = tuple([name.encode() for name in ENDPOINT_STATUSES])
cdef tuple _BREAKER_LABELS = tuple([name.encode() for name in _BREAKER_STATES])
cdef tuple _PART_LABELS = (b"ok", b"failed", b"skipped", b"cached", b"coalesced")
cdef tuple _REASON_LABELS = tuple([info.code.encode() for info in REASONS])


cdef void _out_escaped(Out* out, Span value) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(value.len):
        if value.ptr[i] == b'\n':
            out_put(out, b"\\n", 2)
            continue
        if value.ptr[i] == b'"' or value.ptr[i] == b'\\':
            out_byte(out, b'\\')
        out_byte(out, value.ptr[i])


cdef inline char* _put(char* at, const char* data, size_t length) noexcept nogil:
    memcpy(at, data, length)
    return at + length


cdef class MetricsText:
    """The samples of routes, upstreams, endpoints, parts of aggregations and plugins, for one scrape at a time.

    names: of the samples of each of METRIC_FAMILIES, by its key.
    """

    def __cinit__(self, Counters counters not None, names: Mapping[str, str]):
        cdef size_t workers = counters.head.workers
        self.counters = counters
        self.names = [names[key].encode() for key in METRIC_FAMILIES]
        self.live = <uint8_t*>calloc(workers, 1)
        self.parts = <RouteCounts**>calloc(workers + 1, sizeof(RouteCounts*))
        if self.live == NULL or self.parts == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef int i
        for i in range(<int>METRIC_COUNT):
            out_free(&self.outs[i])
        out_free(&self.labels)
        out_free(&self.line)
        free(self.live)
        free(self.parts)

    def begin(self, *, bint openmetrics, live=None) -> None:
        """A new scrape. openmetrics: with exemplars. live: the workers whose gauges count; None: all."""
        cdef int i
        self.openmetrics = openmetrics
        self.labels.failed = self.line.failed = False
        for i in range(<int>self.counters.head.workers):
            self.live[i] = live is None or i in live
        for i in range(<int>METRIC_COUNT):
            self.outs[i].len = 0
            self.outs[i].failed = False

    def has(self, family: str) -> bool:
        """Whether it has samples."""
        return self.outs[<int>METRIC_FAMILIES.index(family)].len > 0

    def join(self, parts: Sequence[bytes | str]) -> bytes:
        """These one behind the other: bytes as they are, and of a family, by its key, its samples. Ends the scrape. Raises
        MemoryError."""
        cdef size_t size = 0
        cdef bytes whole, part
        cdef Out* out
        cdef char* at
        cdef int i
        if self.labels.failed or self.line.failed:
            raise MemoryError()
        for each in parts:
            if isinstance(each, str):
                out = &self.outs[<int>METRIC_FAMILIES.index(each)]
                if out.failed:
                    raise MemoryError()
                size += out.len
            else:
                size += <size_t>len(each)
        whole = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        at = PyBytes_AS_STRING(whole)
        for each in parts:
            if isinstance(each, str):
                out = &self.outs[<int>METRIC_FAMILIES.index(each)]
                if out.len:
                    at = _put(at, out.data, out.len)
            else:
                part = each
                at = _put(at, PyBytes_AS_STRING(part), <size_t>len(part))
        if size > METRICS_KEPT:
            for i in range(<int>METRIC_COUNT):
                out_free(&self.outs[i])
        return whole

    # -- what is added

    def add_routes(self, names: Iterable[str]) -> None:
        """Those of these that have had an exchange."""
        for name in names:
            place = self.counters.route_slots.places.get(name)
            if place is not None:
                self._begin_labels()
                raw = name.encode()
                self._label(b"route", span_of(raw, len(raw)))
                self._route(place)

    def add_no_route(self) -> None:
        """What no route took: its `route` is empty."""
        self._begin_labels()
        self._label(b"route", span_of(b"", 0))
        self._route(self.counters.route_room)

    def add_upstreams(self, upstreams: Iterable[tuple[str, UpstreamLoad, UpstreamHealth]]) -> None:
        for name, load, health in upstreams:
            place = self.counters.upstream_slots.places.get(name)
            if place is not None:
                self._begin_labels()
                raw = name.encode()
                self._label(b"upstream", span_of(raw, len(raw)))
                self._upstream(place, load, health)

    def add_endpoints(self, SharedTable states not None, int64_t now, uint64_t first, uint64_t last) -> bool:
        """Those that anybody uses, of the places from `first` up to `last`. states: of endpoint_states(). Whether there are
        further places."""
        cdef TallyHead* head
        cdef uint64_t place
        for place in range(first, min(last, self.counters.endpoints.table.capacity)):
            head = self.counters.endpoints.at(place)
            if head != NULL:
                self._begin_labels()
                self._label(b"upstream", span_of(head.text, head.lengths[0]))
                self._label(b"endpoint", span_of(head.text + head.lengths[0], head.lengths[1]))
                self._endpoint(head, states, now)
        return last < self.counters.endpoints.table.capacity

    def add_parts(self) -> None:
        cdef TallyHead* head
        cdef PartCounts total
        cdef uint64_t* sums = <uint64_t*>&total
        cdef uint64_t* other
        cdef uint64_t place
        cdef int worker, i
        for place in range(self.counters.parts.table.capacity):
            head = self.counters.parts.at(place)
            if head == NULL:
                continue
            memset(&total, 0, sizeof(total))
            for worker in range(self.counters.parts.workers):
                other = <uint64_t*>self.counters.parts.block(head, worker)
                for i in range(<int>(sizeof(PartCounts) // sizeof(uint64_t))):
                    sums[i] += other[i]
            self._begin_labels()
            self._label(b"route", span_of(head.text, head.lengths[0]))
            self._label(b"part", span_of(head.text + head.lengths[0], head.lengths[1]))
            for i in range(<int>PART_RESULTS):
                if total.results[i] or i <= PART_FAILED:
                    self._number(METRIC_PART if i <= PART_SKIPPED else METRIC_PART_SPARED,
                                 b"result" if i <= PART_SKIPPED else b"how", <bytes>_PART_LABELS[i],
                                 <int64_t>total.results[i])
            self._histogram(METRIC_PART_TOOK, total.took, total.took_sum_ns, NULL)

    def add_plugins(self) -> None:
        cdef TallyHead* head
        cdef uint64_t place, total
        cdef int worker
        for place in range(self.counters.plugins.table.capacity):
            head = self.counters.plugins.at(place)
            if head != NULL:
                total = 0
                for worker in range(self.counters.plugins.workers):
                    total += (<uint64_t*>self.counters.plugins.block(head, worker))[0]
                self._begin_labels()
                self._label(b"plugin", span_of(head.text, head.lengths[0]))
                self._label(b"decision", span_of(head.text + head.lengths[0], head.lengths[1]))
                self._number(METRIC_PLUGIN, NULL, NULL, <int64_t>total)

    # -- one of each

    cdef int _route(self, int place) except -1:
        cdef RouteCounts total
        cdef RouteCounts* found
        cdef uint64_t* sums = <uint64_t*>&total
        cdef uint64_t* other
        cdef int worker, method, status, count = 0
        cdef size_t i
        memset(&total, 0, ROUTE_WORDS * sizeof(uint64_t))
        for worker in range(<int>self.counters.head.workers):
            if (<uint64_t*>self._block(worker))[place] == 0:
                continue
            found = <RouteCounts*>(
                self._block(worker) + self.counters.head.routes_at + <size_t>place * self.counters.head.route_stride
            )
            self.parts[count] = found
            count += 1
            other = <uint64_t*>found
            for i in range(<size_t>ROUTE_WORDS):
                sums[i] += other[i]
        self.parts[count] = NULL
        if count == 0:
            return 0
        for method in range(<int>METHOD_COUNT):
            for status in range(<int>STATUS_CLASSES):
                if total.status[method][status]:
                    self._request(method, status, total.status[method][status])
        for i in range(1, <size_t>R_COUNT):
            if total.reasons[i]:
                self._number(METRIC_REASONS, b"reason", <bytes>_REASON_LABELS[<int>i], <int64_t>total.reasons[i])
        self._number(METRIC_BYTES_IN, NULL, NULL, <int64_t>total.bytes_in)
        self._number(METRIC_BYTES_OUT, NULL, NULL, <int64_t>total.bytes_out)
        self._histogram(METRIC_TOTAL, total.total, total.total_sum_ns, self.parts)
        self._histogram(METRIC_HEAD, total.upstream_head, total.upstream_head_sum_ns, NULL)
        return 0

    cdef int _request(self, int method, int status, uint64_t count) except -1:
        cdef size_t length = self.labels.len
        cdef bytes name = _METHOD_LABELS[method]
        self._label(b"method", span_of(name, len(name)))
        self._number(METRIC_REQUESTS, b"status", <bytes>_STATUS_LABELS[status], <int64_t>count)
        self.labels.len = length
        return 0

    cdef int _upstream(self, int place, UpstreamLoad load, UpstreamHealth health) except -1:
        cdef int64_t[UPSTREAM_COUNT] sums
        cdef int64_t* counts
        cdef UpstreamTimes times
        cdef uint64_t* words = <uint64_t*>&times
        cdef uint64_t* other
        cdef int worker, i
        cdef bint goes_up
        memset(sums, 0, sizeof(sums))
        memset(&times, 0, sizeof(times))
        for worker in range(<int>self.counters.head.workers):
            counts = <int64_t*>(self._block(worker) + self.counters.head.upstreams_at) + place * UPSTREAM_COUNT
            for i in range(<int>UPSTREAM_COUNT):
                goes_up = i not in (UPSTREAM_CONNECTIONS_OPEN, UPSTREAM_CONNECTIONS_IDLE, UPSTREAM_REQUESTS_WAITING)
                if goes_up or self.live[worker]:
                    sums[i] += counts[i]
            if counts[<int>UPSTREAM_EXCHANGES]:
                other = <uint64_t*>(
                    self._block(worker) + self.counters.head.upstream_times_at + <size_t>place * sizeof(UpstreamTimes)
                )
                for i in range(<int>(sizeof(UpstreamTimes) // sizeof(uint64_t))):
                    words[i] += other[i]
        self._number(METRIC_UPSTREAM_EXCHANGES, NULL, NULL, sums[<int>UPSTREAM_EXCHANGES])
        self._number(METRIC_UPSTREAM_ATTEMPTS, NULL, NULL, sums[<int>UPSTREAM_ATTEMPTS])
        self._number(METRIC_UPSTREAM_RETRIES, NULL, NULL, sums[<int>UPSTREAM_RETRIES])
        self._number(METRIC_UPSTREAM_FAILURES, NULL, NULL, sums[<int>UPSTREAM_FAILURES])
        self._number(METRIC_UPSTREAM_MADE, NULL, NULL, sums[<int>UPSTREAM_CONNECTIONS_MADE])
        self._number(METRIC_UPSTREAM_OPEN, NULL, NULL, sums[<int>UPSTREAM_CONNECTIONS_OPEN])
        self._number(METRIC_UPSTREAM_IDLE, NULL, NULL, sums[<int>UPSTREAM_CONNECTIONS_IDLE])
        self._number(METRIC_UPSTREAM_WAITING, NULL, NULL, sums[<int>UPSTREAM_REQUESTS_WAITING])
        self._number(METRIC_UPSTREAM_ACTIVE, NULL, NULL, <int64_t>load.sum(LOAD_REQUESTS))
        self._number(METRIC_UPSTREAM_RETRYING, NULL, NULL, <int64_t>load.sum(LOAD_RETRIES))
        self._number(METRIC_UPSTREAM_REFUSED, NULL, NULL, load.refused)
        self._number(METRIC_UPSTREAM_RETRIES_REFUSED, NULL, NULL, load.retries_refused)
        for i in range(len(_BREAKER_LABELS)):
            self._number(METRIC_UPSTREAM_BREAKER, b"state", <bytes>_BREAKER_LABELS[i], health.state.breaker.state == <uint32_t>i)
        self._histogram(METRIC_UPSTREAM_CONNECT, times.connect, times.connect_sum_ns, NULL)
        self._histogram(METRIC_UPSTREAM_QUEUE, times.queue, times.queue_sum_ns, NULL)
        return 0

    cdef int _endpoint(self, TallyHead* head, SharedTable states, int64_t now) except -1:
        cdef EndpointCounts total
        cdef EndpointCounts* counts
        cdef uint64_t answers = 0
        cdef uint64_t state
        cdef int worker, i, status
        memset(&total, 0, sizeof(total))
        for worker in range(<int>self.counters.head.workers):
            counts = <EndpointCounts*>self.counters.endpoints.block(head, worker)
            total.head_sum_ns += counts.head_sum_ns
            total.failed += counts.failed
            total.unanswered += counts.unanswered
            if self.live[worker]:
                total.active += counts.active
                total.open += counts.open
                total.idle += counts.idle
            for i in range(<int>HISTOGRAM_BUCKETS):
                total.head[i] += counts.head[i]
                answers += counts.head[i]
        if head == <TallyHead*>self.counters.endpoint_other.record.at and answers + total.unanswered == 0:
            return 0
        self._number(METRIC_ENDPOINT_REQUESTS, b"result", b"ok", <int64_t>(answers - min(answers, total.failed)))
        self._number(METRIC_ENDPOINT_REQUESTS, b"result", b"5xx", <int64_t>total.failed)
        self._number(METRIC_ENDPOINT_REQUESTS, b"result", b"no-answer", <int64_t>total.unanswered)
        self._number(METRIC_ENDPOINT_ACTIVE, NULL, NULL, total.active)
        self._number(METRIC_ENDPOINT_OPEN, NULL, NULL, total.open)
        self._number(METRIC_ENDPOINT_IDLE, NULL, NULL, total.idle)
        self._histogram(METRIC_ENDPOINT_HEAD, total.head, total.head_sum_ns, NULL)
        state = fg_load64(&head.state)
        if state:                           # not of those that are counted together
            status = endpoint_status(<EndpointState*>states._key(state - 1), now)
            for i in range(len(_ENDPOINT_LABELS)):
                self._number(METRIC_ENDPOINT_STATE, b"state", <bytes>_ENDPOINT_LABELS[i], status == i)
        return 0

    # -- lines

    cdef char* _block(self, int worker) noexcept nogil:
        return <char*>self.counters.head + self.counters.head.first_block + <size_t>worker * self.counters.head.block_stride

    cdef int _begin_labels(self) except -1:
        self.labels.len = 0
        return 0

    cdef int _label(self, const char* name, Span value) except -1:
        if self.labels.len:
            out_byte(&self.labels, b',')
        out_put(&self.labels, name, strlen(name))
        out_put(&self.labels, b'="', 2)
        _out_escaped(&self.labels, value)
        out_byte(&self.labels, b'"')
        return 0

    cdef int _number(self, int family, const char* label, const char* value, int64_t number) except -1:
        # value: needs no escapes.
        cdef Out* out = &self.outs[family]
        cdef bytes name = self.names[family]
        cdef size_t more = 0 if label == NULL else strlen(label) + strlen(value)
        cdef char* at
        if not out_reserve(out, <size_t>len(name) + self.labels.len + more + LINE_ROOM):
            return 0
        at = _put(out.data + out.len, PyBytes_AS_STRING(name), <size_t>len(name))
        at = _put(at, b'{', 1)
        at = _put(at, self.labels.data, self.labels.len)
        if label != NULL:
            at = _put(at, b',', 1)
            at = _put(at, label, strlen(label))
            at = _put(at, b'="', 2)
            at = _put(at, value, strlen(value))
            at = _put(at, b'"', 1)
        at = _put(put_decimal(_put(at, b'} ', 2), number), b'\n', 1)
        out.len = <size_t>(at - out.data)
        return 0

    cdef int _histogram(self, int family, const uint64_t* buckets, uint64_t sum_ns, RouteCounts** exemplars) except -1:
        # exemplars: where to look for them, up to a NULL; NULL: nowhere. A histogram without samples is left out.
        cdef Out* out = &self.outs[family]
        cdef bytes name = self.names[family]
        cdef bytes bound
        cdef char* at
        cdef uint64_t[METRIC_BUCKETS] counts
        cdef uint64_t total = 0
        cdef int i
        memset(counts, 0, sizeof(counts))
        for i in range(<int>HISTOGRAM_BUCKETS):
            counts[_METRIC_BUCKET[i]] += buckets[i]
            total += buckets[i]
        if total == 0:
            return 0
        self._begin_line(name, b'_bucket{', 8)
        out_byte(&self.line, b',')
        total = 0
        for i in range(<int>METRIC_BUCKETS):
            total += counts[i]
            bound = _BOUND_LABELS[i]
            if not out_reserve(out, self.line.len + <size_t>len(bound) + LINE_ROOM):
                return 0
            at = _put(out.data + out.len, self.line.data, self.line.len)
            at = _put(at, PyBytes_AS_STRING(bound), <size_t>len(bound))
            at = put_decimal(_put(at, b'} ', 2), <int64_t>total)
            out.len = <size_t>(at - out.data)
            if exemplars != NULL and self.openmetrics:
                self._exemplar(out, exemplars, i)
            out_byte(out, b'\n')
        self._begin_line(name, b'_sum{', 5)
        out_put(out, self.line.data, self.line.len)
        out_put(out, b'} ', 2)
        _out_seconds(out, sum_ns)
        out_byte(out, b'\n')
        self._begin_line(name, b'_count{', 7)
        out_put(out, self.line.data, self.line.len)
        out_put(out, b'} ', 2)
        out_decimal(out, <int64_t>total)
        out_byte(out, b'\n')
        return 0

    cdef int _begin_line(self, bytes name, const char* suffix, size_t length) except -1:
        self.line.len = 0
        out_put(&self.line, PyBytes_AS_STRING(name), <size_t>len(name))
        out_put(&self.line, suffix, length)
        out_put(&self.line, self.labels.data, self.labels.len)
        return 0

    cdef int _exemplar(self, Out* out, RouteCounts** routes, int bucket) except -1:
        # The latest that any worker has.
        cdef Exemplar best, read
        cdef Exemplar* at
        best.length = 0
        while routes[0] != NULL:
            at = &routes[0].exemplars[bucket]
            routes += 1
            # A number that is added to is read with all that was written before.
            read.turn = fg_add32(&at.turn, 0)
            memcpy(&read.is_trace, &at.is_trace, sizeof(Exemplar) - sizeof(uint32_t))
            if read.length == 0 or read.turn & 1 or fg_add32(&at.turn, 0) != read.turn:
                continue
            if best.length == 0 or read.unix_ns > best.unix_ns:
                best = read
        if best.length:
            if best.is_trace:
                out_put(out, b' # {trace_id="', 14)
            else:
                out_put(out, b' # {request_id="', 16)
            _out_escaped(out, span_of(best.id, best.length))
            out_put(out, b'"} ', 3)
            _out_seconds(out, <uint64_t>best.total_ns)
            out_byte(out, b' ')
            _out_seconds(out, <uint64_t>best.unix_ns)
        return 0
