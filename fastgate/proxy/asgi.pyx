# Theory of operation. `send_request` has `endpoint.app` begin a call of the application: a task, whose receive() and
# send() (fastgate/upstreams/asgi.py) come back here. What they say is held to the rules that a response from a wire is
# held to: the head is written as lines and read by the same reader, the body counted against its Content-Length.
#
#   U_NEW -> U_HEAD -> U_BODY -> U_CLOSED;  any -> U_CLOSED
#
# From U_CLOSED on the call may still run (background work behind its answer), and hears that the client is gone.

cdef str NO_UPGRADE = "an application in the process is asked for plain HTTP alone"


cdef int open_app(Endpoint endpoint, Exchange x) except -1:
    if x.upgrading:
        x.detail = NO_UPGRADE
        return R_UPSTREAM_UPGRADE
    if endpoint.open >= endpoint.max_open and not x.pinned:
        return R_QUEUE_FULL
    x.attempt = AsgiSide(endpoint)
    return R_NONE


cdef class AsgiSide(EndpointSide):
    """One request to an application. The methods without an underscore are for the application's call."""

    def __cinit__(self, Endpoint endpoint not None):
        self.endpoint = endpoint
        self.worker = endpoint.worker
        self.state = U_NEW
        self.pieces = []

    # -- the exchange's side -------------------------------------------------------------------------------------

    cdef int send_request(self, Exchange x, const char* body, size_t length, bint end, int64_t now) except -1:
        cdef Out* out = &self.worker.out
        cdef Field* fields
        cdef int i, count, lines
        cdef Span method, target, scheme = span_of(b"http", 4)
        cdef uint8_t method_id, minor
        cdef list headers = []
        cdef bytes head
        self.x = x
        self.state = U_HEAD
        self.endpoint.open += 1
        self.head_request = x.view.method_id == METHOD_HEAD
        x.sent_ns = now
        out.len = 0
        write_request_head(out, x, self.endpoint, x.client.peer_address())
        if out.failed:
            raise MemoryError()
        head = out.data[:out.len]
        split_request_line(PyBytes_AS_STRING(head), len(head), &method, &method_id, &target, &minor)
        # Not the worker's scratch: a request may begin while the head of another one's answer lies there.
        lines = head.count(b"\n")
        fields = <Field*>malloc(<size_t>lines * sizeof(Field))
        if fields == NULL:
            raise MemoryError()
        try:
            count = split_fields(PyBytes_AS_STRING(head), len(head), fields, lines)
            for i in range(count):
                headers.append((span_bytes(fields[i].name).lower(), span_bytes(fields[i].value)))
        finally:
            free(fields)
        if x.client_trusted and x.facts.forwarded_proto.ptr != NULL:
            scheme = x.facts.forwarded_proto
        elif x.client.secure:
            scheme = span_of(b"https", 5)
        self._take(body, length, end)
        self.call = self.endpoint.app.begin(
            self, span_text(method), span_bytes(target), headers, "1.1" if x.facts.http_minor else "1.0",
            span_text(scheme), self._client(), span_text(x.target.host), parse_decimal(x.target.port))
        self._arm(now)
        return SENT_CONGESTED if self.congested else SENT_ALL

    def _client(self):
        # Who asks, behind trusted proxies; None for a Unix socket's peer.
        cdef char[40] text
        cdef Address* address = &self.x.view.client
        if address.family == 0:
            return None
        return PyUnicode_DecodeLatin1(text, put_address(text, address) - text, NULL), self.x.client_port

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        self._take(body, length, end)
        self.call.wake()
        self._arm(now_ns())
        return SENT_CONGESTED if self.congested else SENT_ALL

    cdef int _take(self, const char* body, size_t length, bint end) except -1:
        if length:
            self.pieces.append(body[:length])
            self.held += <Py_ssize_t>length
        self.request_sent = end
        self.congested = self.held > HIGH_WATER
        return 0

    cdef int pause_response(self) except -1:
        if self.state == U_BODY:
            self.paused = True
            disarm(self)
        return 0

    cdef int resume_response(self) except -1:
        if self.paused:
            self.paused = False
            self._arm(now_ns())
            self.call.wake()
        return 0

    cdef int abandon(self) except -1:
        cdef object call = self.call
        self._let_go()
        call.cancel()
        return 0

    cdef int on_deadline(self, int64_t now) except -1:
        cdef int reason = R_UPSTREAM_HEAD_TIMEOUT if self.state == U_HEAD and self.request_sent else R_UPSTREAM_IDLE_TIMEOUT
        self.call.cancel()
        return self._broken(reason, None)

    # -- the application's side ----------------------------------------------------------------------------------

    @property
    def gone(self):
        """Nobody wants anything of it any more: the answer is over, or the client is gone."""
        return self.x is None

    @property
    def stopped(self):
        """The client takes no more of the answer at present."""
        return self.paused

    def body_piece(self):
        """(bytes, whether more will come) of the request's body; None: nothing has come since."""
        cdef bytes piece
        cdef bint was_congested = self.congested
        if self.x is None:
            return None
        if not self.pieces and not self.request_sent:
            if self.x.facts.expect_continue:
                send_continue(self.x)
            return None
        piece = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces = []
        self.held = 0
        self.congested = False
        if was_congested:
            self._arm(now_ns())
            self.x.attempt_drained()
        return piece, not self.request_sent

    def respond(self, int status, bytes lines not None, bytes body not None, bint end):
        """The head, and the first of the body. lines: field lines, each checked and with its CRLF. Returns why the head
        or the body is refused; then nothing more can be said."""
        cdef Upstream upstream
        cdef HeadScan scan
        cdef ResponseHead head
        cdef Field* fields
        cdef bytes text = b"HTTP/1.1 200 \r\n" + lines + b"\r\n"
        cdef int reason = R_NONE
        cdef int64_t now = now_ns()
        if self.x is None:
            return None
        upstream = self.endpoint.upstream
        memset(&scan, 0, sizeof(scan))
        memset(&head, 0, sizeof(head))
        if scan_head(PyBytes_AS_STRING(text), len(text), &scan, &upstream.head_limits, &reason) <= 0:
            return self._refuse(R_UPSTREAM_HEADER_TOO_LARGE, "the head is over the upstream's limits")
        fields = self.worker.room(scan.lines)
        self.facts.http_minor = 1
        head.fields = fields
        head.field_count = split_fields(PyBytes_AS_STRING(text), len(text), fields, self.worker.field_room)
        if head.field_count < 0:
            return self._refuse(R_UPSTREAM_SYNTAX, "not a field line")
        reason = read_response_facts(fields, head.field_count, status, self.head_request, &self.facts)
        if reason != R_NONE:
            return self._refuse(reason, "Content-Length or Connection is malformed")
        head.status = status
        head.phrase = phrase_of(status)
        head.has_date = self.facts.has_date
        head.content_length = -1 if status == 204 else self.facts.content_length
        head.body = self.facts.body
        if head.body == BODY_EOF:
            # What no Content-Length was said for: its length is known now, or it goes in chunks.
            head.body = BODY_LENGTH if end and body else BODY_NONE if end else BODY_CHUNKED
            head.content_length = len(body) if end and body else -1
        self.body = head.body
        self.body_left = head.content_length
        self.event_stream = self.facts.content_type.len >= 17 and span_is(
            span_of(self.facts.content_type.ptr, 17), b"text/event-stream", 17)
        if head.body == BODY_LENGTH and 0 <= upstream.body_limit < head.content_length:
            return self._refuse(R_UPSTREAM_BODY_TOO_LARGE, "the body is over the upstream's limit")
        if head.body == BODY_NONE:
            body = b""                      # RFC 9110 9.3.2, 6.4.1: to HEAD, and with 204 and 304
            end = True
        reason = self._count(len(body), end)
        if reason != R_NONE:
            return self._refuse(reason, self._miscount(reason))
        self.x.upstream_head_ns = now - self.x.sent_ns
        self.state = U_BODY
        self._send(&head, body, end, now)
        return None

    def send(self, bytes body not None, bint end):
        """More of the body. Returns why it is refused, as `respond`."""
        cdef int reason
        if self.x is None:
            return None
        reason = self._count(len(body), end)
        if reason != R_NONE:
            return self._refuse(reason, self._miscount(reason))
        self._send(NULL, body, end, now_ns())
        return None

    def fail(self, str detail):
        """The application has no answer, or no more of it."""
        if self.x is not None:
            self._broken(R_UPSTREAM_RESET if self.state == U_HEAD else R_UPSTREAM_TRUNCATED, detail)

    def refuse(self, str detail not None):
        """What the application says is no HTTP."""
        if self.x is not None:
            self._broken(R_UPSTREAM_SYNTAX, detail)

    cdef int _count(self, int64_t length, bint end) except -1:
        cdef int64_t limit = self.endpoint.upstream.body_limit
        self.body_bytes += length
        if self.body == BODY_LENGTH:
            self.body_left -= length
            if self.body_left < 0 or (end and self.body_left):
                return R_UPSTREAM_FRAMING
        if 0 <= limit < self.body_bytes:
            return R_UPSTREAM_BODY_TOO_LARGE
        return R_NONE

    cdef str _miscount(self, int reason):
        if reason == R_UPSTREAM_BODY_TOO_LARGE:
            return "the body is over the upstream's limit"
        return "the body is not as long as its Content-Length says"

    cdef str _refuse(self, int reason, str detail):
        self._broken(reason, detail)
        return detail

    cdef int _send(self, ResponseHead* head, bytes body, bint end, int64_t now) except -1:
        cdef Exchange x = self.x
        if end:
            self._let_go()
        elif head == NULL and not body:
            return 0
        else:
            self._arm(now)
        return x.response(head, PyBytes_AS_STRING(body), <size_t>len(body), end, now)

    # -- ends ----------------------------------------------------------------------------------------------------

    cdef int _broken(self, int reason, str detail) except -1:
        cdef Exchange x = self.x
        self._let_go()
        return x.attempt_failed(reason, detail, False)

    cdef int _let_go(self) except -1:
        if self.state == U_HEAD or self.state == U_BODY:
            self.endpoint.open -= 1
            forget_timer(self.worker.wheel, self)
            self.x = None
            self.paused = False
            self.pieces = []
            self.state = U_CLOSED
            self.call.wake()                # whoever waits for the client hears that it is gone
            self.call = None
        return 0

    cdef int _arm(self, int64_t now) except -1:
        # As Upstream1's: an application that does not answer is an endpoint that does not.
        cdef Upstream upstream = self.endpoint.upstream
        cdef int64_t wait = upstream.idle_ns
        if self.state == U_HEAD and self.request_sent:
            wait = upstream.head_ns
            if self.x.retry is not None and 0 < self.x.retry.per_try_ns < wait:
                wait = self.x.retry.per_try_ns
        elif self.state == U_HEAD:
            wait = upstream.idle_ns if self.congested else 0
        elif self.event_stream:
            wait = self.x.route.event_idle_ns
        if wait:
            self.worker.arm(self, now + wait)
        else:
            disarm(self)
        return 0
