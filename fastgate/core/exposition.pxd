# The counters as text for Prometheus, family by family.

cdef enum MetricFamily:
    # Keys in METRIC_FAMILIES.
    # -- of each route
    METRIC_REQUESTS
    METRIC_REASONS
    METRIC_BYTES_IN
    METRIC_BYTES_OUT
    METRIC_TOTAL
    METRIC_HEAD
    # -- of each upstream
    METRIC_UPSTREAM_EXCHANGES
    METRIC_UPSTREAM_ATTEMPTS
    METRIC_UPSTREAM_RETRIES
    METRIC_UPSTREAM_FAILURES
    METRIC_UPSTREAM_MADE
    METRIC_UPSTREAM_OPEN
    METRIC_UPSTREAM_IDLE
    METRIC_UPSTREAM_WAITING
    METRIC_UPSTREAM_ACTIVE
    METRIC_UPSTREAM_RETRYING
    METRIC_UPSTREAM_REFUSED
    METRIC_UPSTREAM_RETRIES_REFUSED
    METRIC_UPSTREAM_BREAKER
    METRIC_UPSTREAM_CONNECT
    METRIC_UPSTREAM_QUEUE
    # -- of each endpoint
    METRIC_ENDPOINT_REQUESTS
    METRIC_ENDPOINT_ACTIVE
    METRIC_ENDPOINT_OPEN
    METRIC_ENDPOINT_IDLE
    METRIC_ENDPOINT_STATE
    METRIC_ENDPOINT_HEAD
    # -- of each part of an aggregation
    METRIC_PART
    METRIC_PART_SPARED
    METRIC_PART_TOOK
    # -- of each plugin
    METRIC_PLUGIN
    METRIC_COUNT

cdef enum:
    METRICS_KEPT = 16 << 20     # bytes of text whose memory is kept for the next scrape
    LINE_ROOM = 32              # a number, and what stands around labels and behind it

@cython.final
cdef class MetricsText:
    cdef Counters counters
    cdef bint openmetrics
    cdef list names                 # bytes: of each family's samples
    cdef uint8_t* live              # by worker: it runs
    cdef Out[METRIC_COUNT] outs
    cdef Out labels                 # of what is being written
    cdef Out line                   # what the lines of a histogram begin with
    cdef RouteCounts** parts        # of a route: each worker's, up to a NULL

    cdef char* _block(self, int worker) noexcept nogil
    cdef int _begin_labels(self) except -1
    cdef int _begin_line(self, bytes name, const char* suffix, size_t length) except -1
    cdef int _label(self, const char* name, Span value) except -1
    cdef int _route(self, int place) except -1
    cdef int _request(self, int method, int status, uint64_t count) except -1
    cdef int _upstream(self, int place, UpstreamLoad load, UpstreamHealth health) except -1
    cdef int _endpoint(self, TallyHead* head, SharedTable states, int64_t now) except -1
    cdef int _number(self, int family, const char* label, const char* value, int64_t number) except -1
    cdef int _histogram(self, int family, const uint64_t* buckets, uint64_t sum_ns, RouteCounts** exemplars) except -1
    cdef int _exemplar(self, Out* out, RouteCounts** routes, int bucket) except -1
