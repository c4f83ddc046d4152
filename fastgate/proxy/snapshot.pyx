# Built from the checked configuration; see snapshot.pxd for the contract.

cdef class NativeFilter:
    cdef int check(self, Exchange x) except -1:
        raise NotImplementedError

    cdef bint waits(self) noexcept:
        return False

    cdef bint observes(self) noexcept:
        return False

    cdef int observe(self, Exchange x, ResponseHead* head) except -1:
        return 0

    @property
    def in_chain(self):
        """Whether a route that has it needs a PluginChain for it."""
        return self.waits() or self.observes()


cdef class RateLimitFilter(NativeFilter):
    """A token-bucket limit."""

    cdef readonly RateLimiter limiter

    def __init__(self, str name, RateLimiter limiter not None):
        self.name = name
        self.limiter = limiter

    cdef int check(self, Exchange x) except -1:
        cdef RateVerdict verdict
        cdef bint refused = self.limiter.check(&x.view, x.route.id, x.start_ns, &verdict)
        self.limiter.write_headers(&verdict, &x.extra)
        return R_RATE_LIMITED if refused else R_NONE

    cdef bint observes(self) noexcept:
        return self.limiter.cost_header is not None

    cdef int observe(self, Exchange x, ResponseHead* head) except -1:
        cdef int64_t cost = cost_of(head, self.limiter.cost_header)
        if cost >= 0:
            self.limiter.charge(&x.view, x.route.id, cost - self.limiter.cost, now_ns())
        return 0


cdef int64_t cost_of(ResponseHead* head, bytes header) noexcept:
    # What an upstream says that a request has cost; -1: it does not say.
    cdef int i
    for i in range(head.field_count):
        if span_is(head.fields[i].name, PyBytes_AS_STRING(header), len(header)):
            return parse_decimal(head.fields[i].value)
    return -1


cdef class IpFilter(NativeFilter):
    """Allow and block lists of client addresses."""

    cdef IpFilterCore lists

    def __init__(self, str name, IpFilterCore lists not None):
        self.name = name
        self.lists = lists

    def counts(self):
        return self.lists.counts()

    cdef int check(self, Exchange x) except -1:
        return R_ADDRESS_REFUSED if self.lists.refuses(&x.view.client) else R_NONE


cdef class Route:
    """A route, ready to run. Built by `fastgate.server.build`; durations in nanoseconds, -1 for none. slot: None for one
    that nobody counts. captures: names of its path's {name} segments. trace_sample: the share of its requests that is
    traced, -1 for the listener's."""

    def __init__(
        self, *, Slot slot, str name, upstream=None, split=None, tuple split_upstreams=(), split_key=None,
        aggregate=None, redirect=None, respond=None, int priority=PRIORITY_NORMAL, retry=None, fallback=None, fault=None, mirror=None,
        tuple captures=(), tuple filters=(), chain=None, rewrite=None, rewrite_host=None, request_rules=None, response_rules=None,
        upgrades=(), bint keep_encoded_slash=False, double trace_sample=-1, body_limit=-2, total_ns=-1, tunnel_idle_ns, event_idle_ns,
    ):
        cdef int i
        self.slot = -1 if slot is None else slot.index
        self.lease = slot
        self.name = name
        self.name_bytes = name.encode()
        self.id = route_id(name)
        self.capture_text = tuple([each.encode() for each in captures])
        for i in range(min(len(self.capture_text), MAX_CAPTURES)):
            self.captures[i] = bytes_span(<bytes>self.capture_text[i])
        self.upstream = upstream
        self.split = split
        self.split_upstreams = split_upstreams
        self.split_key = split_key
        self.aggregate = aggregate
        self.redirect = redirect
        if upstream is not None:
            self.action = ACTION_UPSTREAM
        elif split is not None:
            self.action = ACTION_SPLIT
        elif aggregate is not None:
            self.action = ACTION_AGGREGATE
            self.gather_room = aggregate.max_memory
        elif redirect is not None:
            self.action = ACTION_REDIRECT
        else:
            self.action = ACTION_RESPOND
            self.respond_status, self.respond_lines, self.respond_body = respond
        self.priority = priority
        self.trace_threshold = TRACE_DEFAULT if trace_sample < 0 else trace_threshold(trace_sample)
        self.retry = retry
        self.fallback = fallback
        self.fault = fault
        self.mirror = mirror
        self.detour = split is not None or fault is not None or mirror is not None
        self.filters = filters
        self.chain = chain
        self.rewrite = rewrite
        self.rewrite_host = None if rewrite_host is None else rewrite_host.encode("latin-1")
        self.request_rules = request_rules
        self.response_rules = response_rules
        self.upgrades = tuple([each.lower().encode("latin-1") for each in upgrades])
        self.keep_encoded_slash = keep_encoded_slash
        self.body_limit = body_limit
        self.total_ns = total_ns
        self.tunnel_idle_ns = tunnel_idle_ns
        self.event_idle_ns = event_idle_ns


