# Theory of operation. An exchange carries no trace of its own unless its listener has a TracePolicy; then `begin_trace`
# decides, once its route is known, whether it goes on with the client's trace context, and whether it is sampled. What
# is decided lies in `x.traced`.
#
# Notes are JSON objects, one for each step, in `x.notes`. Of an exchange that is traced every step is noted. Of any
# other one only what lies off the common way is (a try that failed, a pause, a queue), so that a failure can be told
# whole when it has ended: what the last try did is known from the exchange itself. An exchange that ended well and is
# not traced has noted nothing.
#
# `Trails.keep` joins the access log's line and the notes to one JSON object and puts it among those of its kind; a
# sampled one also among the spans that telemetry exports.

from collections import deque

cdef uint64_t TRACE_DEFAULT = <uint64_t>-1
cdef str NO_LINE = "the log's line is no JSON object"

cdef tuple PHASE_STEPS = (
    b"", b"", b"delayed", b"queued", b"unresolved", b"backoff", b"", b"", b"", b"answering", b"", b"",
)


cdef class TracePolicy:
    """Which requests of a listener are traced.

    propagate: it takes part in W3C traces; else traceparent and tracestate pass as they came. trust: "none",
    "trusted-proxies" or "all": whose trace context is gone on with. sample: the share (0..1) of traces that begin here.
    keep: the share of requests that are kept for `fastgate why`. asked: called with the bytes of X-Fastgate-Trace,
    method, host and path; true: the request is traced. Raises ValueError.
    """

    def __init__(self, *, bint propagate, str trust, double sample, double keep, asked=None):
        self.propagate = propagate
        self.trust = ("none", "trusted-proxies", "all").index(trust)
        self.threshold = trace_threshold(sample)
        self.draw = random_share(100 * keep)
        self.asked = asked


# -- a request's part in a trace ---------------------------------------------------------------------------------------

cdef int begin_trace(Exchange x, Route route) except -1:
    # route: None where none matches.
    cdef TracePolicy policy = x.listener.tracing
    cdef Field* field
    cdef Span parent
    cdef int i, parents = 0, states = 0
    cdef uint64_t threshold
    for i in range(x.view.field_count):
        field = &x.view.fields[i]
        if field.id < F_TRACEPARENT or field.drop:
            continue
        if field.id == F_TRACEPARENT:
            parents += 1
            parent = field.value
        elif field.id == F_TRACESTATE:
            states += 1
        elif policy.asked is not None:
            field.drop = 1                      # it is said to us, and a signature is nobody else's to see
            if _asked(x, policy, field.value):
                x.traced |= TRACED_ASKED
    if policy.draw and <uint32_t>random64(&x.worker.random) < policy.draw:
        x.traced |= TRACED_DRAWN
    if policy.propagate:
        # 4.3: more than one traceparent is none.
        if parents == 1 and (policy.trust == TRUST_ALL or (policy.trust == TRUST_PROXIES and x.client_trusted)) \
                and read_traceparent(parent, &x.trace):
            _go_on(x, states)
        else:
            if parents or states:
                _leave_out(x, F_TRACEPARENT)
                _leave_out(x, F_TRACESTATE)
            threshold = policy.threshold
            if route is not None and route.trace_threshold != TRACE_DEFAULT:
                threshold = route.trace_threshold
            trace_begin(&x.trace, &x.worker.trace_random)
            x.span = trace_span_id(&x.worker.trace_random)
            x.traced |= TRACED_WRITE
            if x.traced & TRACED_ASKED or trace_sampled(&x.trace, threshold):
                x.traced |= TRACED_SPANS
    if x.traced & TRACED_WHOLE:
        x.trace.flags |= TRACE_SAMPLED if x.traced & TRACED_SPANS else 0
        if _note_begin(x, b"matched", now_ns()):
            out_byte(&x.notes, 125)
    return 0


