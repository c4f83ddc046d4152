# Exchanges that no client asked for: hedges, mirrors, and what the gateway asks for itself. Each is an Exchange like
# any other, on the same pools; only its client side is one of these.

cdef Exchange twin_of(Exchange x, InnerSide side, int kind):
    # The same request once more. Spans into `head` are shared with it (the bytes are kept alive by both); what was
    # written anew (`scratch`) is written anew.
    cdef Exchange twin = x.worker.take_exchange()
    cdef int i, count = x.view.field_count
    x.worker.inner.add(twin)
    twin.kind = kind
    side.address = x.client.peer_address()[0]
    side.secure = x.client.secure
    twin.client = side
    twin.listener = x.listener
    twin.route = x.route
    twin.upstream = x.upstream
    twin.head = x.head
    twin.raw_target = x.raw_target
    twin.facts = x.facts
    twin.view = x.view
    twin.make_room(count)
    memcpy(twin.fields, x.fields, <size_t>count * sizeof(Field))
    twin.view.fields = twin.fields
    normalise_target(x.view.method_id, x.raw_target, x.facts.host, &twin.target, &twin.scratch)
    twin.view.host = twin.target.host
    twin.changed_head = x.changed_head
    twin.changed_method = x.changed_method
    twin.consumer_name = x.consumer_name
    if x.changed_path is None:
        twin.view.path = twin.target.path
        twin.view.query = twin.target.query
    else:
        twin.changed_path = x.changed_path
        twin.changed_query = x.changed_query
        twin.path_set = x.path_set
    for i in range(x.view.capture_count):
        # They point into the path as it was matched, whatever a plugin has made of it since: the same place in the twin's own.
        twin.view.captures[i].ptr = twin.target.path.ptr + (x.view.captures[i].ptr - x.target.path.ptr)
    memcpy(twin.request_id, x.request_id, sizeof(x.request_id))
    twin.request_id_length = x.request_id_length
    twin.client_port = x.client_port
    twin.client_trusted = x.client_trusted
    twin.start_ns = now_ns()
    twin.body_limit = -1
    twin.request_done = True
    inherit_trace(twin, x)
    if x.request_trailers.len:
        out_put(&twin.request_trailers, x.request_trailers.data, x.request_trailers.len)
    return twin


