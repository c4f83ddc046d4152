# What else plugins work with, the view of the exchange foremost: see plugin_views.pxd, and fastgate/plugins/api.py for
# what all of it promises.

cdef class SubResponse:
    """What an upstream answered to a request of the gateway's own. truncated: the body was longer than the limit."""

    def __init__(self, int status, headers, bytes body not None, bint truncated=False):
        self.status = status
        self.headers = _read_only_headers(headers)
        self.body = body
        self.truncated = truncated

    def json(self):
        """The body, by orjson. ValueError where it is no JSON."""
        return orjson.loads(self.body)

    def __repr__(self):
        return f"<SubResponse {self.status}, {len(self.body)} bytes>"


cdef Headers _read_only_headers(fields):
    # Of (name, value) as they came: no rule for what may be set applies.
    cdef Headers headers = Headers.__new__(Headers)
    cdef bytes name
    headers.own = []
    for text, value in fields:
        name = text.encode("latin-1")
        headers.own.append((name.lower(), name, value.encode("latin-1"), 0))
    return headers


cdef class GatewayError:
    """Why the gateway answers itself. code: see docs/reasons.md; detail: for logs alone."""

    def __repr__(self):
        return f"<GatewayError {self.code}>"


cdef GatewayError _gateway_error(int reason, int status, str detail):
    cdef GatewayError error = GatewayError.__new__(GatewayError)
    info = REASONS[reason]
    error.code = info.code
    error.status = status
    error.source = info.source
    error.retryable = info.retryable
    error.detail = detail or ""
    return error


class Refusal(Exception):
    """Raised by a hook in place of the answer that it would return: `answer(exchange)` makes that, a Response."""

    def answer(self, exchange):
        raise NotImplementedError


cdef object _make_gather = None


def gather_with(make not None):
    """`make(exchange, **options)` is what `ExchangeView.gather` gives."""
    global _make_gather
    _make_gather = make


cdef dict _REASON_BY_CODE = {info.code: index for index, info in enumerate(REASONS)}