cdef int _go_on(Exchange x, int states) noexcept:
    # The client's trace; whether it is sampled is decided.
    if states and not tracestate_sound(x.view.fields, x.view.field_count):
        _leave_out(x, F_TRACESTATE)             # 3.3.1: and the traceparent stays
    if x.trace.flags & TRACE_SAMPLED:
        x.span = trace_span_id(&x.worker.trace_random)
        x.traced |= TRACED_WRITE | TRACED_SPANS
    elif not x.trace.verbatim:
        x.span = x.trace.parent                 # 3.2.4: what we send is a version that we know
        x.traced |= TRACED_WRITE
    if x.traced & TRACED_WRITE:
        _leave_out(x, F_TRACEPARENT)
    return 0


cdef void _leave_out(Exchange x, int id) noexcept:
    cdef int i
    for i in range(x.view.field_count):
        if x.view.fields[i].id == id:
            x.view.fields[i].drop = 1


cdef bint _asked(Exchange x, TracePolicy policy, Span value) except -1:
    if x.traced & TRACED_ASKED or value.len > 128:
        return False
    try:
        return policy.asked(span_bytes(value), span_bytes(x.view.method), span_bytes(x.view.host), span_bytes(x.view.path))
    except Exception as error:
        report_defect("X-Fastgate-Trace", error)
        return False


cdef int inherit_trace(Exchange x, Exchange parent) except -1:
    # An exchange for another one: its tries are spans under the other's.
    x.traced = parent.traced & (TRACED_WRITE | TRACED_SPANS)
    x.trace = parent.trace
    x.span = parent.span
    return 0


cdef bytes trace_lines(Exchange parent):
    # What goes along with a request that is made for another one; where `inherit_trace` makes the traceparent, the
    # tracestate alone.
    cdef list lines = []
    cdef Field* field
    cdef int i
    for i in range(parent.view.field_count):
        field = &parent.view.fields[i]
        if not field.drop and (field.id == F_TRACEPARENT or field.id == F_TRACESTATE):
            lines += [span_bytes(field.name), b": ", span_bytes(field.value), b"\r\n"]
    return b"".join(lines)


cdef char* copy_trace(char* at, Exchange x, HeaderRules rules) noexcept:
    # Of each try its own span, if it is one.
    cdef uint64_t span = x.span
    if rules is not None and rules.drops(span_of(b"traceparent", 11)):
        return at
    if x.traced & TRACED_SPANS:
        span = x.attempt_span = trace_span_id(&x.worker.trace_random)
    at = put_traceparent(_copy(at, b"traceparent: ", 13), &x.trace, span)
    return _copy(at, b"\r\n", 2)


# -- notes -------------------------------------------------------------------------------------------------------------

cdef bint _note_begin(Exchange x, const char* step, int64_t at) noexcept:
    # False: nothing is to be written.
    cdef Exchange main = x
    if x.worker.trails is None:
        return False
    if x.notes.len > NOTES_LIMIT:
        x.notes_lost += 1
        return False
    if x.kind == KIND_HEDGE and (<HedgeSide>x.client).main is not None:
        main = (<HedgeSide>x.client).main       # whose time it is told in
    out_put(&x.notes, b',{"step":"', 10)
    out_put(&x.notes, step, strlen(step))
    out_byte(&x.notes, 34)
    _note_number(x, b"at", at - main.start_ns)
    return True


cdef void _note_name(Exchange x, const char* name) noexcept:
    out_put(&x.notes, b',"', 2)
    out_put(&x.notes, name, strlen(name))
    out_put(&x.notes, b'":', 2)


cdef void _note_number(Exchange x, const char* name, int64_t value) noexcept:
    _note_name(x, name)
    out_decimal(&x.notes, value)


cdef void _note_text(Exchange x, const char* name, Span text) noexcept:
    _note_name(x, name)
    out_byte(&x.notes, 34)
    out_json(&x.notes, span_of(text.ptr, min(text.len, 256)))
    out_byte(&x.notes, 34)


cdef int _note_detail(Exchange x, int reason, str detail) except -1:
    cdef bytes text
    if reason != R_NONE:
        _note_text(x, b"reason", _LOG_REASONS[reason])
    if detail is not None:
        text = detail.encode("utf-8", "replace")
        _note_text(x, b"detail", bytes_span(text))
    return 0


