# Counters, gauges and latency histograms of all workers, in memory that they share.

cdef enum Gauge:
    # Numbers of a worker that belong to no route. The names stand in GAUGES; those that end in "_open",
    # "_active" or "_waiting" go up and down, the others only up.
    GAUGE_CONNECTIONS_OPEN          # downstream
    GAUGE_CONNECTIONS_ACCEPTED
    GAUGE_CONNECTIONS_REFUSED       # closed at once: max_connections or max_connections_per_ip
    GAUGE_EXCHANGES_ACTIVE
    GAUGE_TUNNELS_ACTIVE
    GAUGE_LOG_DROPPED
    GAUGE_TLS_HANDSHAKES            # with clients, those that were resumed among them
    GAUGE_TLS_RESUMED
    GAUGE_TLS_TIMEOUTS              # handshakes that took longer than handshake_timeout
    GAUGE_TLS_FAILED
    GAUGE_TLS_REFUSED               # over a listener's handshake_rate
    GAUGE_TRACES_SAMPLED            # exchanges whose spans are to be exported
    GAUGE_TRACES_EXPORTED           # sampled exchanges whose spans the receiver has taken
    GAUGE_TRACES_DROPPED            # and those that were lost: no room, or not taken
    GAUGE_COUNT

cdef enum UpstreamCount:
    UPSTREAM_EXCHANGES              # that had at least one attempt
    UPSTREAM_ATTEMPTS
    UPSTREAM_RETRIES                # attempts behind the first
    UPSTREAM_FAILURES               # exchanges that ended with a reason whose source is "upstream"
    UPSTREAM_CONNECTIONS_OPEN
    UPSTREAM_CONNECTIONS_IDLE
    UPSTREAM_CONNECTIONS_MADE
    UPSTREAM_REQUESTS_WAITING       # for a connection
    UPSTREAM_COUNT

cdef enum:
    # Log-linear buckets: four for each octave from 2^15 ns (33 us) to 2^36 ns (69 s), one below and one
    # above.
    HISTOGRAM_OCTAVE = 15
    HISTOGRAM_OCTAVES = 21
    HISTOGRAM_BUCKETS = 4 * HISTOGRAM_OCTAVES + 2

cdef enum:
    METHOD_COUNT = METHOD_CONNECT + 1
    STATUS_CLASSES = 6              # none sent, 1xx .. 5xx
    # The fewer buckets that metrics show: see METRIC_BOUNDS. The last has no bound.
    METRIC_BUCKETS = 15
    # Of an exemplar's id: as long as the longest request id.
    EXEMPLAR_ID = 72

cdef struct Exemplar:
    # One exchange among those of a bucket. A reader takes it when `turn` is even and the same before and behind.
    uint32_t turn
    uint8_t is_trace                # `id` is a trace's, else a request's
    uint8_t length                  # of `id`; 0: there is none yet
    int64_t total_ns
    int64_t unix_ns
    char[EXEMPLAR_ID] id

cdef struct RouteCounts:
    # The sums and the statuses of GET lie within two cache lines: with the two buckets they are all that most
    # exchanges write.
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t total_sum_ns
    uint64_t upstream_head_sum_ns
    uint64_t[METHOD_COUNT][STATUS_CLASSES] status
    uint64_t[HISTOGRAM_BUCKETS] total
    uint64_t[HISTOGRAM_BUCKETS] upstream_head
    uint64_t[R_COUNT] reasons
    # -- what follows is no number to be added up
    Exemplar[METRIC_BUCKETS] exemplars      # of `total`

cdef enum:
    # Those of a RouteCounts that are added up over workers.
    ROUTE_WORDS = 4 + METHOD_COUNT * STATUS_CLASSES + 2 * HISTOGRAM_BUCKETS + R_COUNT

cdef struct UpstreamTimes:
    uint64_t connect_sum_ns
    uint64_t queue_sum_ns
    uint64_t[HISTOGRAM_BUCKETS] connect
    uint64_t[HISTOGRAM_BUCKETS] queue

