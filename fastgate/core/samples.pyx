# Requests and records made from Python. Text is written as latin-1 so that a test can name every byte; None
# is "absent".


cdef Span _sample_keep(list kept, object text) except *:
    cdef bytes raw
    if text is None:
        return span_of(NULL, 0)
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    kept.append(raw)
    return span_of(raw, len(raw))


cdef int _sample_address(str text, Address* out) except -1:
    cdef bytes raw = text.encode()
    memset(out, 0, sizeof(Address))
    if text and not parse_address(span_of(raw, len(raw)), out):
        raise ValueError(f"{text!r} is not an IP address")
    return 0


cdef int _sample_fields(list kept, object headers, Field* fields) except -1:
    cdef int count = 0
    for name, value in headers:
        if count == 64:
            raise ValueError("a sample has up to 64 fields")
        memset(&fields[count], 0, sizeof(Field))
        fields[count].name = _sample_keep(kept, name)
        fields[count].value = _sample_keep(kept, value)
        count += 1
    return count


cdef class SampleRequest:
    """A request as a filter sees it. client: an IP address, or "" for a Unix socket's peer. captures: values of the
    route's {NAME} segments."""

    def __init__(
        self,
        client: str = "192.0.2.1",
        *,
        method: str = "GET",
        path: str = "/",
        query: str | None = None,
        host: str = "",
        headers: Iterable[tuple[str, str]] = (),
        consumer: str = "",
        captures: Mapping[str, str] = {},
    ) -> None:
        self.kept = []
        memset(&self.view, 0, sizeof(RequestView))
        _sample_address(client, &self.view.client)
        self.view.method = self._keep(method)
        self.view.method_id = method_of(self.view.method)
        self.view.path = self._keep(path)
        self.view.query = self._keep(query)
        self.view.host = self._keep(host)
        self.view.consumer = self._keep(consumer)
        self.view.fields = self.fields
        self.view.field_count = _sample_fields(self.kept, headers, self.fields)
        if len(captures) > MAX_CAPTURES:
            raise ValueError("too many captures")
        self.view.capture_names = self.names
        for name, value in captures.items():
            self.names[self.view.capture_count] = self._keep(name)
            self.view.captures[self.view.capture_count] = self._keep(value)
            self.view.capture_count += 1

    cdef Span _keep(self, object text):
        return _sample_keep(self.kept, text)


cdef class SampleExchange:
    """An ended exchange. Times are nanoseconds, -1 for "did not happen"; reason is a code of REASONS."""

    def __init__(
        self,
        *,
        request_id: str | bytes | None = None,
        listener: str | bytes | None = None,
        route: str | bytes | None = None,
        upstream: str | bytes | None = None,
        endpoint: str | bytes | None = None,
        method: str | bytes | None = None,
        target: str | bytes | None = None,
        host: str | bytes | None = None,
        user_agent: str | bytes | None = None,
        consumer: str | bytes | None = None,
        trace_id: str | bytes | None = None,
        tls: str | bytes | None = None,
        tls_cipher: str | bytes | None = None,
        sni: str | bytes | None = None,
        detail: str | bytes | None = None,
        client: str = "",
        client_port: int = 0,
        http_minor: int = 1,
        headers: Iterable[tuple[str | bytes, str | bytes]] = (),
        status: int = 0,
        reason: str = "none",
        attempts: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        start_unix_ns: int = 0,
        queue_ns: int = -1,
        connect_ns: int = -1,
        upstream_head_ns: int = -1,
        total_ns: int = -1,
        route_index: int = -1,
        upstream_index: int = -1,
    ) -> None:
        cdef ExchangeRecord* record = &self.record
        self.kept = []
        record.request_id = self._keep(request_id)
        record.listener = self._keep(listener)
        record.route = self._keep(route)
        record.upstream = self._keep(upstream)
        record.endpoint = self._keep(endpoint)
        record.method = self._keep(method)
        record.method_id = method_of(record.method)
        record.trace_id = self._keep(trace_id)
        record.target = self._keep(target)
        record.host = self._keep(host)
        record.user_agent = self._keep(user_agent)
        record.consumer = self._keep(consumer)
        record.trace_id = self._keep(trace_id)
        record.tls = self._keep(tls)
        record.tls_cipher = self._keep(tls_cipher)
        record.sni = self._keep(sni)
        record.detail = self._keep(detail)
        record.http_minor = http_minor
        _sample_address(client, &record.client)
        record.client_port = client_port
        record.fields = self.fields
        record.field_count = _sample_fields(self.kept, headers, self.fields)
        record.status = status
        record.reason = [info.code for info in REASONS].index(reason)
        record.attempts = attempts
        record.bytes_in = bytes_in
        record.bytes_out = bytes_out
        record.start_unix_ns = start_unix_ns
        record.queue_ns = queue_ns
        record.connect_ns = connect_ns
        record.upstream_head_ns = upstream_head_ns
        record.total_ns = total_ns
        record.route_index = route_index
        record.upstream_index = upstream_index

    cdef Span _keep(self, object text):
        return _sample_keep(self.kept, text)