cdef int note_phase(Exchange x, int phase) noexcept:
    cdef bytes step = PHASE_STEPS[phase]
    if _note_begin(x, PyBytes_AS_STRING(step), now_ns()):
        out_byte(&x.notes, 125)
    return 0


cdef int note_fallback(Exchange x, str failure, int64_t now) except -1:
    if _note_begin(x, b"fallback", now):
        _note_detail(x, R_NONE, failure)
        out_byte(&x.notes, 125)
    return 0


cdef int note_filter(Exchange x, NativeFilter filter, int64_t began, int reason) except -1:
    # began: 0 where nobody has looked at the clock.
    cdef bytes name = filter.name.encode("utf-8", "replace")
    if _note_begin(x, b"filter", began if began else x.start_ns):
        _note_text(x, b"name", bytes_span(name))
        if began:
            _note_number(x, b"took", now_ns() - began)
        _note_detail(x, reason, None)
        out_byte(&x.notes, 125)
    return 0


cdef int note_try(Exchange x, int reason, str detail, int status, int64_t now) except -1:
    cdef int64_t begun
    if not x.seated or not _note_begin(x, b"attempt", x.wait_ns):
        return 0
    begun = x.wait_ns
    _note_number(x, b"took", now - begun)
    _note_text(x, b"upstream", bytes_span(x.upstream.name_bytes))
    _note_text(x, b"endpoint", bytes_span(x.endpoint.address_bytes))
    if x.phase >= X_SENT:
        _note_number(x, b"sent", x.sent_ns - begun)
        if x.connect_ns >= 0 and x.connect_ns == x.sent_ns - begun:
            _note_number(x, b"connect", x.connect_ns)
        if x.upstream_head_ns >= 0:
            _note_number(x, b"head", x.upstream_head_ns)
            if status:
                _note_number(x, b"status", status)
        if x.attempt_span:
            _note_name(x, b"span")
            out_byte(&x.notes, 34)
            out_hex(&x.notes, x.attempt_span, 16)
            out_byte(&x.notes, 34)
            x.attempt_span = 0
    if x.kind == KIND_HEDGE:
        out_put(&x.notes, b',"hedge":true', 13)
    _note_detail(x, reason, detail)
    out_byte(&x.notes, 125)
    return 0


cdef int note_part(Exchange x, str name, int64_t began, int64_t took, int status, str reason, str upstream, str endpoint,
                   int attempts) except -1:
    # Of an aggregation: a part, or one of several requests of it.
    cdef bytes text
    if not _note_begin(x, b"part", x.start_ns + began):
        return 0
    for key, value in ((b"name", name), (b"upstream", upstream), (b"endpoint", endpoint), (b"reason", reason)):
        if value:
            text = value.encode("utf-8", "replace")
            _note_text(x, key, bytes_span(text))
    _note_number(x, b"took", took)
    if status:
        _note_number(x, b"status", status)
    if attempts > 1:
        _note_number(x, b"attempts", attempts)
    out_byte(&x.notes, 125)
    return 0


cdef int adopt_notes(Exchange x, Exchange hedge) noexcept:
    if x.notes.len + hedge.notes.len > 2 * NOTES_LIMIT:
        x.notes_lost += 1
    elif hedge.notes.len:
        out_put(&x.notes, hedge.notes.data, hedge.notes.len)
    hedge.notes.len = 0
    return 0


cdef int write_timing(Exchange x) noexcept:
    # What a request that asked for its trace is told at once: Server-Timing (a W3C draft that browsers show), and the
    # id by which `fastgate why` tells the rest.
    cdef char[320] text
    cdef char* at = _log_put(text, b"X-Fastgate-Trace: ")
    at = _copy(at, x.request_id, <size_t>x.request_id_length)
    at = _milliseconds(_log_put(at, b"\r\nServer-Timing: gateway;dur="), now_ns() - x.start_ns)
    if x.queue_ns >= 0:
        at = _milliseconds(_log_put(at, b", queue;dur="), x.queue_ns)
    if x.connect_ns >= 0:
        at = _milliseconds(_log_put(at, b", connect;dur="), x.connect_ns)
    if x.upstream_head_ns >= 0:
        at = _milliseconds(_log_put(at, b", upstream;dur="), x.upstream_head_ns)
    at = _log_put(put_decimal(_log_put(at, b", attempts;desc=\""), x.attempts), b"\"\r\n")
    out_put(&x.extra, text, <size_t>(at - text))
    return 0