cdef class ExchangeView:
    """One request and its response through the gateway, as a plugin sees it."""

    cdef Exchange _live(self):
        if self.x is None:
            raise RuntimeError(_OVER)
        return self.x

    cdef int _let_go(self, bint keep) except -1:
        if self.x is None:
            return 0
        if keep:
            self.request
            self.kept = {name: getattr(self, name) for name in (
                "id", "listener", "route", "captures", "upstream", "client_ip", "client_port", "peer_trusted", "tls", "status", "reason",
                "detail", "endpoint", "attempts", "bytes_in", "bytes_out", "duration")}
        if self.seen is not None:
            self.seen._let_go(keep)
        self.x = None
        return 0

    @property
    def request(self):
        cdef Request request
        if self.seen is None:
            request = Request.__new__(Request)
            request.x = self._live()
            request.run = self.run
            self.seen = request
        return self.seen

    @property
    def context(self):
        if self.notes is None:
            self.notes = {}
        return self.notes

    @property
    def consumer(self):
        return self.who

    @consumer.setter
    def consumer(self, consumer):
        cdef Exchange x = self._live()
        cdef str name, plan
        if consumer is None:
            x.consumer_name = None
            x.consumer_plan = None
            x.view.consumer = span_of(NULL, 0)
        else:
            name, plan = consumer.name, consumer.plan
            x.consumer_name = name.encode("utf-8", "surrogateescape")
            x.consumer_plan = plan
            x.view.consumer = bytes_span(x.consumer_name)
        self.who = consumer

    @property
    def id(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["id"]
        x = self._live()
        return PyUnicode_DecodeLatin1(x.request_id, x.request_id_length, NULL)

    @property
    def listener(self):
        return self._live().listener.name if self.kept is None else self.kept["listener"]

    @property
    def route(self):
        return self._live().route.name if self.kept is None else self.kept["route"]

    @property
    def captures(self):
        cdef Exchange x
        cdef int i
        if self.kept is not None:
            return self.kept["captures"]
        x = self._live()
        return {span_text(x.view.capture_names[i]): span_text(x.view.captures[i]) for i in range(x.view.capture_count)}

    @property
    def upstream(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["upstream"]
        x = self._live()
        if x.upstream is not None:
            return x.upstream.name
        return "" if x.route.upstream is None else x.route.upstream.name

    @upstream.setter
    def upstream(self, str name not None):
        cdef Exchange x = self._live()
        self.run.may_change()
        if x.route.action > ACTION_AGGREGATE:
            raise RuntimeError(f"route {x.route.name} asks no upstream")
        x.upstream = <Upstream?>self.run.chain.plugins.upstream(name)

    @property
    def client_ip(self):
        cdef Exchange x
        cdef char[64] text
        cdef char* end
        if self.kept is not None:
            return self.kept["client_ip"]
        x = self._live()
        if x.view.client.family == 0:
            return ""
        end = put_address(text, &x.view.client)
        return text[:end - text].decode("ascii")

    @property
    def client_port(self):
        return self._live().client_port if self.kept is None else self.kept["client_port"]

    @property
    def peer_trusted(self):
        return bool(self._live().client_trusted) if self.kept is None else self.kept["peer_trusted"]

    @property
    def tls(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["tls"]
        x = self._live()
        return None if x.client.tls is None or x.client.tls.version is None else x.client.tls.info()

    @property
    def shared(self):
        # Of the plugin that asks: an on_log that waited may do so while another plugin's hook runs.
        cdef object task = _current_task()
        if self.run is None:
            raise RuntimeError(_OVER)
        return (<_StandIn>task).slot.shared if isinstance(task, _StandIn) else self.run.slot.shared

    def refuse(self, int status, str code not None, str detail="", *, headers=()):
        """An error answer as the gateway's own: problem+json with ``code``, which also stands in log, metric and
        Proxy-Status."""
        cdef Exchange x = self._live()
        cdef int reason = _REASON_BY_CODE.get(code, R_PLUGIN_REFUSED)
        cdef Response response
        cdef tuple parts
        if not 400 <= status <= 599:
            raise ValueError(f"{status} is no status code of a refusal")
        if not is_token(bytes_span(code.encode("ascii", "replace"))):
            raise ValueError(f"{code!r} is no reason code")
        parts = problem_parts(x, reason, status, code)
        response = _own_response(status, parts[0], parts[1], "plugin", reason)
        response.reason_code = code
        response.detail = detail if reason != R_PLUGIN_REFUSED else f"{code}: {detail}" if detail else code
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            if name.lower() == "retry-after":
                response.head[name] = value
            else:
                response.head.add(name, value)
        return response

    async def subrequest(self, str upstream not None, *, str method="GET", str path="/", headers=None, bytes body=b"",
                         double timeout=5.0, int64_t limit=1048576):
        """Asks an upstream of the configuration on the gateway's own pools."""
        cdef Exchange x = self._live()
        return await ask_upstream(x.worker, self.run.chain.plugins.upstream(upstream), x, method, path, headers, body, timeout,
                                  limit)

    def _ask(self, str upstream not None, str method not None, str path not None, headers, bytes body not None, double timeout,
             int64_t limit, RetryPolicy retry):
        # A part of `gather`: a Future. Unlike a subrequest it is tried again, as `retry` says, or the upstream's where that
        # is None.
        cdef Exchange x = self._live()
        return ask_upstream(x.worker, self.run.chain.plugins.upstream(upstream), x, method, path, headers, body, timeout, limit,
                            True, retry)

    def _part_cache(self, make not None):
        # Kept answers of the route's parts, made once by `make`; a reload begins anew.
        cdef PluginChain chain
        self._live()
        chain = self.run.chain
        if chain.part_cache is None:
            chain.part_cache = make()
        return chain.part_cache

    def gather(self, **options):
        """A block of parts that are asked for together: see fastgate/aggregation/gather.py."""
        self._live()
        return _make_gather(self, **options)

    @property
    def time_left(self):
        cdef Exchange x = self._live()
        cdef int64_t now = now_ns()
        cdef int64_t until = now + self.run.slot.timeout_ns
        if self.run.suspended and x.phase_deadline and not self.run.reading:
            until = x.phase_deadline            # the hook's budget runs already
        if x.total_deadline:
            until = min(until, x.total_deadline)
        return max(0, until - now) / 1e9

    # -- at the end ------------------------------------------------------------------------------------------------

    @property
    def status(self):
        return self._live().status if self.kept is None else self.kept["status"]

    @property
    def reason(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["reason"]
        x = self._live()
        return "" if x.reason == R_NONE else REASONS[x.reason].code

    @property
    def detail(self):
        return self._live().detail or "" if self.kept is None else self.kept["detail"]

    @property
    def endpoint(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["endpoint"]
        x = self._live()
        return "" if x.endpoint is None else x.endpoint.address

    @property
    def attempts(self):
        return self._live().attempts if self.kept is None else self.kept["attempts"]

    @property
    def bytes_in(self):
        return self._live().bytes_in if self.kept is None else self.kept["bytes_in"]

    @property
    def bytes_out(self):
        return self._live().bytes_out if self.kept is None else self.kept["bytes_out"]

    @property
    def duration(self):
        return (now_ns() - self._live().start_ns) / 1e9 if self.kept is None else self.kept["duration"]