def sample_chunked(pieces: Iterable[bytes]) -> tuple[str, bytes, bytes, int]:
    """What the decoder makes of a chunked body that comes in these pieces.

    Returns ("more" | "end" | "bad" | "trailers", the body's bytes, the trailer lines, how many bytes were used).
    """
    cdef ChunkReader reader
    cdef HeadLimits limits = HeadLimits(8192, 32768, 100)
    cdef Out gathered = Out(NULL, 0, 0, False)
    cdef Out trailers = Out(NULL, 0, 0, False)
    cdef Field[TRAILER_ROOM] room
    cdef Span run
    cdef int event = CHUNK_MORE
    cdef Py_ssize_t used = 0
    cdef bytes piece
    body = bytearray()
    chunk_start(&reader, &limits)
    try:
        for piece in pieces:
            used += gather_chunks(&reader, piece, len(piece), &run, &event, &gathered, &trailers, room, TRAILER_ROOM)
            body += span_bytes(run)
            if event != CHUNK_MORE:
                break
        words = {CHUNK_MORE: "more", CHUNK_END: "end", CHUNK_BAD: "bad"}
        return words.get(event, "trailers"), bytes(body), span_bytes(span_of(trailers.data, <Py_ssize_t>trailers.len)), used
    finally:
        out_free(&gathered)
        out_free(&trailers)


def sample_endpoint_state(
    Seat seat not None, *, str operator="none", int weight=0, str probe="unknown", int64_t ejected_until_ns=0,
    str breaker="closed", int64_t breaker_until_ns=0, int64_t returned_ns=0,
) -> None:
    """Sets what all workers know of an endpoint; what is not named is as at the beginning."""
    cdef EndpointState* state = seat.state
    state.operator_state = {
        "none": OPERATOR_NONE, "ready": OPERATOR_READY, "draining": OPERATOR_DRAINING, "down": OPERATOR_DOWN,
    }[operator]
    state.weight = weight
    state.probe_state = {"unknown": PROBE_UNKNOWN, "up": PROBE_UP, "down": PROBE_DOWN}[probe]
    state.ejected_until_ns = ejected_until_ns
    state.breaker.state = {
        "closed": BREAKER_CLOSED, "open": BREAKER_OPEN, "half-open": BREAKER_HALF_OPEN,
    }[breaker]
    state.breaker.until_ns = breaker_until_ns
    state.returned_ns = returned_ns


def sample_upstream_changed(SharedTable table not None, str name not None) -> None:
    """What every change of a state of this upstream is followed by."""
    cdef SharedRecord record = table.hold(("upstream", name))
    upstream_changed(<UpstreamState*>record.at)