cdef class Fallback:
    """What is done when a route's upstream fails: another upstream, or a fixed answer (status, field lines, body)."""

    def __init__(self, RetryPolicy when not None, *, bint on_no_endpoint, bint on_overload, upstream=None, respond=None):
        self.when = when
        self.on_no_endpoint = on_no_endpoint
        self.on_overload = on_overload
        self.upstream = upstream
        if respond is not None:
            self.status, self.lines, self.body = respond
            self.lines += b'Proxy-Status: fastgate; details="fallback-response"\r\n'

    cdef bint wants(self, int reason, int status) noexcept:
        if reason in (R_NO_ENDPOINT, R_ENDPOINTS_PENDING, R_DNS_FAILURE):
            return self.on_no_endpoint
        if reason in (R_OVERLOADED, R_OVERLOAD_TIMEOUT, R_BREAKER_OPEN, R_BREAKER_LIMIT, R_QUEUE_FULL, R_QUEUE_TIMEOUT):
            return self.on_overload
        return self.when.wants(reason, status)


cdef class Upstream:
    """A named group of endpoints. Built by `fastgate.server.build`; sizes in bytes, -1 for unlimited.

    Requests wait until `endpoints_found` is first called, `connect_ns` at most.
    """

    def __init__(
        self, *, Slot slot not None, str name, Group group not None, UpstreamHealth health not None, hash_key=None,
        sticky=None, hedge=None, UpstreamLoad load not None, admission=None, retry=None, connect_ns, head_ns, idle_ns,
        header_bytes, header_count, body_limit, str host, tls=None, str tls_name="",
    ):
        self.slot = slot.index
        self.lease = slot
        self.name = name
        self.name_bytes = name.encode()
        self.group = group
        self.health = health
        self.hash_key = hash_key
        self.sticky = sticky
        self.arrivals = set()
        self.ewma = group.balance == "peak-ewma"
        self.hedge = hedge
        self.load = load
        self.admission = admission
        self.gated = health.upstream_breaker or admission is not None
        self.next_up = []
        self.sent_away = []
        self.retry = retry
        self.tls = tls
        self.tls_name = tls_name
        self.connect_ns = connect_ns
        self.head_ns = head_ns
        self.idle_ns = idle_ns
        self.head_limits.line = header_bytes
        self.head_limits.bytes = header_bytes
        self.head_limits.count = header_count
        self.body_limit = body_limit
        self.host_mode = {"client": HOST_CLIENT, "endpoint": HOST_ENDPOINT}.get(host, HOST_LITERAL)
        self.host_literal = host.encode("latin-1")

    def endpoints_found(self, tuple endpoints not None, str problem=None, bint unresolved=False):
        """These are its endpoints from now on. Those that were and are no more finish what runs and are closed.

        problem: why there is none; unresolved: because of a name."""
        cdef Endpoint endpoint
        cdef Exchange x
        cdef int64_t now = now_ns()
        cdef set gone = set(self.group.seats).difference(endpoints)
        self.group.replace(endpoints)
        self.problem = problem
        self.unresolved = unresolved
        for endpoint in gone:
            endpoint.retire()
        self.known = True
        waiting, self.arrivals = self.arrivals, set()
        for x in waiting:
            # The end of one may have ended another: parts of one aggregation.
            if x.phase == X_UNRESOLVED and x.upstream is self:
                x.send_stashed(False, now)

    cdef int next_in_line(self, object next, int64_t now) except -1:
        # Not by recursion: who is sent may be over at once, and give its place to the next.
        cdef Exchange x
        cdef uint64_t turn
        if next is None:
            return 0
        self._give_slot(<Exchange>next, now)
        if self.serving_queue:
            return 0
        self.serving_queue = True
        try:
            while self.next_up:
                x, turn = self.next_up.pop(0)
                next = self.admission.next(now)     # a limit that grew may have room for more
                if next is not None:
                    self._give_slot(<Exchange>next, now)
                # The end of one may have ended another, which has given its slot back then.
                if x.turn == turn and x.phase == X_NEW:
                    x.send_stashed(False, now)
        finally:
            self.serving_queue = False
        return 0

    cdef int _give_slot(self, Exchange x, int64_t now) except -1:
        x.holds |= HOLDS_SLOT
        x.slot_ns = now
        x.queue_ns = now - x.start_ns
        x.phase = X_NEW
        self.next_up.append((x, x.turn))
        return 0

    cdef int send_away(self, Exchange x, int64_t now) except -1:
        # Not by recursion: its client may have a next request here, which sends away another.
        cdef uint64_t turn
        self.sent_away.append((x, x.turn))
        if self.sending_away:
            return 0
        self.sending_away = True
        try:
            while self.sent_away:
                x, turn = self.sent_away.pop(0)
                if x.turn == turn and x.phase == X_QUEUED:
                    queue_refused(x, R_OVERLOADED, now)
        finally:
            self.sending_away = False
        return 0