cdef class InnerSide(ClientSide):
    """A client side with nobody behind it: takes everything and keeps nothing."""

    cdef int send_head(self, Exchange x, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        return SENT_ALL

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        return SENT_ALL

    cdef int send_interim(self, Exchange x, ResponseHead* head) except -1:
        return SENT_ALL

    cdef int pause_request(self) except -1:
        return 0

    cdef int resume_request(self) except -1:
        return 0

    cdef int cut(self, Exchange x) except -1:
        return 0

    cdef int exchange_done(self, Exchange x, int64_t now) except -1:
        x.worker.inner.discard(x)
        return 0

    cdef int no_more(self) except -1:
        return 0

    cdef const Address* peer_address(self) noexcept:
        return &self.address


# -- mirrors ---------------------------------------------------------------------------------------------------------

cdef class Discard(InnerSide):
    def __cinit__(self, Mirror mirror not None):
        self.mirror = mirror
        mirror.active += 1

    cdef int exchange_done(self, Exchange x, int64_t now) except -1:
        self.mirror.active -= 1
        return InnerSide.exchange_done(self, x, now)


cdef class Mirror:
    """Copies of a share of a route's requests, whose answers nobody waits for.

    percent: of the requests. max_active: copies under way at one time, in this worker; one more is not made. body_limit:
    bytes of a request's body; a request with more is not copied.
    """

    def __init__(self, Upstream upstream not None, *, double percent, int max_active, int64_t body_limit):
        self.upstream = upstream
        self.share = random_share(percent)
        self.max_active = max_active
        self.body_limit = body_limit

    cdef bint has_room(self, Exchange x) noexcept:
        return self.active < self.max_active and not x.worker.draining

    cdef bint wants(self, Exchange x) noexcept:
        return self.has_room(x) and not x.upgrading and <uint32_t>random64(&x.worker.random) < self.share

    cdef int start(self, Exchange copy, const char* body, size_t length, int64_t now) except -1:
        copy.upstream = self.upstream
        copy.replayable = False
        if copy.route.total_ns >= 0:
            # A shadow that answers without an end holds nothing for longer than a client would have waited.
            copy.total_deadline = now + copy.route.total_ns
            copy.worker.arm(copy, copy.total_deadline)
        return enter_upstream(copy, body, length, True, now)


# -- hedges ----------------------------------------------------------------------------------------------------------

cdef int64_t hedge_at(Exchange x, int64_t now) noexcept:
    # When the second request is to be sent; 0: never.
    cdef int64_t delay
    if x.facts.body != BODY_NONE or x.upgrading or x.hedge is not None or not _idempotent(x.view.method_id):
        return 0
    delay = x.upstream.hedge.delay(now)
    return 0 if delay < 0 else now + delay


cdef int start_hedge(Exchange x, int64_t now) except -1:
    cdef Exchange hedge
    cdef HedgeSide side
    if x.attempt is None or x.worker.draining or not x.upstream.hedge.take():
        return 0
    side = HedgeSide()
    side.main = x
    hedge = twin_of(x, side, KIND_HEDGE)
    hedge.tries = x.tries
    memcpy(hedge.tried, x.tried, sizeof(x.tried))
    hedge.replayable = True
    hedge.replay = b""
    x.hedge = hedge
    return hedge.send(b"", 0, True, False, now)


cdef bint hedge_refused(Exchange hedge, int status) except -1:
    # A server error does not win against an attempt that may still succeed: a hedge must not make anything worse.
    cdef Exchange x = (<HedgeSide>hedge.client).main
    if status < 500 or x.attempt is None:
        return False
    note_try(hedge, R_NONE, "a server error does not win", status, now_ns())
    hedge.rise()
    hedge.client_gone(R_NONE, None)
    return True


cdef int drop_hedge(Exchange x) except -1:
    cdef Exchange hedge = x.hedge
    note_try(hedge, R_NONE, "the first try was first", 0, now_ns())
    adopt_notes(x, hedge)
    x.hedge = None
    (<HedgeSide>hedge.client).main = None
    return hedge.client_gone(R_NONE, None)


cdef class HedgeSide(InnerSide):
    cdef int send_head(self, Exchange hedge, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        # It was first: its answer is the answer.
        cdef Exchange x = self.main
        cdef EndpointSide late = x.attempt
        cdef int64_t now = now_ns()
        self.answered = True
        x.attempt = None
        note_try(x, R_NONE, "its hedge was first", 0, now)
        if late is not None:
            # It would have taken at least so long: without these samples the quantile would sink with each hedge.
            x.upstream.hedge.latency.observe(now - x.sent_ns, now)
            late.abandon()
        x.rise()
        x.endpoint = hedge.endpoint
        x.attempts += hedge.attempts
        x.upstream_head_ns = hedge.upstream_head_ns
        x.held_reason = R_NONE
        x.begin_answer(head.status)
        if end:
            self.pass_trailers(hedge)
        return x.pass_head(head, body, length, end)

    cdef int send_body(self, Exchange hedge, const char* body, size_t length, bint end) except -1:
        cdef Exchange x = self.main
        if end:
            self.pass_trailers(hedge)
        return x.pass_body(body, length, end)

    cdef int pass_trailers(self, Exchange hedge) except -1:
        if hedge.response_trailers.len:
            out_put(&self.main.response_trailers, hedge.response_trailers.data, hedge.response_trailers.len)
        return 0

    cdef int send_interim(self, Exchange hedge, ResponseHead* head) except -1:
        return SENT_ALL                     # its own attempt may have sent the client some already

    cdef int cut(self, Exchange hedge) except -1:
        self.cut_short = True
        return 0

    cdef int exchange_done(self, Exchange hedge, int64_t now) except -1:
        cdef Exchange x = self.main
        cdef int reason
        InnerSide.exchange_done(self, hedge, now)
        self.main = None
        if x is None:
            return 0
        adopt_notes(x, hedge)
        x.hedge = None
        if self.cut_short:
            return x.fail(hedge.reason, hedge.detail)
        if self.answered:
            return x.answer_ended(now)
        if hedge.attempts == 0:
            hedge.upstream.hedge.give()
        x.attempts += hedge.attempts
        if x.held_reason == R_NONE:
            return 0                        # the first one is still under way
        reason = x.held_reason
        x.held_reason = R_NONE
        x._rewind()
        return attempt_over(x, b"", 0, True, reason, x.held_detail, now)


# -- what the gateway asks for itself --------------------------------------------------------------------------------

class SubrequestError(Exception):
    """A request of the gateway's own that got no answer. `reason` is a code of REASONS."""

    def __init__(self, str reason, detail=None):
        super().__init__(reason if detail is None else f"{reason}: {detail}")
        self.reason = reason


cdef class Subrequest(InnerSide):
    """Gathers an answer for a Future: at most `limit` bytes of its body."""

    def __cinit__(self, object future, int64_t limit):
        self.future = future
        self.limit = limit
        self.parts = []

    cdef int send_head(self, Exchange x, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        cdef int i
        self.status = head.status
        self.fields = [(span_text(head.fields[i].name), span_text(head.fields[i].value)) for i in range(head.field_count)
                       if not head.fields[i].drop]
        return self.send_body(x, body, length, end)

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        # What lies beyond the limit is read and dropped, so that the connection can be used again.
        cdef size_t take = <size_t>max(0, min(<int64_t>length, self.limit - self.taken))
        if take:
            self.parts.append(body[:take])
            self.taken += <int64_t>take
        self.truncated = self.truncated or take < length
        return SENT_ALL

    cdef int cut(self, Exchange x) except -1:
        self.status = 0
        return 0

    cdef int exchange_done(self, Exchange x, int64_t now) except -1:
        InnerSide.exchange_done(self, x, now)
        self.asked = None
        if self.future.done():
            return 0
        if self.status and x.reason == R_NONE:
            self.future.set_result(SubResponse(self.status, self.fields, b"".join(self.parts), self.truncated))
        else:
            self.future.set_exception(SubrequestError(REASONS[x.reason].code, x.detail))
        return 0

    def _asker_left(self, future):
        if self.asked is not None and future.cancelled():
            self.asked.client_gone(R_CLIENT_GONE, None)


cdef Exchange inner_exchange(Worker worker, Upstream upstream, InnerSide side, bytes head, bytes body, int64_t timeout_ns,
                             bint tells_of):
    # An exchange that is ready to be sent. tells_of: what the head says of the client (X-Forwarded-*) goes on as it stands.
    # Raises ValueError for a head that is none.
    cdef Exchange x
    cdef HeadScan scan
    cdef HeadLimits limits
    cdef Py_ssize_t size
    cdef int reason = R_NONE
    cdef int i
    memset(&scan, 0, sizeof(scan))
    limits.line = limits.bytes = 65536
    limits.count = 200
    size = scan_head(PyBytes_AS_STRING(head), len(head), &scan, &limits, &reason)
    if size != len(head):
        raise ValueError("not a whole request head")
    x = worker.take_exchange()
    worker.inner.add(x)
    x.kind = KIND_SUBREQUEST
    x.client = side
    x.listener = worker.inner_listener
    x.route = worker.inner_route
    x.upstream = upstream
    x.head = head
    x.start_ns = now_ns()
    x.request_done = True
    x.body_limit = -1
    memset(&x.facts, 0, sizeof(HeadFacts))
    x.request_id_length = worker.make_request_id(x.request_id)
    x.make_room(scan.lines)
    reason = split_request_line(PyBytes_AS_STRING(head), size, &x.view.method, &x.view.method_id, &x.raw_target,
                                &x.facts.http_minor)
    if reason == R_NONE:
        x.view.field_count = max(0, split_fields(PyBytes_AS_STRING(head), size, x.fields, x.field_room))
        x.view.fields = x.fields
        reason = read_request_facts(x.fields, x.view.field_count, &x.facts)
        for i in range(x.view.field_count if tells_of else 0):
            if x.fields[i].id in (F_FORWARDED, F_X_FORWARDED_FOR, F_X_FORWARDED_PROTO, F_X_FORWARDED_HOST):
                x.fields[i].drop = 0        # said by who asks, and not written anew by the inner listener
    if reason == R_NONE:
        reason = normalise_target(x.view.method_id, x.raw_target, x.facts.host, &x.target, &x.scratch)
    if reason != R_NONE or x.facts.body == BODY_CHUNKED or max(0, x.facts.content_length) != len(body):
        x.client_gone(reason, None)
        raise ValueError(f"not a request head: {REASONS[reason].code}")
    x.view.path = x.target.path
    x.view.query = x.target.query
    x.view.host = x.target.host
    x.total_deadline = x.start_ns + timeout_ns
    worker.arm(x, x.total_deadline)
    return x


cdef Exchange subrequest(Worker worker, Upstream upstream, bytes head, bytes body, int64_t timeout_ns, int64_t limit):
    # One whose answer a Future waits for. Raises ValueError.
    cdef Subrequest side
    cdef Exchange x
    future = worker.loop.create_future()
    side = Subrequest(future, limit)
    try:
        x = inner_exchange(worker, upstream, side, head, body, timeout_ns, True)
    except ValueError:
        future.cancel()                     # or, for the exchange that was begun, it has an exception that nobody reads
        if not future.cancelled():
            future.exception()
        raise
    side.asked = x
    future.add_done_callback(side._asker_left)
    return x


def ask_endpoint(Endpoint endpoint not None, bytes head not None, int64_t timeout_ns, int64_t body_limit):
    """Sends a request of the gateway's own to one endpoint, on its pool, whatever state it is in.

    head: a whole HTTP/1.1 request head without a body. Returns a Future of SubResponse, with at most `body_limit` bytes
    of the body. It fails with SubrequestError, at the latest after `timeout_ns`. Raises ValueError for a head that is none.
    """
    cdef Exchange x = subrequest(endpoint.worker, endpoint.upstream, head, b"", timeout_ns, body_limit)
    future = (<Subrequest>x.client).future
    x.endpoint = endpoint
    x.pinned = True
    x.replayable = True
    x.replay = b""
    x.send(b"", 0, True, False, x.start_ns)
    return future


cdef int send_inner(Exchange x, Exchange parent, bint traced, bytes body) except -1:
    # To whoever the upstream's balancer chooses. parent: whom it is for, None: nobody. traced: its tries are spans of that.
    if parent is not None:
        memcpy(x.request_id, parent.request_id, sizeof(x.request_id))
        x.request_id_length = parent.request_id_length
        if traced:
            inherit_trace(x, parent)
    if _idempotent(x.view.method_id):
        x.replayable = True
        x.replay = b""
        x.replay_limit = REPLAY_LIMIT
    return enter_upstream(x, PyBytes_AS_STRING(body), <size_t>len(body), True, x.start_ns)


cdef enum:
    LONGEST_WAIT = 86400    # seconds that a request of a plugin may take

cdef frozenset _ON_BEHALF = frozenset(("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"))


cdef object ask_upstream(Worker worker, Upstream upstream, Exchange parent, str method, str path, object headers, bytes body,
                         double timeout, int64_t limit, bint retried=False, RetryPolicy retry=None):
    # As `ask_endpoint`, of whoever the upstream's balancer chooses, within its limits. Names and values of `headers` are
    # checked; Host is that of `parent`, or the upstream's name, where they have none. Of whom a request speaks that is asked on
    # behalf of another (X-Forwarded-*), the gateway does not say by itself: the caller may. timeout: seconds. Raises ValueError.
    cdef Exchange x
    cdef Subrequest side
    cdef Headers own
    cdef list lines
    cdef bytes target
    cdef str host = None
    cdef bint traced = False
    cdef list others = []
    cdef list behalf = []
    for name, value in ({} if headers is None else headers).items():
        if name.lower() == "host":
            host = value
        elif name.lower() in _ON_BEHALF:
            behalf += [_field_name(name), b": ", _field_value(value), b"\r\n"]
        else:
            others.append((name, value))
    own = Headers(others)
    if host is None:
        host = upstream.name if parent is None or parent.target.authority.len == 0 else span_text(parent.target.authority)
    if not 0 < timeout <= LONGEST_WAIT:
        raise ValueError(f"{timeout} is no timeout: it lies above 0 and within {LONGEST_WAIT} seconds")
    if limit < 0:
        raise ValueError(f"{limit} is no limit of a body")
    if method == "CONNECT" or not is_token(bytes_span(method.encode("ascii", "replace"))):
        raise ValueError(f"{method!r} is no method that can be asked for (RFC 9110 9)")
    if not path.startswith("/") or not path.isascii() or " " in path or "\r" in path or "\n" in path:
        raise ValueError(f"{path!r} is no path (RFC 9112 3.2.1); what is not ASCII is percent-encoded")
    target = path.encode("ascii")
    lines = [method.encode(), b" ", target, b" HTTP/1.1\r\nHost: ", _field_value(host), b"\r\n", own._lines(), *behalf]
    if parent is not None and not own.has_name(b"traceparent"):
        traced = True
        lines.append(trace_lines(parent))
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(b"Content-Length: %d\r\n" % len(body))
    lines.append(b"\r\n")
    x = subrequest(worker, upstream, b"".join(lines), body, <int64_t>(timeout * 1e9), limit)
    side = x.client
    side.retried = retried
    side.retry = retry
    send_inner(x, parent, traced, body)
    return side.future


def ask(Worker worker not None, Upstream upstream not None, str method not None, str path not None, headers, bytes body not None,
        double timeout, int64_t limit):
    """`ExchangeView.subrequest` where there is no exchange. Returns a Future of SubResponse."""
    return ask_upstream(worker, upstream, None, method, path, headers, body, timeout, limit)
