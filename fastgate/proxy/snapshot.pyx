# Built from the checked configuration; see snapshot.pxd for the contract.

cdef class NativeFilter:
    cdef int check(self, Exchange x) except -1:
        raise NotImplementedError


cdef class RateLimitFilter(NativeFilter):
    """A token-bucket limit in front of a route."""

    cdef RateLimiter limiter

    def __init__(self, str name, RateLimiter limiter not None):
        self.name = name
        self.limiter = limiter

    cdef int check(self, Exchange x) except -1:
        cdef RateVerdict verdict
        cdef bint refused = self.limiter.check(&x.view, x.route.index, x.start_ns, &verdict)
        self.limiter.write_headers(&verdict, &x.extra)
        return R_RATE_LIMITED if refused else R_NONE


cdef class IpFilter(NativeFilter):
    """Allow and block lists of client addresses."""

    cdef IpFilterCore lists

    def __init__(self, str name, IpFilterCore lists not None):
        self.name = name
        self.lists = lists

    cdef int check(self, Exchange x) except -1:
        return R_ADDRESS_REFUSED if self.lists.refuses(&x.view.client) else R_NONE


cdef class Route:
    """A route, ready to run. Built by `fastgate.server.build`; durations in nanoseconds, -1 for none."""

    def __init__(
        self, *, int index, str name, upstream=None, redirect=None, respond=None, tuple filters=(), rewrite=None,
        rewrite_host=None, request_rules=None, response_rules=None, upgrades=(), bint keep_encoded_slash=False,
        body_limit=-2, total_ns=-1, tunnel_idle_ns, event_idle_ns,
    ):
        self.index = index
        self.name = name
        self.name_bytes = name.encode()
        self.upstream = upstream
        self.redirect = redirect
        if upstream is not None:
            self.action = ACTION_UPSTREAM
        elif redirect is not None:
            self.action = ACTION_REDIRECT
        else:
            self.action = ACTION_RESPOND
            self.respond_status, self.respond_lines, self.respond_body = respond
        self.filters = filters
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


cdef class Upstream:
    """A named group of endpoints. Built by `fastgate.server.build`; sizes in bytes, -1 for unlimited."""

    def __init__(
        self, *, int index, str name, weights, connect_ns, head_ns, idle_ns, header_bytes, header_count, body_limit,
        str host,
    ):
        self.index = index
        self.name = name
        self.name_bytes = name.encode()
        self.endpoints = []
        self.weights = tuple(weights)
        self.states = endpoint_states(len(self.weights) or 1)
        self.group = Group(upstream_states(1), name, balance="round-robin")
        self.connect_ns = connect_ns
        self.head_ns = head_ns
        self.idle_ns = idle_ns
        self.head_limits.line = header_bytes
        self.head_limits.bytes = header_bytes
        self.head_limits.count = header_count
        self.body_limit = body_limit
        self.host_mode = {"client": HOST_CLIENT, "endpoint": HOST_ENDPOINT}.get(host, HOST_LITERAL)
        self.host_literal = host.encode("latin-1")

    def add(self, Endpoint endpoint not None):
        cdef int weight = self.weights[len(self.endpoints)]
        self.endpoints.append(endpoint)
        self.group.replace((*self.group.seats, Seat(self.name, endpoint.address, table=self.states, weight=weight)))


cdef class Listener:
    """A listener's share of the configuration. Built by `fastgate.server.build`."""

    def __init__(
        self, *, str name, RouteTable table not None, tuple routes, request_line, header_bytes, header_count,
        body_limit, head_ns, body_idle_ns, keep_alive_ns, write_idle_ns, body_min_rate, trusted, bint proxy_protocol,
        forwarded, str request_id, str half_close,
    ):
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
        self.trusted = trusted
        self.proxy_protocol = proxy_protocol
        self.send_x_forwarded = "x-forwarded" in forwarded
        self.send_forwarded = "forwarded" in forwarded
        self.request_id = {
            "keep-trusted": REQUEST_ID_KEEP_TRUSTED, "keep": REQUEST_ID_KEEP, "always-new": REQUEST_ID_NEW,
        }[request_id]
        self.half_close = HALF_CLOSE_SERVE if half_close == "serve" else HALF_CLOSE_ABANDON
