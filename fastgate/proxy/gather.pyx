# Theory of operation. `begin` makes a run of the route's plan as soon as the request is whole enough for it. The run
# calls `ask` for each request, which is an Exchange of its own on the pools of its upstream (as a hedge or a mirror is),
# and answers by one of `respond`, `begin_stream` .. `end_stream` or `fail`. Then, or when the client leaves or a deadline
# passes, all requests that are still under way are given up.
#
# A request may be over before `ask` returns, and the client's exchange before any method here does. So answers wait in
# `arrived` until `pump`, which never runs inside itself, hands them to the run one by one.

from collections import deque

cdef str JSON = "application/json"

cdef enum:
    TIMINGS_ROOM = 4096         # bytes of Server-Timing for a request that asked for its trace
    FIELD_COST = 128            # bytes of a field of an answer besides its texts


cdef int begin_gathering(Exchange x, const char* body, size_t length, bint end) except -1:
    cdef Gathering gathering = Gathering.__new__(Gathering)
    gathering.x = x
    gathering.worker = x.worker
    gathering.plan = x.route.aggregate
    gathering.wanted = gathering.plan.fields
    gathering.lengths = gathering.plan.lengths
    gathering.room = x.route.gather_room
    gathering.calls = set()
    gathering.arrived = deque()
    gathering.body = bytearray()
    x.attempt = gathering
    x.phase = X_SENT
    x.sent_ns = now_ns()
    if not end:
        x.client.resume_request()               # plugins have held it back while they thought
    return gathering.begin(body, length, end)