cdef struct EndpointCounts:
    # One worker's, of one endpoint; in whole cache lines, so that no two workers write to one.
    uint64_t head_sum_ns
    uint64_t failed                 # answers of 500 and above, which are in `head` too
    uint64_t unanswered             # attempts that ended without a response's head
    int64_t active                  # attempts under way
    int64_t open
    int64_t idle
    uint64_t[HISTOGRAM_BUCKETS] head
    uint64_t[4] spare

cdef enum PartResult:
    # How a part of an aggregation ended,
    PART_OK
    PART_FAILED
    PART_SKIPPED
    # and how a request of it was spared.
    PART_CACHED
    PART_COALESCED
    PART_RESULTS

cdef struct PartCounts:
    # One worker's, of one part of an aggregation; in whole cache lines.
    uint64_t took_sum_ns
    uint64_t[PART_RESULTS] results
    uint64_t[HISTOGRAM_BUCKETS] took        # of its requests
    uint64_t[2] spare

cdef struct CountersHead:
    # What lies where, at the start of the mapping: a reader needs nothing else. Offsets and strides in bytes;
    # a block has its exchanges (one number for each route), gauges, upstreams, their times, routes, in this
    # order. The last route is "no route".
    uint64_t magic
    uint64_t version
    uint64_t workers
    uint64_t routes
    uint64_t upstreams
    uint64_t reasons
    uint64_t histogram_octave
    uint64_t histogram_octaves
    uint64_t first_block
    uint64_t block_stride
    uint64_t gauges_at
    uint64_t upstreams_at
    uint64_t upstream_times_at
    uint64_t routes_at
    uint64_t route_stride

@cython.final
cdef class Counters:
    # -- the mapping: anonymous and shared, made before the fork; one block for each worker
    cdef CountersHead* head
    cdef size_t length
    # -- this process's block: one writer and aligned 64-bit numbers need neither locks nor atomics
    cdef char* block
    cdef uint64_t* exchanges
    cdef int64_t* gauges
    cdef int64_t* upstreams
    cdef UpstreamTimes* upstream_times
    cdef char* routes               # RouteCounts, `route_stride` bytes apart
    cdef int place                  # of this process
    cdef uint8_t[R_COUNT] upstream_fault
    # -- whose numbers lie where: names keep their places over reloads
    cdef int route_room         # without "no route"
    cdef int upstream_room
    cdef SlotTable route_slots
    cdef SlotTable upstream_slots
    # -- endpoints: found by their names in every process, since each discovers its own
    cdef Tallies endpoints
    cdef Tally endpoint_other       # of those that there was no room for
    # -- parts of aggregations, by route and part
    cdef Tallies parts
    # -- what plugins count, by plugin and what
    cdef Tallies plugins
    cdef dict plugin_tallies        # of this process

    # Counts an ended exchange. The indexes of the record are those of the Slots of `assign`.
    cdef void record(self, const ExchangeRecord* record) noexcept nogil
    # That an exchange of this route will be recorded soon: with thousands of routes its numbers are in no cache.
    cdef void expect(self, int route_index) noexcept nogil
    cdef void gauge_add(self, int gauge, int64_t by) noexcept nogil
    cdef void gauge_set(self, int gauge, int64_t value) noexcept nogil
    cdef void upstream_add(self, int upstream_index, int which, int64_t by) noexcept nogil
    cdef void upstream_set(self, int upstream_index, int which, int64_t value) noexcept nogil
    # Where this process counts an endpoint, as long as the Tally is held. Never None. The Seat is held as long.
    cdef Tally endpoint_tally(self, str upstream, Seat seat)
    cdef RouteCounts* _route(self, int at) noexcept nogil
    cdef int _use(self, uint64_t worker) except -1
    cdef dict _sum_route(self, int route)
    cdef dict _sum_endpoints(self)
    cdef int _forget_route(self, int route) except -1
    cdef int _forget_upstream(self, int upstream) except -1

@cython.final
cdef class PartTally:
    # What the run of an aggregation counts for one of its parts.
    cdef Tally tally                # None: there was no room for it
    cdef PartCounts* counts         # NULL then

    cdef void _count(self, int result) noexcept