cdef char* _milliseconds(char* at, int64_t ns) noexcept nogil:
    cdef int64_t us = ns // 1000
    at = put_decimal(at, us // 1000)
    at[0] = 46
    at[1] = <char>(48 + us // 100 % 10)
    at[2] = <char>(48 + us // 10 % 10)
    at[3] = <char>(48 + us % 10)
    return at + 4


# -- what has ended ----------------------------------------------------------------------------------------------------

cdef int whether_kept(Exchange x) noexcept:
    cdef int whose
    if x.kind != KIND_CLIENT:
        if x.kind == KIND_HEDGE:
            return KEPT_NOTED
        return KEPT_OTHER if x.traced & TRACED_SPANS else KEPT_NOT
    if x.reason == R_AGGREGATE_PARTIAL:
        return KEPT_ERROR
    if x.reason != R_NONE or x.status >= 500 or x.status == 0:
        whose = REASON_STATUS[x.reason]
        if x.reason == R_RESPONSE_FIXED or x.reason == R_TUNNEL_IDLE:
            pass                                # as configured
        elif x.status >= 500 or x.status == 0 or whose >= 500:
            return KEPT_ERROR
        elif whose >= 400 or x.status >= 400:
            return KEPT_REFUSAL
    return KEPT_OTHER if x.traced & TRACED_WHOLE else KEPT_NOT


cdef class Trails:
    """What is kept of exchanges that have ended, in this worker.

    lines: an AccessLog that writes nothing, for the form of its lines and what they hide. room: bytes for `fastgate why`.
    span_room: exchanges that may wait to be exported; one more is dropped and counted.
    """

    def __init__(self, AccessLog lines not None, int64_t room, int span_room):
        cdef int i
        self.kept = [deque() for i in range(KEPT_COUNT)]
        self.spans = []
        self.follow(lines, room, span_room)

    def follow(self, AccessLog lines not None, int64_t room, int span_room):
        """What another configuration says of it; what is kept beyond that is dropped when more comes."""
        if lines.ops != NULL:
            raise ValueError(NO_LINE)
        self.lines = lines
        self.room = room // (KEPT_COUNT - KEPT_REFUSAL)
        self.span_room = span_room

    cdef int keep(self, Exchange x, ExchangeRecord* record, int kept) except -1:
        cdef Out* out = &self.lines.out
        cdef bytes blob, kind
        if x.kind != KIND_CLIENT and self.span_room == 0:
            return 0
        out.len = 0
        out.failed = False
        self.lines._json_line(record)
        if out.failed:
            return 0                            # no memory: there are greater worries
        out.len -= 2                            # "}\n"
        if x.kind != KIND_CLIENT:
            kind = b',"kind":"mirror"' if x.kind == KIND_MIRROR else b',"kind":"subrequest"'
            out_put(out, PyBytes_AS_STRING(kind), <size_t>len(kind))
        if x.client.secure:
            out_put(out, b',"secure":true', 14)
        out_put(out, b',"start_ns":', 12)
        out_decimal(out, record.start_unix_ns)
        out_put(out, b',"total_ns":', 12)
        out_decimal(out, record.total_ns)
        if x.traced & TRACED_SPANS:
            out_put(out, b',"span_id":"', 12)
            out_hex(out, x.span, 16)
            if x.trace.parent:
                out_put(out, b'","parent_id":"', 15)
                out_hex(out, x.trace.parent, 16)
            out_byte(out, 34)
        if x.traced & TRACED_ASKED:
            out_put(out, b',"asked":true', 13)
        if x.run is not None:
            note_hooks(x.run)
        if x.notes.failed:
            x.notes.len = 0
            x.notes.failed = False
        if x.notes_lost:
            out_put(out, b',"steps_lost":', 14)
            out_decimal(out, x.notes_lost)
        out_put(out, b',"steps":[', 10)
        if x.notes.len:
            out_put(out, x.notes.data + 1, x.notes.len - 1)
        out_put(out, b"]}", 2)
        if out.failed:
            out.failed = False
            return 0
        blob = out.data[:out.len]
        out.len = 0
        if x.traced & TRACED_SPANS and self.span_room:
            self.spans_sampled += 1
            if len(self.spans) < self.span_room:
                self.spans.append(blob)
            else:
                self.spans_dropped += 1
        if x.kind == KIND_CLIENT:
            self._push(blob, kept)
        return 0

    cdef int _push(self, bytes blob, int kept) except -1:
        cdef object those = self.kept[kept]
        those.append(blob)
        self.held[kept] += len(blob) + BLOB_OVERHEAD
        while self.held[kept] > self.room:
            self.held[kept] -= len(<bytes>those.popleft()) + BLOB_OVERHEAD
        return 0

    cdef int show(self, Counters counters) except -1:
        # What has come since the last time. It goes on where another process, in this one's place before it, has left it.
        cdef uint64_t[3] now
        cdef int i
        now[0] = self.spans_sampled
        now[1] = self.spans_exported
        now[2] = self.spans_dropped + self.spans_lost
        for i in range(3):
            counters.gauge_add(GAUGE_TRACES_SAMPLED + i, <int64_t>(now[i] - self.shown[i]))
            self.shown[i] = now[i]
        return 0

    def take_spans(self) -> list[bytes]:
        """The sampled exchanges since the last call, as `find` gives them. May be called in any thread."""
        spans, self.spans = self.spans, []
        return spans

    def find(self, str request_id not None) -> bytes | None:
        """The last one kept with that id, as a JSON object; None: there is none. A walk over all of them."""
        cdef bytes wanted
        cdef object best = None
        try:
            wanted = b'"request_id":"' + request_id.encode("ascii") + b'"'
        except UnicodeEncodeError:
            return None
        for those in self.kept:
            for blob in reversed(those):
                # Behind '{"time":"2026-11-22T21:30:47.000Z",', which is as long for each, and sorts.
                if (<bytes>blob).startswith(wanted, 35):
                    if best is None or blob[9:33] > best[9:33]:
                        best = blob
                    break
        return best

    def failures(self, int limit) -> list[bytes]:
        """Of errors and of refusals the last `limit`, each, oldest first."""
        cdef list found = []
        for kept in (KEPT_ERROR, KEPT_REFUSAL):
            those = self.kept[kept]
            found += list(those)[-limit:] if limit > 0 else []
        return found

    @property
    def bytes_held(self) -> int:
        """Of all that is kept for `find`."""
        cdef int i
        return sum([self.held[i] for i in range(KEPT_COUNT)])


def measure_trace(Worker worker not None, Listener listener not None, bytes head not None, int rounds):
    """For the micro-benchmarks: begins the trace of a request with this head and writes the traceparent that goes on,
    `rounds` times. Returns the bytes that were written each time."""
    cdef HeadFacts facts
    cdef char[128] text
    cdef Py_ssize_t written = 0
    cdef int i
    cdef Exchange x = worker.take_exchange()
    try:
        x.listener = listener
        x.make_room(64)
        x.view.fields = x.fields
        facts.http_minor = 1
        x.view.field_count = split_fields(PyBytes_AS_STRING(head), len(head), x.fields, 64)
        if x.view.field_count < 0 or read_request_facts(x.fields, x.view.field_count, &facts) != R_NONE:
            raise ValueError("not a request that is forwarded")
        for i in range(rounds):
            x.traced = 0
            if listener.tracing is not None:
                begin_trace(x, None)
            written = copy_trace(text, x, None) - text if x.traced & TRACED_WRITE else 0
        return written
    finally:
        worker.give_exchange(x)