cdef class PartSide(InnerSide):
    cdef int send_head(self, Exchange x, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        cdef int i
        cdef Field* field
        cdef Field* date = NULL
        cdef bint expires = False
        cdef object name
        cdef int64_t held = 0
        cdef Gathering gathering = self.gathering
        if gathering is None:
            return SENT_ALL
        self.status = head.status
        self.fields = []
        for i in range(head.field_count):
            field = &head.fields[i]
            if field.id == F_DATE:
                date = field                # it says something beside Expires alone (RFC 9111 4.2.1)
            if field.drop or not (gathering.lengths >> min(<uint64_t>field.name.len, 63)) & 1:
                continue
            name = gathering.wanted.get(span_bytes(field.name).lower())
            if name is not None:
                expires = expires or name == "expires"
                self.fields.append((name, JSON if span_is(field.value, b"application/json", 16) else span_text(field.value)))
                held += field.name.len + field.value.len + FIELD_COST
        if expires and date != NULL and b"date" not in gathering.wanted:
            self.fields.append(("date", span_text(date.value)))
        # They last as long as the body, and count for the whole, but not for what a body may be.
        self.held += held
        gathering.held += held
        if gathering.held > gathering.room:
            x.client_gone(R_AGGREGATE_MEMORY, None)
            return SENT_ALL
        return self.send_body(x, body, length, end)

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        cdef Gathering gathering = self.gathering
        if length == 0 or gathering is None:
            return SENT_ALL
        self.taken += <int64_t>length
        self.held += <int64_t>length
        gathering.held += <int64_t>length
        if self.taken > self.limit:
            x.client_gone(R_PART_TOO_LARGE, None)
        elif gathering.held > gathering.room:
            x.client_gone(R_AGGREGATE_MEMORY, None)
        elif self.more is not None:
            self.more += body[:length]
        elif self.first is None:
            self.first = body[:length]
        else:
            # Not a list of pieces: of two bytes each, as they may come, it would be a multiple of what is counted.
            self.more = bytearray(self.first)
            self.more += body[:length]
            self.first = None
        return SENT_ALL

    cdef int cut(self, Exchange x) except -1:
        self.status = 0
        return 0

    cdef int exchange_done(self, Exchange x, int64_t now) except -1:
        cdef Gathering gathering = self.gathering
        cdef PartAnswer answer
        cdef object call = self.call
        cdef list fields = self.fields
        cdef bytearray more = self.more
        cdef bytes first = self.first
        InnerSide.exchange_done(self, x, now)
        # Whoever asked knows us, so what we hold would be held until the garbage is collected.
        self.call = self.fields = self.first = self.more = None
        self.asked = None
        if gathering is None:
            return 0
        self.gathering = None
        gathering.calls.discard(self)
        answer = PartAnswer.__new__(PartAnswer)
        answer.call = call
        answer.attempts = x.attempts
        answer.began = self.began
        answer.took = now - x.start_ns
        answer.upstream = x.upstream.name
        answer.endpoint = "" if x.endpoint is None else x.endpoint.address
        if x.reason == R_NONE and self.status:
            answer.status = self.status
            answer.fields = fields
            answer.body = first or b"" if more is None else bytes(more)
            answer.reason = ""
        else:
            answer.fields = []
            answer.body = b""
            answer.reason = REASONS[R_PART_TIMEOUT if x.reason == R_TOTAL_TIMEOUT else x.reason].code
            answer.detail = x.detail
            gathering.held -= self.held
        gathering.arrived.append(answer)
        return gathering.pump()


cdef class PartAnswer:
    """What has become of a request."""

    def forget(self):
        """The body is not wanted any more."""
        self.body = b""


cdef class Gathering(EndpointSide):
    """What a run of ``fastgate.aggregation`` asks upstreams by, and answers with."""

    # -- the exchange's side -------------------------------------------------------------------------------------

    cdef int begin(self, const char* body, size_t length, bint end) except -1:
        cdef Exchange x = self.x
        if not self.plan.wants_body:
            # What comes of the body is dropped; the answer does not wait for it (RFC 9110 9.3: a GET's has no meaning).
            return self._start()
        if x.facts.content_length > <int64_t>self.plan.max_body:
            return x.fail(R_BODY_TOO_LARGE, None)
        if x.facts.expect_continue and not end:
            send_continue(x)
        self.send_body(x, body, length, end)
        return 0

    cdef int send_request(self, Exchange x, const char* body, size_t length, bint end, int64_t now) except -1:
        raise NotImplementedError               # it begins by `begin_gathering`

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        if self.run is not None or self.x is None:
            return SENT_ALL
        self.body_size += <int64_t>length
        if self.body_size > <int64_t>self.plan.max_body:
            x.fail(R_BODY_TOO_LARGE, None)
            return SENT_ALL
        if length:
            self.body += body[:length]
        if end:
            self._start()
        return SENT_ALL

    cdef int pause_response(self) except -1:
        return 0                                # what a client does not take is bounded by max_memory

    cdef int resume_response(self) except -1:
        return 0

    cdef int abandon(self) except -1:
        self._let_go()
        return 0

    cdef int on_deadline(self, int64_t now) except -1:
        self.pumping = True
        try:
            self.run.expired()
        except Exception as error:
            self._defect(error)
        finally:
            self.pumping = False
        return self.pump()

    cdef int _start(self) except -1:
        cdef Exchange x = self.x
        if x.run is not None:
            self.view = x.run.view
        else:
            self.view = ExchangeView.__new__(ExchangeView)
            self.view.x = x
            self.own_view = True
        self.behind = _behind(x)
        self.worker.arm(self, now_ns() + <int64_t>self.plan.timeout_ns)
        self.pumping = True
        try:
            self.run = self.plan.begin(self, self.view, bytes(self.body))
            self.body = None
            self.run.start()
        except Exception as error:
            self._defect(error)
        finally:
            self.pumping = False
        return self.pump()

    cdef int pump(self) except -1:
        if self.pumping:
            return 0
        self.pumping = True
        try:
            while self.arrived and self.x is not None:
                try:
                    self.run.answered(self.arrived.popleft())
                except Exception as error:
                    self._defect(error)
        finally:
            self.pumping = False
        return 0

    def _defect(self, error):
        # The gateway's own, and not the client's to wait for.
        cdef Exchange x = self.x
        report_defect("aggregate", error)
        if x is not None:
            x.fail(R_INTERNAL, None)

    cdef Exchange _let_go(self):
        cdef Exchange x = self.x
        cdef PartSide side
        cdef set calls = self.calls
        cdef object run = self.run
        if x is None:
            return None
        self.x = None
        if x.attempt is self:
            x.attempt = None
        forget_timer(self.worker.wheel, self)
        self.calls = set()
        self.arrived.clear()
        for side in calls:
            side.gathering = None
        for side in calls:
            if side.asked is not None:
                side.asked.client_gone(R_CLIENT_GONE, None)
        if self.own_view:
            self.view._let_go(False)
        if run is not None:
            self.run = None                     # it knows us: neither would go before the garbage is collected
            try:
                run.over()
            except Exception as error:
                report_defect("aggregate", error)
        return x

    # -- the run's side ------------------------------------------------------------------------------------------

    @property
    def gone(self):
        """Nothing can be asked or answered any more."""
        return self.x is None

    @property
    def traced(self):
        """Whether each step is noted, however it ends."""
        return self.x is not None and self.x.traced & TRACED_WHOLE != 0

    @property
    def age_ns(self):
        """Since the exchange began."""
        return 0 if self.x is None else now_ns() - self.x.start_ns

    @property
    def told(self):
        """What upstreams are told of the client's request by the gateway itself, but for who the client is."""
        cdef Exchange x = self.x
        if x is None:
            return b""
        return b"\n".join((span_bytes(x.target.authority), b"https" if x.client.secure else b"http",
                           _forwarded_lines(x, False) if x.client_trusted else b""))

    def charge(self, int64_t size):
        """Counts bytes that are held beside the answers' own. False: there is no room for them."""
        self.held += size
        return self.held <= self.room

    def ask(self, call, Upstream upstream not None, str method not None, bytes target not None, bytes lines not None,
            bytes body not None, int64_t timeout_ns, int64_t limit, RetryPolicy retry=None):
        """Sends a request; `answered` of the run hears what became of it.

        lines: field lines, each checked and with its CRLF; Host is the client's. limit: bytes of the answer's body.
        Returns what `give_up` takes. Raises ValueError for what is no request."""
        cdef Exchange parent = self.x, x
        cdef PartSide side
        cdef list head
        if parent is None:
            raise RuntimeError("the exchange is over")
        head = [method.encode("ascii"), b" ", target, self.behind, lines]
        if parent.target.authority.len == 0:
            head += [b"Host: ", upstream.name_bytes, b"\r\n"]
        if body or method in ("POST", "PUT", "PATCH"):
            head.append(b"Content-Length: %d\r\n" % len(body))
        head.append(b"\r\n")
        side = PartSide.__new__(PartSide)
        side.call = call
        side.limit = limit
        side.retried = True
        side.retry = retry
        side.address = parent.client.peer_address()[0]
        side.secure = parent.client.secure
        x = inner_exchange(self.worker, upstream, side, b"".join(head), body, timeout_ns, False)
        x.kind = KIND_PART
        x.listener = parent.listener            # it says what the upstream is told of the client
        x.client_trusted = parent.client_trusted
        x.view.client = parent.view.client
        x.consumer_name = parent.consumer_name
        x.view.consumer = parent.view.consumer
        side.began = x.start_ns - parent.start_ns
        side.asked = x
        side.gathering = self
        self.calls.add(side)
        send_inner(x, parent, True, body)
        return side

    def deliver(self, answer not None):
        """An answer that comes from elsewhere, in the form of PartAnswer; the run is told of it in its turn."""
        if self.x is not None:
            self.arrived.append(answer)
            self.pump()

    def give_up(self, PartSide side not None):
        """Nobody wants the answer any more."""
        if side.gathering is self:
            side.gathering = None
            self.calls.discard(side)
            self.held -= side.held
            if side.asked is not None:
                side.asked.client_gone(R_CLIENT_GONE, None)

    def note(self, str name not None, int64_t began, int64_t took, int status, str reason not None, str upstream not None,
             str endpoint not None, int attempts):
        """A step of the exchange's trail: a part, or one of its requests."""
        cdef Exchange x = self.x
        cdef bytes timing
        if x is None:
            return
        note_part(x, name, began, took, status, reason, upstream, endpoint, attempts)
        if x.traced & TRACED_ASKED and not self.begun and x.extra.len < TIMINGS_ROOM:
            timing = b'Server-Timing: part;desc="%s";dur=%.3f\r\n' % (name.encode("ascii"), took / 1e6)
            out_put(&x.extra, PyBytes_AS_STRING(timing), <size_t>len(timing))

    def respond(self, int status, bytes lines not None, bytes body not None, str reason not None, str detail=None):
        """The whole answer. lines: field lines, each with its CRLF. reason: a code of REASONS that tells how it lacks
        something; "" if it does not."""
        cdef Exchange x = self._let_go()
        if x is not None:
            if reason:
                x.reason = _REASON_BY_CODE[reason]
                x.detail = detail
            self._send_head(x, status, lines, body, True)

    def begin_stream(self, int status, bytes lines not None, bytes body not None):
        """The head of an answer that comes in pieces, and the first of them. For HEAD that is all of it (RFC 9110
        9.3.2)."""
        cdef Exchange x = self.x
        if x is None:
            return
        if x.view.method_id == METHOD_HEAD:
            self._let_go()
            self._send_head(x, status, lines, None, True)
        else:
            self.begun = True
            self._send_head(x, status, lines, body, False)

    def write(self, bytes piece not None):
        if self.x is not None and piece and not self.bodiless:
            self.x.response(NULL, PyBytes_AS_STRING(piece), <size_t>len(piece), False, now_ns())

    def end_stream(self, bytes piece not None, str reason not None, str detail=None):
        """The last piece. reason: as for `respond`."""
        cdef Exchange x = self._let_go()
        if x is not None:
            if reason:
                x.reason = _REASON_BY_CODE[reason]
                x.detail = detail
            x.response(NULL, PyBytes_AS_STRING(piece), 0 if self.bodiless else <size_t>len(piece), True, now_ns())

    def fail(self, str reason not None, int status, str detail, dict members not None):
        """No answer, or no more of it: problem+json with `members` besides the usual ones, or a body that ends early."""
        cdef Exchange x = self._let_go()
        if x is not None:
            x.own_problem = (status, members)
            x.fail(_REASON_BY_CODE[reason], detail)

    cdef int _send_head(self, Exchange x, int status, bytes lines, bytes body, bint end) except -1:
        cdef ResponseHead head
        cdef uint64_t turn = x.turn
        cdef int count = lines.count(b"\n")
        cdef Field* fields = NULL
        memset(&head, 0, sizeof(head))
        head.status = status
        head.phrase = phrase_of(status)
        head.content_length = len(body) if end and body is not None else -1
        head.body = BODY_CHUNKED if not end else BODY_LENGTH if body else BODY_NONE
        if status == 204 or status == 205:
            head.content_length = -1 if status == 204 else 0
            head.body = BODY_NONE
            body = b""
            self.bodiless = True
        elif x.view.method_id == METHOD_HEAD:
            head.body = BODY_NONE
            body = b""
            self.bodiless = True
        # Not the worker's scratch: a plugin or the next request may use that before the head is written.
        fields = <Field*>malloc(<size_t>max(1, count) * sizeof(Field))
        if fields == NULL:
            raise MemoryError()
        try:
            head.fields = fields
            head.field_count = max(0, split_lines(PyBytes_AS_STRING(lines), len(lines), fields, count))
            x.upstream_head_ns = now_ns() - x.sent_ns
            x.begin_answer(status)
            x.pass_head(&head, PyBytes_AS_STRING(body), <size_t>len(body), end)
        finally:
            free(fields)
        if end and x.turn == turn:
            x.answer_ended(now_ns())
        return 0


cdef bytes _behind(Exchange parent):
    # Of each request of an aggregation: its Host, its trace, and what a trusted proxy has said of the client, for the part's
    # head to be read from as the client's was.
    cdef list lines = [b" HTTP/1.1\r\n", trace_lines(parent)]
    if parent.target.authority.len:
        lines += [b"Host: ", span_bytes(parent.target.authority), b"\r\n"]
    if parent.client_trusted:
        lines.append(_forwarded_lines(parent, True))
    return b"".join(lines)


cdef bytes _forwarded_lines(Exchange parent, bint whole):
    # What a trusted proxy has said of the client's request. whole: who it is, too.
    cdef list lines = []
    cdef Field* field
    cdef int i
    for i in range(parent.view.field_count):
        field = &parent.view.fields[i]
        if field.id in (F_X_FORWARDED_PROTO, F_X_FORWARDED_HOST) or (
                whole and field.id in (F_FORWARDED, F_X_FORWARDED_FOR)):
            lines += [span_bytes(field.name), b": ", span_bytes(field.value), b"\r\n"]
    return b"".join(lines)
