# Theory of operation. Bytes come in `data_received`; `_read` gives them to the reader of the state that the
# connection is in, one message at a time. A head is read whole (`core/head` finds its end), then judged by the
# httptools parser, then understood; a body is passed on as it comes, and judged too: the parser's idea of the message's
# end must be ours. While an answer is under way, what the client sends next waits in `pending`.
#
#   D_PROXY -> D_HANDSHAKE -> D_IDLE -> D_HEAD -> D_BODY -> D_WAIT -> D_IDLE ...
#   (D_HANDSHAKE under TLS, D_HEAD for a head in pieces, D_BODY with a body)
#   D_WAIT -> D_TUNNEL on 101; any of them -> D_LINGER -> D_CLOSED when no further request may follow.

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserInvalidURLError, HttpParserUpgrade
from httptools import HttpRequestParser

cdef enum:
    PENDING_LIMIT = 16384           # bytes of pipelined requests that we take before we stop reading
    LINGER_BYTES = 1048576          # read and dropped after a last answer
    COPY_LIMIT = 4096               # a body part up to this size is copied behind its head: one plain send

cdef int64_t SECOND = 1000000000
cdef int64_t LINGER_NS = 2 * SECOND
cdef int64_t RATE_GRACE_NS = 5 * SECOND


cdef class Downstream1(ClientSide):
    def __cinit__(self, Worker worker not None, ListenerSlot slot not None):
        self.worker = worker
        self.slot = slot
        self.listener = slot.current
        self.wire = Wire()
        self.state = D_PROXY if self.listener.proxy_protocol else D_IDLE

    def __dealloc__(self):
        out_free(&self.partial)

    # -- what the loop calls -------------------------------------------------------------------------------------

    def connection_made(self, transport):
        cdef object peer
        cdef bytes host
        self.wire.open(transport)
        if not self.wire.peer(&self.address, &self.port):
            peer = transport.get_extra_info("peername")         # a transport in memory, as tests have it
            if isinstance(peer, tuple):
                host = peer[0].encode("latin-1")
                parse_address(bytes_span(host), &self.address)
                self.port = peer[1]
        self._know_address()
        if not self.worker.admit(self):
            self.state = D_CLOSED
            self.wire.abort()
            return
        self.worker.arm(self, now_ns() + (self.listener.handshake_ns if self.state == D_HANDSHAKE
                                          else self.listener.head_ns))

    def data_received(self, bytes data not None):
        if self.state == D_WAIT or self.pending is not None:
            # Also between requests, as long as the client does not read what it has been answered.
            self.pending = data if self.pending is None else self.pending[self.pending_at:] + data
            self.pending_at = 0
            if len(self.pending) > PENDING_LIMIT:
                self.wire.pause()
            return
        self._read(data, 0)

    def eof_received(self):
        # True keeps the transport open for writing; False closes it, and `connection_lost` does the rest.
        self.eof = True
        if self.state == D_TUNNEL:
            self.x.tunnel_end(True)
            return True
        # What came before the FIN is answered still, if so configured; a request that is not whole never will be.
        if self.state == D_WAIT and self.listener.half_close == HALF_CLOSE_SERVE:
            return True
        if self.x is not None and self.x.phase == X_ANSWERING:
            self.wire.reset()               # what there is of the answer must not look whole
        return False

    def connection_lost(self, error):
        cdef Exchange x = self.x
        cdef bint midway = self.state == D_BODY
        self.wire.lost()
        self.state = D_CLOSED
        self.parser = None
        self.pending = None
        forget_timer(self.worker.wheel, self)
        if x is not None:
            x.client_gone(R_CLIENT_GONE, str(error) if error is not None else
                          "closed in the middle of its request" if midway else None)
        self.worker.leave(self)

    def pause_writing(self):
        self.wire.congested = True

    def resume_writing(self):
        self.wire.congested = False
        if self.x is not None:
            self.x.client_drained()
        elif self.pending is not None:
            self._read(b"", 0)

    # -- reading -------------------------------------------------------------------------------------------------

    cdef int _read(self, bytes data, Py_ssize_t at) except -1:
        cdef Py_ssize_t length = len(data)
        self.reading = True
        try:
            while True:
                if at >= length:
                    if self.pending is None or self.state == D_WAIT or (
                            self.wire.congested and self.state == D_IDLE):
                        break
                    data = self.pending
                    at = self.pending_at
                    length = len(data)
                    self.pending = None
                    self.wire.resume()
                elif self.wire.congested and self.state == D_IDLE:
                    # The client asks on but does not read its answers: nothing more is begun until it does.
                    self._hold(data, at)
                    break
                elif self.state == D_IDLE or self.state == D_HEAD:
                    at = self._read_head(data, at)
                elif self.state == D_BODY:
                    at = self._read_body(data, at)
                elif self.state == D_TUNNEL:
                    self._pass_on(PyBytes_AS_STRING(data) + at, length - at)
                    at = length
                elif self.state == D_WAIT:
                    self._hold(data, at)        # pipelined behind the request that is under way
                    break
                elif self.state == D_PROXY:
                    at = self._read_proxy(data, at)
                elif self.state == D_LINGER:
                    self.lingered += length - at
                    if self.lingered > LINGER_BYTES:
                        self.wire.abort()
                    at = length
                else:
                    break
        finally:
            self.reading = False
        if self.eof and (self.state == D_IDLE or self.state == D_HEAD or self.state == D_BODY):
            # The client has nothing more to send: between requests that is a farewell, within one its end.
            if self.x is not None:
                self.x.client_gone(R_CLIENT_GONE, "closed in the middle of its request")
            self._leave(False)
        return 0

    cdef int _hold(self, bytes data, Py_ssize_t at) except -1:
        # Nothing can be pending yet: `_read` takes up the pending bytes before new ones come.
        self.pending = data
        self.pending_at = at
        if len(data) - at > PENDING_LIMIT or self.wire.congested:
            self.wire.pause()
        return 0

    cdef Py_ssize_t _read_proxy(self, bytes data, Py_ssize_t at) except -2:
        cdef ProxyHeader header
        cdef Py_ssize_t kept = <Py_ssize_t>self.partial.len
        cdef Py_ssize_t size = -1
        out_put(&self.partial, PyBytes_AS_STRING(data) + at, <size_t>(len(data) - at))
        if self.partial.failed:
            raise MemoryError()
        if self.trusted or self.listener.trusted is None:
            size = read_proxy_header(self.partial.data, <Py_ssize_t>self.partial.len, &header)
        if size == 0:
            return len(data)
        self.partial.len = 0
        if size < 0:
            self.close_after = True
            self._new_exchange(now_ns()).refuse(R_PROXY_HEADER, None)
            return len(data)
        self.state = D_IDLE
        if header.source.family:
            self.address = header.source
            self.port = header.port
            self._know_address()
        if not self.worker.count_address(self):
            self.state = D_CLOSED
            self.wire.abort()
        return at + size - kept

    cdef Py_ssize_t _read_head(self, bytes data, Py_ssize_t at) except -2:
        cdef Py_ssize_t length = len(data), size
        cdef int reason = R_NONE
        if self.state == D_IDLE:
            if self.listener is not self.slot.current:
                self._follow()
            self.scan.at = 0
            self.scan.line_start = 0
            self.scan.lines = 0
            size = scan_head(PyBytes_AS_STRING(data) + at, length - at, &self.scan, &self.listener.head_limits, &reason)
            if size > 0:
                return self._begin(data, at, size)
            # The head comes in pieces: it has until now + head_ns, however its pieces are spaced.
            self.state = D_HEAD
            self.worker.arm(self, now_ns() + self.listener.head_ns)
            self.partial.len = 0
            out_put(&self.partial, PyBytes_AS_STRING(data) + at, <size_t>(length - at))
        else:
            out_put(&self.partial, PyBytes_AS_STRING(data) + at, <size_t>(length - at))
            size = scan_head(self.partial.data, <Py_ssize_t>self.partial.len, &self.scan, &self.listener.head_limits,
                             &reason)
        if self.partial.failed:
            raise MemoryError()
        if size < 0:
            self._refuse_head(reason)
        elif size > 0:
            # Whole now: read it as one that came in one piece, with what follows it.
            self.pending = self.partial.data[:self.partial.len]
            self.pending_at = 0
            self.partial.len = 0
            self.state = D_IDLE
        return length

    cdef int _refuse_head(self, int reason) except -1:
        cdef Exchange x = self._new_exchange(now_ns())
        x.head = self.partial.data[:self.partial.len]
        self.partial.len = 0
        if self.scan.lines:
            # For the log: what was asked for, as far as it can be told.
            split_request_line(x.head, len(x.head), &x.view.method, &x.view.method_id, &x.raw_target,
                               &x.facts.http_minor)
        self.close_after = True
        return x.refuse(reason, None)

    cdef Py_ssize_t _begin(self, bytes data, Py_ssize_t at, Py_ssize_t size) except -2:
        cdef Exchange x = self._new_exchange(now_ns())
        cdef const char* head = PyBytes_AS_STRING(data) + at
        cdef HeadFacts* facts = &x.facts
        cdef Py_ssize_t part = 0, available = len(data) - at - size
        cdef int reason
        cdef str detail = None
        cdef bint end
        x.head = data
        x.make_room(self.scan.lines)
        reason = split_request_line(head, size, &x.view.method, &x.view.method_id, &x.raw_target, &facts.http_minor)
        if reason == R_NONE:
            x.view.field_count = split_fields(head, size, x.fields, x.field_room)
            if x.view.field_count < 0:
                x.view.field_count = 0
                reason = R_FIELD_SYNTAX
            else:
                x.view.fields = x.fields
                reason = read_request_facts(x.fields, x.view.field_count, facts)
        if reason == R_NONE:
            if facts.body == BODY_LENGTH:
                part = min(available, facts.content_length)
            self.judged = False
            reason = self._judge(data, head, size + part)
            if reason < 0:
                reason = -reason
                detail = self.verdict
        end = facts.body == BODY_NONE or (facts.body == BODY_LENGTH and part == facts.content_length)
        if reason == R_NONE and self.judged != end:
            reason = R_PARSERS_DISAGREE
        if reason != R_NONE:
            self.close_after = True
            self.state = D_HEAD
            x.refuse(reason, detail)
            return len(data)
        if facts.close or facts.http_minor == 0 or self.worker.draining or self.slot.closed:
            # RFC 9112 9.3: HTTP/1.0 has no persistence that a gateway could rely on.
            self.close_after = True
        self._choose_request_id(x)
        if end:
            self.state = D_WAIT
            self._retire_parser(x)
            disarm(self)
        else:
            self.state = D_BODY
            self.body_left = facts.content_length - part
            self.body_start_ns = x.start_ns
            self.paused_ns = 0
            self.worker.arm(self, x.start_ns + self.listener.body_idle_ns)
            if facts.body == BODY_CHUNKED:
                chunk_start(&self.chunks, &self.listener.head_limits)
        x.begin(head + size, <size_t>part, end)
        return at + size + part

    cdef Py_ssize_t _read_body(self, bytes data, Py_ssize_t at) except -2:
        cdef Exchange x = self.x
        cdef const char* start = PyBytes_AS_STRING(data) + at
        cdef Py_ssize_t length = len(data) - at, taken
        cdef Span body
        cdef int event = CHUNK_MORE, reason = R_NONE
        cdef int64_t now = now_ns(), elapsed
        if x.facts.body == BODY_LENGTH:
            taken = min(length, self.body_left)
            body = span_of(start, taken)
            self.body_left -= taken
            if self.body_left == 0:
                event = CHUNK_END
        else:
            taken = gather_chunks(&self.chunks, start, length, &body, &event, &self.worker.gathered, &x.request_trailers,
                                  self.worker.trailer_fields, TRAILER_ROOM)
        if event == CHUNK_BAD:
            reason = R_CHUNK_SYNTAX
        elif event == CHUNK_TRAILER_TOO_LARGE:
            reason = R_TRAILER_TOO_LARGE
        else:
            reason = self._judge(data, start, taken)
            if reason < 0:
                reason = R_CHUNK_SYNTAX
            elif self.judged != (event == CHUNK_END):
                reason = R_PARSERS_DISAGREE
        if reason == R_NONE and event != CHUNK_END:
            elapsed = now - self.body_start_ns
            if elapsed > RATE_GRACE_NS and (x.bytes_in + body.len) * 1e9 < <double>self.listener.body_min_rate * elapsed:
                reason = R_BODY_TOO_SLOW
        if reason != R_NONE:
            self.close_after = True
            x.refuse(reason, None)
            return len(data)
        if event == CHUNK_END:
            self._retire_parser(x)
            self.state = D_WAIT
            self._watch_reader(now)             # of an answer that began before this
        else:
            self.worker.arm(self, now + self.listener.body_idle_ns)
        if body.len or event == CHUNK_END:
            x.request_body(body.ptr, <size_t>body.len, event == CHUNK_END)
        return at + taken

    cdef int _judge(self, bytes owner, const char* data, Py_ssize_t length) except? -1000:
        # R_NONE, or minus the Reason that the parser's refusal comes to; its words are kept in `verdict`.
        if self.parser is None:
            self.parser = HttpRequestParser(self)
        try:
            self.parser.feed_data(part_of(owner, data, length))
        except HttpParserUpgrade:
            # The whole head was read; what follows is ours to read, so this parser is of no more use.
            self.parser = None
        except HttpParserError as error:
            self.parser = None
            self.verdict = str(error)
            if isinstance(error, HttpParserInvalidMethodError):
                return -R_METHOD_NOT_IMPLEMENTED
            if isinstance(error, HttpParserInvalidURLError):
                return -R_TARGET_SYNTAX
            return -R_FIELD_SYNTAX if "eader" in self.verdict else -R_REQUEST_SYNTAX
        return R_NONE

    cdef void _retire_parser(self, Exchange x) noexcept:
        # The parser takes Proxy-Connection, and fields of a trailer section, for Connection; we take neither. Where it
        # may think that the connection is over, the next request gets a new one.
        if x.request_trailers.len or x.facts.proxy_connection:
            self.parser = None

    def on_message_complete(self):
        # Called by the parser.
        self.judged = True

    cdef Exchange _new_exchange(self, int64_t now):
        cdef Exchange x = self.worker.take_exchange()
        x.client = self
        x.listener = self.listener
        x.start_ns = now
        x.view.client = self.address
        x.client_port = self.port
        x.client_trusted = self.trusted
        x.body_limit = self.listener.body_limit
        memset(&x.facts, 0, sizeof(HeadFacts))
        x.request_id_length = self.worker.make_request_id(x.request_id)
        self.x = x
        return x

    cdef int _choose_request_id(self, Exchange x) except -1:
        # A client's own id is kept only if it is short and plain: it goes into logs and headers.
        cdef Span given = x.facts.request_id
        if self.trusted and x.facts.forwarded_for_count:
            self._believe_forwarded(x)
        if given.ptr == NULL or self.listener.request_id == REQUEST_ID_NEW:
            return 0
        if self.listener.request_id == REQUEST_ID_KEEP_TRUSTED and not self.trusted:
            return 0
        if 0 < given.len <= 64 and is_token(given):
            memcpy(x.request_id, given.ptr, <size_t>given.len)
            x.request_id_length = <int>given.len
        return 0

    cdef int _believe_forwarded(self, Exchange x) except -1:
        # The client is the rightmost address of X-Forwarded-For that is not one of the trusted proxies.
        cdef int i
        cdef Py_ssize_t end, start
        cdef Span value, item
        cdef Address address
        for i in range(x.view.field_count - 1, -1, -1):
            if x.view.fields[i].id != F_X_FORWARDED_FOR:
                continue
            value = x.view.fields[i].value
            end = value.len
            while end > 0:
                start = end
                while start > 0 and value.ptr[start - 1] != 44:
                    start -= 1
                item = span_of(value.ptr + start, end - start)
                while item.len and (item.ptr[0] == 32 or item.ptr[0] == 9):
                    item = span_of(item.ptr + 1, item.len - 1)
                while item.len and (item.ptr[item.len - 1] == 32 or item.ptr[item.len - 1] == 9):
                    item.len -= 1
                if not parse_address(item, &address):
                    return 0
                x.view.client = address
                x.client_port = 0
                if not self.listener.trusted.holds(&address):
                    return 0
                end = start - 1
        return 0

    cdef int _know_address(self) except -1:
        self.trusted = self.listener.trusted is not None and self.listener.trusted.holds(&self.address)
        return 0

    cdef int _follow(self) except -1:
        # Between two requests alone: a request ends under the bounds that it began with.
        self.listener = self.slot.current
        return self._know_address()

    cdef const Address* peer_address(self) noexcept:
        return &self.address

    # -- the exchange's side -------------------------------------------------------------------------------------

    cdef int send_head(self, Exchange x, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        cdef Out* out = &self.worker.out
        cdef Span[2] parts
        if self.state != D_WAIT:
            self.close_after = True             # the request is not whole, or is none
        self.chunked_out = False
        if head.body == BODY_CHUNKED or head.body == BODY_EOF:
            if x.facts.http_minor:
                self.chunked_out = True
                head.content_length = -1
            else:
                self.close_after = True         # RFC 9112 6.1: never chunked to HTTP/1.0; the close ends the body
        out.len = 0
        write_response_head(out, x, head, self.chunked_out, self.close_after)
        if self.chunked_out:
            return self._chunk(out, body, length, end, x)
        if length <= COPY_LIMIT:
            out_put(out, body, length)
            length = 0
        if out.failed:
            raise MemoryError()
        parts[0] = span_of(out.data, <Py_ssize_t>out.len)
        parts[1] = span_of(body, <Py_ssize_t>length)
        return self._sent(self.wire.send_parts(parts, 2 if length else 1))

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        cdef Out* out = &self.worker.out
        if self.state == D_TUNNEL:
            self.worker.arm(self, now_ns() + x.route.tunnel_idle_ns)
            if end:
                return self.wire.finish()
        elif self.chunked_out:
            out.len = 0
            return self._chunk(out, body, length, end, x)
        if length == 0:
            return SENT_ALL
        return self._sent(self.wire.send(body, length))

    cdef int _chunk(self, Out* out, const char* body, size_t length, bint end, Exchange x) except -1:
        # What is in `out` already (a head, or nothing), then the body part as one chunk, then perhaps the end.
        cdef Span[3] parts
        cdef size_t split
        cdef int count = 1
        if length:
            out_hex(out, length, 0)
            out_put(out, b"\r\n", 2)
            if length <= COPY_LIMIT:
                out_put(out, body, length)
        split = out.len
        if length:
            out_put(out, b"\r\n", 2)
        if end:
            out_put(out, b"0\r\n", 3)
            if not write_trailers(out, &x.response_trailers, self.worker.trailer_fields, TRAILER_ROOM):
                out_put(out, b"\r\n", 2)        # checked when they came; nothing is written half
        if out.failed:
            raise MemoryError()
        if length > COPY_LIMIT:
            parts[0] = span_of(out.data, <Py_ssize_t>split)
            parts[1] = span_of(body, <Py_ssize_t>length)
            parts[2] = span_of(out.data + split, <Py_ssize_t>(out.len - split))
            count = 3
        else:
            parts[0] = span_of(out.data, <Py_ssize_t>out.len)
        return self._sent(self.wire.send_parts(parts, count))

    cdef int send_interim(self, Exchange x, ResponseHead* head) except -1:
        cdef Out* out = &self.worker.out
        out.len = 0
        write_response_head(out, x, head, False, False)
        return self._sent(self.wire.send(out.data, out.len))

    cdef int _sent(self, int sent) except -1:
        if sent == SENT_ALL:
            return sent
        if sent == SENT_BROKEN:
            self.wire.abort()
        elif self.timer.deadline == 0:
            self._watch_reader(now_ns())
        return sent

    cdef int _watch_reader(self, int64_t now) except -1:
        if self.wire.waiting():
            self._reader_moves()
            self.worker.arm(self, now + self.listener.write_idle_ns)
        else:
            disarm(self)
        return 0

    cdef bint _reader_moves(self) except -1:
        cdef int64_t before = self.last_taken
        self.last_taken = self.wire.handed - <int64_t>self.wire.unsent()
        return self.last_taken != before

    cdef int pause_request(self) except -1:
        if self.state == D_BODY and self.paused_ns == 0:
            self.paused_ns = now_ns()
            self._watch_reader(self.paused_ns)
            self.wire.pause()
        return 0

    cdef int resume_request(self) except -1:
        cdef int64_t now
        if self.paused_ns:
            now = now_ns()
            self.body_start_ns += now - self.paused_ns
            self.paused_ns = 0
            if self.state == D_BODY:
                self.worker.arm(self, now + self.listener.body_idle_ns)
        if self.pending is None:
            self.wire.resume()
        return 0

    cdef int no_more(self) except -1:
        self.close_after = True
        return 0

    cdef int start_tunnel(self, Exchange x, EndpointSide peer) except -1:
        self.state = D_TUNNEL
        self.close_after = True
        self.parser = None
        self.worker.arm(self, now_ns() + x.route.tunnel_idle_ns)
        if self.pending is not None and not self.reading:
            self._read(b"", 0)
        return 0

    cdef int _pass_on(self, const char* data, Py_ssize_t length) except -1:
        self.worker.arm(self, now_ns() + self.x.route.tunnel_idle_ns)
        if self.x.tunnel_bytes(data, <size_t>length) == SENT_CONGESTED:
            self.wire.pause()
        return 0

    cdef int cut(self, Exchange x) except -1:
        # A body that is cut must not look whole: HTTP/1.0 clients and EOF-delimited bodies know it by RST alone.
        self.state = D_CLOSED
        return self.wire.reset()

    cdef int exchange_done(self, Exchange x, int64_t now) except -1:
        cdef bint linger = self.state != D_WAIT or self.pending is not None
        self.x = None
        if self.state == D_CLOSED or self.state == D_LINGER:
            return 0
        if self.state == D_TUNNEL:
            return self._leave(False)
        if self.close_after or (self.eof and self.pending is None):
            return self._leave(linger)
        self.state = D_IDLE
        if self.paused_ns:
            self.resume_request()
        self.worker.arm(self, now + (self.listener.write_idle_ns if self.wire.congested
                                          else self.listener.keep_alive_ns))
        if self.pending is not None and not self.reading:
            self._read(b"", 0)
        return 0

    cdef int _leave(self, bint linger) except -1:
        # No request follows. With `linger` the client may still be sending: closing at once would answer that with
        # RST, and the RST could take our last answer with it (RFC 9112 9.6). So: FIN, read on for a while, close.
        self.state = D_LINGER
        self.pending = None
        self.parser = None
        self.last_taken = -1
        self.worker.arm(self, now_ns() + (LINGER_NS if linger else self.listener.write_idle_ns))
        if linger and not self.eof:
            self.wire.finish()
            self.wire.resume()
        else:
            self.wire.close()
        return 0

    cdef int drain(self) except -1:
        # Finish what runs, take nothing new.
        self.close_after = True
        if self.state == D_IDLE or self.state == D_PROXY or self.state == D_HANDSHAKE:
            self._leave(False)
        return 0

    cdef int last_chance(self, int64_t until_ns) except -1:
        # As `drain`, but a connection that waits for a request does so until then.
        self.close_after = True
        if self.state == D_IDLE or self.state == D_PROXY:
            self.worker.arm(self, until_ns)
        return 0

    cdef int cut_off(self) except -1:
        # The drain's time is up.
        cdef Exchange x = self.x
        self.state = D_CLOSED
        self.wire.reset()
        if x is not None:
            x.client_gone(R_DRAIN_CUT, None)
        return 0

    cdef int on_deadline(self, int64_t now) except -1:
        cdef Exchange x = self.x
        if self.state == D_IDLE or self.state == D_PROXY:
            self._leave(False)
        elif self.state == D_HANDSHAKE:
            self.worker.counters.gauge_add(GAUGE_TLS_TIMEOUTS, 1)
            self.state = D_CLOSED
            self.wire.abort()
        elif self.state == D_HEAD:
            self._refuse_head(R_HEAD_TIMEOUT)
        elif self.state == D_WAIT or (self.state == D_BODY and self.paused_ns):
            if self.wire.waiting() == 0 or self._reader_moves():
                return self._watch_reader(now)
            self.state = D_CLOSED
            self.wire.abort()
            x.client_gone(R_CLIENT_NOT_READING, None)
        elif self.state == D_BODY:
            self.close_after = True
            x.refuse(R_BODY_TIMEOUT, None)
        elif self.state == D_TUNNEL:
            self.state = D_CLOSED
            self.wire.abort()
            x.client_gone(R_TUNNEL_IDLE, None)
        elif self.state == D_LINGER:
            if self.wire.unsent() and self._reader_moves():
                self.worker.arm(self, now + self.listener.write_idle_ns)   # the last answer is still being read
            else:
                self.wire.abort()
        return 0
