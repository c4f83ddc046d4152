# Theory of operation. A connection serves one exchange at a time: `send_request` binds it, `_over` lets go when both
# the request is sent and the response has ended, and gives it back to its pool, or closes it when anything about it is
# no longer certain. All decisions about the exchange (retry, answer) are the exchange's; this side only says what
# happened.
#
#   U_NEW -> U_IDLE -> U_HEAD -> U_BODY -> U_IDLE ...;  U_HEAD -> U_TUNNEL on 101;  any -> U_CLOSED

from httptools import HttpResponseParser


cdef class Upstream1(EndpointSide):
    def __cinit__(self, Endpoint endpoint not None):
        self.endpoint = endpoint
        self.worker = endpoint.worker
        self.wire = Wire()
        self.state = U_NEW
        self.keep = True

    def __dealloc__(self):
        out_free(&self.partial)

    # -- what the loop calls -------------------------------------------------------------------------------------

    def connection_made(self, transport):
        self.wire.open(transport)
        self.worker.upstreams.add(self)

    def data_received(self, bytes data not None):
        if self.state == U_IDLE or self.state == U_NEW:
            # Nobody asked: a response without a request is never taken for the next one's.
            self._let_go()
            self.wire.abort()
        elif self.state != U_CLOSED:
            self._read(data)

    def eof_received(self):
        if self.state == U_TUNNEL:
            self.x.tunnel_end(False)
            return True
        if self.state == U_BODY and self.body == BODY_EOF:
            self._end_by_eof()
        elif U_IDLE < self.state < U_CLOSED:
            self._ended("closed")
        else:
            self._let_go()
        return False

    def connection_lost(self, error):
        cdef Exchange x = self.x
        self.wire.lost()
        if self.state == U_TUNNEL and x is not None:
            self.x = None
            self._let_go()
            x.client_gone(R_NONE if error is None else R_UPSTREAM_RESET, None if error is None else str(error))
        elif U_IDLE < self.state < U_CLOSED:
            # Only a FIN ends a body that runs to the end of its connection: an error, or a TLS session that ended
            # without close_notify, means that it is cut short.
            if self.state == U_HEAD and not self.reused and not self.answered and isinstance(error, TlsError) \
                    and error.ours:
                # With TLS 1.3 our side of a handshake is over before the endpoint has judged our certificate.
                self._broken(R_TLS_HANDSHAKE, str(error))
            else:
                self._ended("reset" if error is None else str(error))
        self._let_go()
        self.parser = None
        forget_timer(self.worker.wheel, self)
        self.worker.upstreams.discard(self)
        self.worker.left()

    def pause_writing(self):
        self.wire.congested = True

    def resume_writing(self):
        self.wire.congested = False
        if self.x is not None:
            if self.state == U_HEAD:
                self._arm(now_ns())         # it takes the upload again: the pace is the client's once more
            self.x.attempt_drained()

    # -- the exchange's side -------------------------------------------------------------------------------------

    cdef int send_request(self, Exchange x, const char* body, size_t length, bint end, int64_t now) except -1:
        cdef Out* out = &self.worker.out
        cdef int sent
        out.len = 0
        self.x = x
        self.state = U_HEAD
        self.scan.at = 0
        self.scan.line_start = 0
        self.scan.lines = 0
        self.partial.len = 0
        self.answered = False
        self.judged = False
        self.event_stream = False
        self.request_sent = end
        self.request_chunked = x.facts.body == BODY_CHUNKED
        self.head_request = x.view.method_id == METHOD_HEAD
        write_request_head(out, x, self.endpoint, x.client.peer_address())
        x.sent_ns = now
        sent = self._write(body, length, end)
        self._arm(now)
        return sent

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        cdef int sent
        if self.state == U_TUNNEL:
            self._arm(now_ns())
            if end:
                return self.wire.finish()
            return self._sent(self.wire.send(body, length))
        self.worker.out.len = 0
        sent = self._write(body, length, end)
        if end:
            self.request_sent = True
        self._arm(now_ns())
        return self._sent(sent)

    cdef int _write(self, const char* body, size_t length, bint end) except -1:
        # What is in `out` (a head, or nothing), then a part of the body, framed as the head says.
        cdef Out* out = &self.worker.out
        cdef Span[3] parts
        cdef size_t split
        if self.request_chunked:
            if length:
                out_hex(out, length, 0)
                out_put(out, b"\r\n", 2)
            split = out.len
            if length:
                out_put(out, b"\r\n", 2)
            if end:
                out_put(out, b"0\r\n", 3)
                write_trailers(out, &self.x.request_trailers, self.worker.trailer_fields, TRAILER_ROOM)
        else:
            split = out.len
        if out.failed:
            raise MemoryError()
        parts[0] = span_of(out.data, <Py_ssize_t>split)
        parts[1] = span_of(body, <Py_ssize_t>length)
        parts[2] = span_of(out.data + split, <Py_ssize_t>(out.len - split))
        if out.len == 0 and length == 0:
            return SENT_ALL
        return self.wire.send_parts(parts, 1 if length == 0 and out.len == split else 3)

    cdef int _sent(self, int sent) except -1:
        # A later write that fails means that the connection is gone, though its answer may still be in our receive
        # buffer: read on; what follows (answer, FIN or reset) says what to do.
        return SENT_QUEUED if sent == SENT_BROKEN else sent

    cdef int pause_response(self) except -1:
        if self.state == U_BODY or self.state == U_TUNNEL:
            if self.state == U_BODY:
                disarm(self)
            self.wire.pause()
        return 0

    cdef int resume_response(self) except -1:
        if self.wire.paused:
            self.wire.resume()
            self._arm(now_ns())
        return 0

    cdef int abandon(self) except -1:
        cdef bint flush = self.state == U_TUNNEL
        self.x = None
        self._let_go()
        if flush:
            self.worker.arm(self, now_ns() + LINGER_NS)
            return self.wire.close()
        return self.wire.abort()

    # -- reading -------------------------------------------------------------------------------------------------

    cdef int _read(self, bytes data) except -1:
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef Py_ssize_t length = len(data), at = 0, size
        cdef int64_t now = now_ns()
        self.answered = True
        if self.state == U_TUNNEL:
            self._arm(now)
            return self.x.response(NULL, start, <size_t>length, False, now)
        if self.state == U_BODY:
            return self._read_body(data, NULL, start, length, now)
        if self.partial.len:
            out_put(&self.partial, start, <size_t>length)
            size = self._scan(self.partial.data, <Py_ssize_t>self.partial.len)
            if size <= 0:
                return 0
            data = self.partial.data[:self.partial.len]
            self.partial.len = 0
            start = PyBytes_AS_STRING(data)
            length = len(data)
        else:
            size = self._scan(start, length)
        while size > 0:
            if self._read_head(data, start + at, size, length - at, now):
                return 0
            # That was a 1xx; what follows it is a head again.
            at += size
            size = self._scan(start + at, length - at)
        if size == 0 and at < length:
            out_put(&self.partial, start + at, <size_t>(length - at))
        return 0

    cdef Py_ssize_t _scan(self, const char* data, Py_ssize_t length) except -2:
        # The length of a whole head; 0: more must come; -1: refused, and the exchange has heard of it.
        cdef int reason = R_NONE
        cdef Py_ssize_t size
        if self.partial.failed:
            raise MemoryError()
        size = scan_head(data, length, &self.scan, &self.endpoint.upstream.head_limits, &reason)
        if size < 0:
            self._broken(R_UPSTREAM_SYNTAX if reason == R_BARE_LF or reason == R_REQUEST_LINE_SYNTAX
                         else R_UPSTREAM_HEADER_TOO_LARGE, None)
        elif size == 0 and length and memcmp(data, b"HTTP/1.", <size_t>min(length, 7)) != 0:
            # Something else than HTTP/1 speaks there: no use in waiting for a head's end.
            self._broken(R_UPSTREAM_SYNTAX, "not a status line")
            return -1
        return size

    cdef bint _read_head(self, bytes owner, const char* data, Py_ssize_t size, Py_ssize_t length, int64_t now) except -1:
        # A whole head of `size` bytes, and what follows it. False: it was a 1xx, another head follows.
        cdef HeadFacts* facts = &self.facts
        cdef Field* fields = self.worker.room(self.scan.lines)
        cdef ResponseHead head
        cdef int reason
        cdef Py_ssize_t part = 0
        memset(&head, 0, sizeof(head))
        memset(&self.scan, 0, sizeof(self.scan))
        head.status = split_status_line(data, size, &facts.http_minor, &head.phrase)
        head.field_count = split_fields(data, size, fields, self.worker.field_room)
        head.fields = fields
        if head.status < 0 or head.field_count < 0:
            self._broken(R_UPSTREAM_SYNTAX, "not a status line" if head.status < 0 else "not a field line")
            return True
        reason = read_response_facts(fields, head.field_count, head.status, self.head_request, facts)
        if reason == R_NONE and head.status == 101 and not self._switch_wanted():
            reason = R_UPSTREAM_UPGRADE
        if reason == R_NONE:
            # A Content-Length body that has come already is judged with its head.
            if facts.body == BODY_LENGTH and head.status >= 200:
                part = min(length - size, facts.content_length)
            reason = self._judge(owner, data, size + part)
        if reason != R_NONE:
            self._broken(reason, self.verdict)
            return True
        head.has_date = facts.has_date
        head.body = facts.body
        # RFC 9110 8.6: no Content-Length in 1xx and 204; RFC 9112 6.3: in HEAD and 304 it tells of a body that is not there.
        head.content_length = -1 if head.status == 204 or head.status < 200 else facts.content_length
        if head.status < 200:
            return self._interim(&head, data + size, length - size, now)
        if facts.body == BODY_NONE:
            if not self.judged:
                self.parser = None              # an answer to HEAD: it waits for a body that does not come
        elif self.judged and not (facts.body == BODY_LENGTH and part == facts.content_length):
            self._broken(R_UPSTREAM_FRAMING, "the parser saw an end before the body")
            return True
        if facts.body == BODY_LENGTH and 0 <= self.endpoint.upstream.body_limit < facts.content_length:
            self._broken(R_UPSTREAM_BODY_TOO_LARGE, None)
            return True
        self.body = facts.body
        self.body_left = facts.content_length
        self.body_bytes = 0
        if facts.http_minor == 0 or facts.close or facts.body == BODY_EOF:
            self.keep = False
            self.parser = None if facts.body == BODY_EOF else self.parser
        self.event_stream = facts.content_type.len >= 17 and span_is(
            span_of(facts.content_type.ptr, 17), b"text/event-stream", 17)
        if facts.body == BODY_CHUNKED:
            chunk_start(&self.chunks, &self.endpoint.upstream.head_limits)
        self.state = U_BODY
        self._read_body(owner, &head, data + size, length - size, now)
        return True

    cdef bint _switch_wanted(self) noexcept:
        # RFC 9110 7.8: a server switches only to what was asked for.
        return self.x.upgrading and self.facts.connection_upgrade and self.facts.upgrade.ptr != NULL \
            and span_equal_nocase(self.facts.upgrade, self.x.chosen_upgrade())

    cdef bint _interim(self, ResponseHead* head, const char* rest, Py_ssize_t left, int64_t now) except -1:
        cdef Exchange x = self.x
        cdef bytes lines
        if not self.judged:
            self._broken(R_UPSTREAM_FRAMING, "a body behind a 1xx head")
            return True
        self.judged = False
        if head.status == 101:
            lines = b"Connection: upgrade\r\nUpgrade: " + span_bytes(self.facts.upgrade) + b"\r\n"
            head.lines = bytes_span(lines)
            self.state = U_TUNNEL
            self.keep = False
            self.parser = None
            self._arm(now)
            x.upstream_head_ns = now - x.sent_ns
            x.switched(head, rest, <size_t>left)
            return True
        if x.interim >= MAX_INTERIM:
            self._broken(R_UPSTREAM_INTERIM, None)
            return True
        x.interim_response(head)
        self._arm(now)
        return False

    cdef int _read_body(self, bytes owner, ResponseHead* head, const char* data, Py_ssize_t length, int64_t now) except -1:
        # `head`: the final head, when this is what follows it in the same bytes; else NULL.
        cdef Exchange x = self.x
        cdef Py_ssize_t taken
        cdef Span body
        cdef bytes last
        cdef int event = CHUNK_MORE
        cdef int64_t limit = self.endpoint.upstream.body_limit
        if self.body == BODY_CHUNKED:
            taken = gather_chunks(&self.chunks, data, length, &body, &event, &self.worker.gathered, &x.response_trailers,
                                  self.worker.trailer_fields, TRAILER_ROOM)
            if event == CHUNK_BAD or event == CHUNK_TRAILER_TOO_LARGE:
                return self._broken(R_UPSTREAM_CHUNK, None)
        else:
            taken = length
            if self.body == BODY_LENGTH:
                taken = min(length, self.body_left)
                self.body_left -= taken
                if self.body_left == 0:
                    event = CHUNK_END
            elif self.body == BODY_NONE:
                taken = 0
                event = CHUNK_END
            body = span_of(data, taken)
        if self.body == BODY_CHUNKED or (self.body == BODY_LENGTH and head == NULL):
            if self._judge(owner, data, taken) != R_NONE:
                return self._broken(R_UPSTREAM_FRAMING, self.verdict)
        if self.body == BODY_LENGTH or self.body == BODY_CHUNKED:
            if self.judged != (event == CHUNK_END):
                return self._broken(R_UPSTREAM_FRAMING, self.verdict)
        self.body_bytes += body.len
        if limit >= 0 and self.body_bytes > limit:
            return self._broken(R_UPSTREAM_BODY_TOO_LARGE, None)
        if event == CHUNK_END and (x.response_trailers.len or self.facts.proxy_connection):
            self.parser = None              # it may take these for Connection: close; see Downstream1._retire_parser
        if head != NULL:
            x.upstream_head_ns = now - x.sent_ns
        if event != CHUNK_END:
            self._arm(now)
            if head != NULL or body.len:
                return x.response(head, body.ptr, <size_t>body.len, False, now)
            return 0
        if taken < length:
            # More than the response: whatever it is, nobody may read it as an answer (RFC 9112 6.3).
            self.keep = False
        if self.endpoint.waiting and self.body == BODY_CHUNKED:
            # `_over` gives this connection to who waits for it, and what follows from that may gather chunks of its own.
            last = body.ptr[:body.len]
            body = bytes_span(last)
        self._over(now)
        return x.response(head, body.ptr, <size_t>body.len, True, now)

    cdef int _judge(self, bytes owner, const char* data, Py_ssize_t length) except? -1000:
        if self.parser is None:
            self.parser = HttpResponseParser(self)
        try:
            if length:
                self.parser.feed_data(part_of(owner, data, length))
        except HttpParserUpgrade:
            self.parser = None
        except HttpParserError as error:
            self.parser = None
            self.verdict = str(error)
            return R_UPSTREAM_SYNTAX
        return R_NONE

    def on_message_complete(self):
        # Called by the parser.
        self.judged = True

    cdef int _end_by_eof(self) except -1:
        cdef Exchange x = self.x
        cdef int64_t now = now_ns()
        self.keep = False
        self._over(now)
        return x.response(NULL, NULL, 0, True, now)

    # -- ends ----------------------------------------------------------------------------------------------------

    cdef int _broken(self, int reason, str detail) except -1:
        # What came is no answer: nothing of it is trusted, nothing is sent again.
        cdef Exchange x = self.x
        self.x = None
        self._let_go()
        self.wire.abort()
        return x.attempt_failed(reason, detail, False)

    cdef int _ended(self, str how) except -1:
        # FIN or reset before the response was whole.
        cdef Exchange x = self.x
        cdef bint reused = self.reused and not self.answered
        cdef int reason = R_UPSTREAM_RESET if self.state == U_HEAD else R_UPSTREAM_TRUNCATED
        self.x = None
        self._let_go()
        self.wire.abort()
        return x.attempt_failed(reason, how, reused)

    cdef int _over(self, int64_t now) except -1:
        # The response is whole; the exchange hears of it from the caller, after this.
        self.x = None
        self.reused = True
        if self.keep and self.request_sent and self.state != U_CLOSED:
            self.state = U_IDLE
            return self.endpoint.release(self, now)
        self._let_go()
        self.worker.arm(self, now + LINGER_NS)
        return self.wire.close()

    cdef int _let_go(self) except -1:
        # Out of the pool's books, once.
        cdef bint counted = self.state != U_NEW and self.state != U_CLOSED
        self.state = U_CLOSED
        if counted:
            self.endpoint.connection_closed(self)
        return 0

    cdef int _arm(self, int64_t now) except -1:
        cdef Upstream upstream = self.endpoint.upstream
        cdef int64_t wait
        if self.state == U_TUNNEL:
            wait = self.x.route.tunnel_idle_ns
        elif self.state == U_HEAD and self.request_sent:
            wait = upstream.head_ns
            if self.x.retry is not None and 0 < self.x.retry.per_try_ns < wait:
                wait = self.x.retry.per_try_ns
        elif self.event_stream:
            wait = self.x.route.event_idle_ns
        elif self.state == U_HEAD:
            # The upload's pace is the client's affair; here only an endpoint that takes nothing is watched.
            wait = upstream.idle_ns if self.wire.congested else 0
        else:
            wait = upstream.idle_ns
        if wait:
            self.worker.arm(self, now + wait)
        else:
            disarm(self)
        return 0

    cdef int on_deadline(self, int64_t now) except -1:
        cdef Exchange x = self.x
        cdef int reason
        if x is None:
            self._let_go()                  # too long idle in the pool, or it does not close
            return self.wire.abort()
        if self.state == U_TUNNEL:
            return x.client_gone(R_TUNNEL_IDLE, None)
        reason = R_UPSTREAM_HEAD_TIMEOUT if self.state == U_HEAD and self.request_sent else R_UPSTREAM_IDLE_TIMEOUT
        return self._broken(reason, None)

    cdef bint closed_by_peer(self) noexcept:
        # Whether a FIN, a reset or unasked bytes wait to be read: one system call, for requests that may not go twice.
        cdef char one
        if self.wire.fd < 0:
            return False
        return c_recv(self.wire.fd, &one, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 or errno != EAGAIN