cdef class Listener:
    """A listener's share of the configuration. Built by `fastgate.server.build`."""

    def __init__(
        self, *, str name, RouteTable table not None, tuple routes, request_line, header_bytes, header_count,
        body_limit, head_ns, body_idle_ns, keep_alive_ns, write_idle_ns, body_min_rate, trusted, bint proxy_protocol,
        forwarded, str request_id, str half_close, tls=None, int64_t handshake_ns=0, double handshake_rate=0,
        bint strict_host=False, str hsts="", TracePolicy tracing=None,
    ):
        self.tracing = tracing
        self.name = name
        self.name_bytes = name.encode()
        self.table = table
        self.routes = routes
        self.head_limits.line = request_line
        self.head_limits.bytes = header_bytes
        self.head_limits.count = header_count
        self.body_limit = body_limit
        self.head_ns = head_ns
        self.body_idle_ns = body_idle_ns
        self.keep_alive_ns = keep_alive_ns
        self.write_idle_ns = write_idle_ns
        self.body_min_rate = body_min_rate
        self.certificates = tls
        self.handshake_ns = handshake_ns
        self.handshake_gap_ns = <int64_t>(SECOND / handshake_rate) if handshake_rate else 0
        self.strict_host = strict_host
        self.hsts = f"Strict-Transport-Security: {hsts}\r\n".encode() if hsts else None
        self.trusted = trusted
        self.proxy_protocol = proxy_protocol
        self.send_x_forwarded = "x-forwarded" in forwarded
        self.send_forwarded = "forwarded" in forwarded
        self.request_id = {
            "keep-trusted": REQUEST_ID_KEEP_TRUSTED, "keep": REQUEST_ID_KEEP, "always-new": REQUEST_ID_NEW,
        }[request_id]
        self.half_close = HALF_CLOSE_SERVE if half_close == "serve" else HALF_CLOSE_ABANDON


cdef class ListenerSlot:
    """Which Listener the connections of one listening socket follow."""

    def __init__(self, Listener listener not None):
        self.current = listener

    def follow(self, Listener listener not None):
        """From now on every request begins with this one."""
        self.current = listener
