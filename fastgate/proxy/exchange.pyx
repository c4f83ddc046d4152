# Theory of operation. The client side reads a head and calls `begin`; the exchange matches a route, runs its native
# filters and either answers itself or asks an endpoint's pool for a connection. It then moves bytes between the two
# sides, holding one back while the other is congested, until the response has ended. Every way out leads through
# `_finish`, exactly once: there the record is written, both sides let go, and the object goes back to the free list.

cdef class ClientSide(Timed):
    cdef int send_head(self, Exchange x, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        raise NotImplementedError

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        raise NotImplementedError

    cdef int send_interim(self, Exchange x, ResponseHead* head) except -1:
        raise NotImplementedError

    cdef int pause_request(self) except -1:
        raise NotImplementedError

    cdef int resume_request(self) except -1:
        raise NotImplementedError

    cdef int cut(self, Exchange x) except -1:
        raise NotImplementedError

    cdef int exchange_done(self, Exchange x, int64_t now) except -1:
        raise NotImplementedError

    cdef int start_tunnel(self, Exchange x, EndpointSide peer) except -1:
        raise NotImplementedError

    cdef int no_more(self) except -1:
        raise NotImplementedError

    cdef const Address* peer_address(self) noexcept:
        return NULL


cdef class EndpointSide(Timed):
    cdef int send_request(self, Exchange x, const char* body, size_t length, bint end, int64_t now) except -1:
        raise NotImplementedError

    cdef int send_body(self, Exchange x, const char* body, size_t length, bint end) except -1:
        raise NotImplementedError

    cdef int pause_response(self) except -1:
        raise NotImplementedError

    cdef int resume_response(self) except -1:
        raise NotImplementedError

    cdef int abandon(self) except -1:
        raise NotImplementedError


cdef bint _misdirected(TlsLayer tls, Span host) noexcept:
    # Who may use a name was decided by the handshake for that name; a request may not then ask for another
    # (RFC 9110 7.4).
    return tls is not None and tls.sni is not None and not span_equal_nocase(host, bytes_span(tls.sni))


cdef bytes CHALLENGE_PREFIX = b"/.well-known/acme-challenge/"
cdef bytes CHALLENGE_LINES = b"Content-Type: application/octet-stream\r\nCache-Control: no-store\r\n"


cdef inline bint _idempotent(uint8_t method_id) noexcept nogil:
    # RFC 9110 9.2.2.
    return method_id in (METHOD_GET, METHOD_HEAD, METHOD_PUT, METHOD_DELETE, METHOD_OPTIONS)


cdef class Exchange(Timed):
    def __cinit__(self):
        self.field_room = 32
        self.fields = <Field*>malloc(self.field_room * sizeof(Field))
        if self.fields == NULL:
            raise MemoryError()
        self.reset()

    def __dealloc__(self):
        free(self.fields)
        out_free(&self.scratch)
        out_free(&self.replay_more)
        out_free(&self.extra)
        out_free(&self.request_trailers)
        out_free(&self.response_trailers)
        out_free(&self.notes)

    cdef void reset(self) noexcept:
        # Python references are let go here; numbers that `start` or `begin` set anew are not touched.
        self.client = None
        self.attempt = None
        self.listener = None
        self.route = None
        self.phase = X_DONE         # until `take_exchange`: whoever still has it can do nothing with it
        self.kind = KIND_CLIENT
        self.turn += 1
        self.run = None
        self.changed_head = None
        self.changed_method = None
        self.changed_path = None
        self.changed_query = None
        self.path_set = False
        self.consumer_name = None
        self.consumer_plan = None
        self.upstream = None
        self.endpoint = None
        self.pinned = False
        self.seated = False
        self.holds = 0
        self.arm = -1
        self.retry = None
        self.tries = 0
        self.retries = 0
        self.delivered = False
        self.fell_back = False
        self.stick = False
        self.mirrored = False
        self.fault_status = 0
        self.hedge = None
        self.phase_deadline = 0
        self.held_reason = R_NONE
        self.held_detail = None
        self.head = None
        memset(&self.view, 0, sizeof(RequestView))
        memset(&self.target, 0, sizeof(Target))
        self.raw_target = span_of(NULL, 0)
        self.scratch.len = 0
        self.scratch.failed = False
        self.request_id_length = 0
        self.client_trusted = False
        self.request_done = False
        self.unsent_done = False
        self.unsent = None
        self.replayable = False
        self.replay = None
        out_free(&self.replay_more)
        self.replay_more.failed = False
        self.request_trailers.len = 0
        self.request_trailers.failed = False
        self.extra.len = 0
        self.extra.failed = False
        self.response_trailers.len = 0
        self.response_trailers.failed = False
        self.traced = 0
        self.span = 0
        self.attempt_span = 0
        self.notes.len = 0
        self.notes_lost = 0
        self.status = 0
        self.interim = 0
        self.upgrading = False
        self.raced = False
        self.reason = R_NONE
        self.detail = None
        self.own_problem = None
        self.attempts = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.total_deadline = 0
        self.queue_ns = -1
        self.connect_ns = -1
        self.upstream_head_ns = -1

    # -- from the client side ------------------------------------------------------------------------------------

    cdef int begin(self, const char* body, size_t length, bint end) except -1:
        # The head is read, judged, and its facts are sound. `body` is what has come of the body so far.
        cdef int reason, index
        cdef HeadFacts* facts = &self.facts
        cdef Route route
        cdef bytes challenge
        if self.view.method_id == METHOD_CONNECT or self.view.method_id == METHOD_TRACE:
            return self.refuse(R_METHOD_NOT_IMPLEMENTED, None)
        reason = normalise_target(self.view.method_id, self.raw_target, facts.host, &self.target, &self.scratch)
        if reason != R_NONE:
            return self.refuse(reason, None if self.target.detail.ptr == NULL else span_text(self.target.detail))
        self.view.path = self.target.path
        self.view.query = self.target.query
        self.view.host = self.target.host
        if self.listener.strict_host and _misdirected(self.client.tls, self.view.host):
            return self.refuse(R_MISDIRECTED, None)
        if self.view.method_id == METHOD_OPTIONS and facts.max_forwards == 0:
            self.reason = R_MAX_FORWARDS
            return answer(self, 200, b"X-Request-ID: " + self.request_id[:self.request_id_length] + b"\r\n", b"")
        if self.worker.challenges is not None:
            challenge = self._challenge()
            if challenge is not None:
                self.reason = R_ACME_CHALLENGE
                return answer(self, 200, CHALLENGE_LINES, challenge)
        index = self.listener.table.match(&self.view)
        if self.listener.tracing is not None:
            begin_trace(self, None if index < 0 else <Route>self.listener.routes[index])
        if index < 0:
            return self.refuse(R_NO_ROUTE, None)
        route = <Route>self.listener.routes[index]
        route.expect()
        self.worker.counters.expect(route.slot)
        self.route = route
        self.view.capture_names = route.captures
        if self.target.encoded_slash and not route.keep_encoded_slash:
            return self.refuse(R_ENCODED_SLASH, None)
        self.body_limit = self.listener.body_limit if route.body_limit == -2 else route.body_limit
        if self.body_limit >= 0 and facts.content_length > self.body_limit:
            return self.refuse(R_BODY_TOO_LARGE, None)
        self.upgrading = facts.connection_upgrade and facts.http_minor == 1 and facts.upgrade.ptr != NULL and self.chosen_upgrade().ptr != NULL
        if route.filters:
            reason = self._filter()
            if reason != R_NONE:
                return self.refuse(reason, self.detail)
        if route.action > ACTION_AGGREGATE and route.chain is None:
            return self._answer_fixed()
        if route.total_ns >= 0:
            self.total_deadline = self.start_ns + route.total_ns
            self.worker.arm(self, self.total_deadline)
        self.bytes_in += <int64_t>length
        if self.body_limit >= 0 and self.bytes_in > self.body_limit:
            return self.refuse(R_BODY_TOO_LARGE, None)
        self.request_done = end
        if route.chain is not None:
            return begin_plugins(self, body, length, end)
        return self.take_action(body, length, end)

    cdef int take_action(self, const char* body, size_t length, bint end) except -1:
        cdef Route route = self.route
        if route.action > ACTION_AGGREGATE:
            return self._answer_fixed()
        if route.action == ACTION_AGGREGATE and self.upstream is None:
            return begin_gathering(self, body, length, end)
        if self.upstream is None:                   # a plugin may have chosen another
            self.upstream = route.upstream
        self.replay_limit = REPLAY_LIMIT
        if _idempotent(self.view.method_id):
            self.replayable = True
            self.replay = b""
        if route.detour:
            return begin_detour(self, body, length, end)
        return enter_upstream(self, body, length, end, self.start_ns if self.run is None and
                              not self.traced & TRACED_WHOLE else now_ns())

    cdef bytes _challenge(self):
        # RFC 8555 8.3: http-01. What is not under way is the routes' business.
        cdef Span path = self.view.path
        cdef Py_ssize_t prefix = PyBytes_GET_SIZE(CHALLENGE_PREFIX)
        if <Py_ssize_t>path.len <= prefix or memcmp(path.ptr, PyBytes_AS_STRING(CHALLENGE_PREFIX), prefix) != 0:
            return None
        if self.view.method_id != METHOD_GET and self.view.method_id != METHOD_HEAD:
            return None
        return self.worker.challenges.get(path.ptr[prefix:path.len])

    cdef Span chosen_upgrade(self) noexcept:
        # The first protocol that the client names and the route allows; ptr NULL when there is none.
        cdef Py_ssize_t at = 0
        cdef Span item
        cdef bytes allowed
        if self.route.upgrades:
            while next_list_item(self.facts.upgrade, &at, &item):
                for allowed in self.route.upgrades:
                    if span_is(item, PyBytes_AS_STRING(allowed), PyBytes_GET_SIZE(allowed)):
                        return item
        return span_of(NULL, 0)

    cdef int _filter(self) except -1:
        cdef int reason
        cdef object each
        cdef int64_t began = 0
        for each in self.route.filters:
            if self.traced & TRACED_WHOLE:
                began = now_ns()
            reason = (<NativeFilter>each).check(self)
            if reason != R_NONE or self.traced & TRACED_WHOLE:
                note_filter(self, <NativeFilter>each, began, reason)
            if reason != R_NONE:
                self.detail = (<NativeFilter>each).name
                return reason
        return R_NONE

    cdef int _answer_fixed(self) except -1:
        cdef Out out
        cdef bytes lines
        cdef Route route = self.route
        if route.action == ACTION_RESPOND:
            self.reason = R_RESPONSE_FIXED
            return answer(self, route.respond_status, route.respond_lines, route.respond_body)
        self.reason = R_REDIRECTED
        memset(&out, 0, sizeof(out))
        try:
            out_put(&out, b"Location: ", 10)
            route.redirect.write_location(
                &self.view, span_of(b"https", 5) if self.client.secure else span_of(b"http", 4), self.target.port, &out)
            out_put(&out, b"\r\n", 2)
            lines = PyBytes_FromStringAndSize(out.data, <Py_ssize_t>out.len)
        finally:
            out_free(&out)
        return answer(self, route.redirect.status, lines, b"")

    cdef int request_body(self, const char* body, size_t length, bint end) except -1:
        cdef int sent
        self.bytes_in += <int64_t>length
        if self.body_limit >= 0 and self.bytes_in > self.body_limit:
            return self.fail(R_BODY_TOO_LARGE, None)
        self.request_done = end
        if end and self.run is not None and self.run.chain.identity:
            self.request_trailers.len = 0           # a client's word on who it is may stand there as well
        if self.phase == X_PLUGINS:
            return self.run.request_body(body, length, end)
        if X_NEW < self.phase < X_SENT:
            self.unsent = (self.unsent or b"") + body[:length]
            self.unsent_done = end
            if not end:
                self.client.pause_request()
                return 0
            self.client.resume_request()            # nothing of it is to be held back any more: see the client leave
            if self.mirrored:
                mirror_request(self, self.unsent)
            return 0
        if self.attempt is None:
            return 0
        self._keep_for_replay(body, length)
        sent = self.attempt.send_body(self, body, length, end)
        if sent == SENT_CONGESTED and not end:
            self.client.pause_request()
        if end and self.mirrored:
            mirror_request(self, self.kept())       # last: others may end by it, and gather bodies where ours still is
        return 0

    cdef int _keep_for_replay(self, const char* body, size_t length) except -1:
        if self.replay is not None and length:
            if self.phase != X_SENT or len(self.replay) + <Py_ssize_t>(self.replay_more.len + length) > self.replay_limit:
                self.replay = None
                self.replayable = False
                out_free(&self.replay_more)
            else:
                out_put(&self.replay_more, body, length)
                if self.replay_more.failed:
                    raise MemoryError()
        return 0

    cdef bytes kept(self):
        if self.replay is not None and self.replay_more.len:
            self.replay += self.replay_more.data[:self.replay_more.len]
            self.replay_more.len = 0
        return self.replay

    cdef int client_gone(self, int reason, str detail) except -1:
        # Nobody reads the answer any more. What the client saw is kept as status, if it saw one.
        if self.phase == X_DONE:
            return 0
        if self.reason == R_NONE:
            self.reason = reason
            self.detail = detail
        if self.status == 0:
            self.status = 499
        return self._finish(now_ns())

    cdef int client_drained(self) except -1:
        if self.run is not None and self.run.suspended:
            return 0                                # what it has is not looked at yet
        if self.attempt is not None:
            self.attempt.resume_response()
        elif self.hedge is not None:
            self.hedge.client_drained()         # it is the hedge's answer that goes out
        return 0

    cdef int refuse(self, int reason, str detail) except -1:
        return self.fail(reason, detail)

    cdef int make_room(self, int fields) except -1:
        cdef Field* grown
        if fields > self.field_room:
            grown = <Field*>realloc(self.fields, fields * sizeof(Field))
            if grown == NULL:
                raise MemoryError()
            self.fields = grown
            self.field_room = fields
        return 0

    cdef int tunnel_bytes(self, const char* data, size_t length) except -1:
        self.bytes_in += <int64_t>length
        if self.attempt is None:
            return SENT_BROKEN
        return self.attempt.send_body(self, data, length, False)

    cdef int tunnel_end(self, bint from_client) except -1:
        # One side has sent FIN: pass it on; the tunnel is over when both have.
        if from_client:
            self.request_done = True
            if self.attempt is not None and not self.unsent_done:
                self.attempt.send_body(self, NULL, 0, True)
        else:
            self.unsent_done = True
            self.client.send_body(self, NULL, 0, True)
        if self.request_done and self.unsent_done:
            return self._finish(now_ns())
        return 0

    # -- from the endpoint side ----------------------------------------------------------------------------------

    cdef int send(self, const char* body, size_t length, bint end, bint fresh, int64_t now) except -1:
        # Chooses an endpoint, asks for a connection and, if one is at hand, sends what there is of the request.
        cdef int reason, sent
        while True:
            reason = self._pick(now)
            if reason == R_ENDPOINTS_PENDING:
                return await_endpoints(self, body, length, end, now)
            if reason == R_NONE:
                self.phase = X_WAITING
                self.wait_ns = now
                reason = self.endpoint.acquire(self, fresh)
            if reason != R_NONE:
                note_try(self, reason, self.detail, 0, now)
                self.phase = X_NEW
                self.rise()
                return attempt_over(self, body, length, end, reason, self.detail, now)
            if self.attempt is None:
                self.stash(X_WAITING, body, length, end)
                return self.wait_until(now + self.endpoint.wait_ns())
            self.phase = X_SENT
            self.attempts += 1
            sent = self.attempt.send_request(self, body, length, end, now)
            if sent != SENT_BROKEN:
                self._keep_for_replay(body, length)
                if not end:
                    if sent == SENT_CONGESTED:
                        self.client.pause_request()
                    else:
                        self.client.resume_request()        # it was held back, if this is not the first try
                return self._dispatched(now)
            # The connection was dead before it took a byte: nothing was sent, any method may go again (9.2.2).
            note_try(self, R_UPSTREAM_RESET, TOOK_NOTHING, 0, now)
            self._drop_attempt()
            self.phase = X_NEW
            if self.raced:
                return attempt_over(self, body, length, end, R_UPSTREAM_RESET, TOOK_NOTHING, now)
            self.raced = True
            fresh = True

    cdef int stash(self, int phase, const char* body, size_t length, bint end) except -1:
        # What has come of the body waits in `unsent`; no more of it is read.
        self.phase = phase
        if phase != X_WAITING and phase != X_BACKOFF:
            note_phase(self, phase)
        self.unsent = body[:length] if length else None
        self.unsent_done = end
        if not end:
            self.client.pause_request()
        return 0

    cdef int send_stashed(self, bint fresh, int64_t now) except -1:
        cdef bytes body = self.unsent if self.unsent is not None else b""
        self.unsent = None
        return self.send(body, <size_t>len(body), self.unsent_done, fresh, now)

    cdef int wait_until(self, int64_t deadline) except -1:
        self.phase_deadline = deadline
        if self.total_deadline and (deadline == 0 or self.total_deadline < deadline):
            deadline = self.total_deadline
        if deadline:
            self.worker.arm(self, deadline)
        else:
            disarm(self)
        return 0

    cdef int _dispatched(self, int64_t now) except -1:
        # The request is on its way.
        if self.upstream.hedge is not None and self.kind == KIND_CLIENT:
            return self.wait_until(hedge_at(self, now))
        if self.phase_deadline:
            return self.wait_until(0)
        return 0

    cdef int _pick(self, int64_t now) except -1:
        cdef Upstream upstream = self.upstream
        cdef int at
        self.rise()
        if self.pinned:
            return R_NONE                       # nobody's load: neither the balancer nor a cap counts it
        at = choose_endpoint(self, now)
        if at < 0:
            if not upstream.known:
                return R_ENDPOINTS_PENDING
            if upstream.problem is not None and not upstream.group.seats:
                self.detail = upstream.problem
                return R_DNS_FAILURE if upstream.unresolved else R_NO_ENDPOINT
            return R_OVERLOADED if at == PICK_FULL else why_nobody(upstream)
        if self.tries < MAX_TRIES:
            self.tried[self.tries] = at
            self.tries += 1
        self.endpoint = <Endpoint>PyTuple_GET_ITEM(upstream.group.seats, at)
        self.endpoint.active += 1
        self.seated = True
        return R_NONE

    cdef int rise(self) except -1:
        # The endpoint is done with this exchange.
        if self.seated:
            self.seated = False
            self.endpoint.active -= 1
        return 0

    cdef int connected(self, EndpointSide attempt, bint fresh, int64_t now) except -1:
        # The pool has a connection for an exchange that waited.
        cdef bytes body = self.unsent if self.unsent is not None else b""
        cdef bint end = self.unsent_done
        cdef int sent
        leave_pending(self)
        if fresh:
            self.connect_ns = now - self.wait_ns
        else:
            self.queue_ns = now - self.wait_ns
        self.wait_until(0)
        self.unsent = None
        self.attempt = attempt
        self.phase = X_SENT
        self.attempts += 1
        sent = attempt.send_request(self, body, <size_t>len(body), end, now)
        if sent == SENT_BROKEN:
            note_try(self, R_UPSTREAM_RESET, TOOK_NOTHING, 0, now)
            self._drop_attempt()
            self.phase = X_NEW
            if self.raced:
                return attempt_over(self, body, <size_t>len(body), end, R_UPSTREAM_RESET, TOOK_NOTHING, now)
            self.raced = True
            return self.send(body, <size_t>len(body), end, True, now)
        self._keep_for_replay(body, <size_t>len(body))
        if sent != SENT_CONGESTED:
            self.client.resume_request()
        return self._dispatched(now)

    cdef int response(self, ResponseHead* head, const char* body, size_t length, bint end, int64_t now) except -1:
        # A final response's head (once), body bytes, its end. With `end` the attempt has let go of the exchange.
        cdef uint64_t turn = self.turn
        cdef int sent
        if end:
            self.attempt = None
        if head != NULL:
            if self._head_arrived(head, end, now):
                return 0
            sent = self.pass_head(head, body, length, end)
        else:
            sent = self.pass_body(body, length, end)
        if self.turn != turn:
            return 0                                # a plugin has ended it
        if end:
            return self.answer_ended(now)
        if sent == SENT_CONGESTED and self.attempt is not None:
            self.attempt.pause_response()
        return 0

    cdef int pass_head(self, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        cdef object each
        if self.run is not None:
            for each in self.run.chain.observers:
                (<NativeFilter>each).observe(self, head)
            if self.run.chain.has_response:
                return self.run.upstream_head(head, body, length, end)
        self.bytes_out += <int64_t>length
        return self.client.send_head(self, head, body, length, end)

    cdef int pass_body(self, const char* body, size_t length, bint end) except -1:
        if self.run is not None and self.run.chain.has_response and self.phase != X_TUNNEL:
            return self.run.upstream_body(body, length, end)
        self.bytes_out += <int64_t>length
        return self.client.send_body(self, body, length, end)

    cdef int answer_ended(self, int64_t now) except -1:
        if self.run is not None and self.run.holds():
            self.run.ended = True
            return 0
        return self._finish(now)

    cdef int _head_arrived(self, ResponseHead* head, bint end, int64_t now) except -1:
        # 1: this answer is not for the client, something else is under way.
        observe_answer(self, head.status, now)
        if head.status >= 400 and (
                self.retry is not None or self.route.fallback is not None or self.kind == KIND_HEDGE):
            if answer_refused(self, head, end, now):
                return 1
        if self.hedge is not None:
            drop_hedge(self)
        self.begin_answer(head.status)
        return 0

    cdef int begin_answer(self, int status) except -1:
        if self.phase_deadline:
            self.wait_until(0)
        if self.stick:
            self.upstream.sticky.write_cookie(self.endpoint, &self.extra)
        self.phase = X_ANSWERING
        if self.traced & TRACED_WHOLE:
            note_phase(self, X_ANSWERING)
        self.status = status
        self.replay = None
        out_free(&self.replay_more)
        return 0

    cdef int interim_response(self, ResponseHead* head) except -1:
        self.interim += 1
        if self.facts.http_minor:               # RFC 9110 15.2: never to an HTTP/1.0 client
            self.client.send_interim(self, head)
        return 0

    cdef int switched(self, ResponseHead* head, const char* rest, size_t length) except -1:
        # 101: from here on bytes pass as they come.
        cdef EndpointSide attempt = self.attempt
        self.phase = X_TUNNEL
        self.worker.tunnels += 1
        self.status = 101
        if not self.pinned:
            count_answer(self.endpoint, 101, now_ns() - self.sent_ns)
        self.request_done = False               # in a tunnel these two say which side has sent FIN
        self.unsent_done = False
        self.replay = None
        disarm(self)
        self.client.send_interim(self, head)
        self.client.start_tunnel(self, attempt)
        if length:
            self.response(NULL, rest, length, False, 0)
        return 0

    cdef int attempt_failed(self, int reason, str detail, bint reused) except -1:
        # The attempt ended without a whole response and has let go. `reused`: it was a kept-alive connection that
        # closed before a byte of the response: the endpoint may have closed it before it saw the request.
        cdef int64_t now = now_ns()
        cdef bytes body
        self.attempt = None
        note_try(self, reason, detail, self.status, now)
        if self.phase == X_SENT:
            self.delivered = True
        # Where a hedge is under way, that is the replay.
        if self.phase == X_SENT and reused and not self.raced and self.replayable and self.hedge is None:
            self.raced = True
            self._rewind()
            return self.send_stashed(True, now)
        observe_failure(self, reason, now)
        self.rise()
        leave_pending(self)
        if self.phase >= X_RESPONDING:
            return self.fail(reason, detail)
        if self.phase == X_SENT:
            if self.hedge is not None:
                self.held_reason = reason       # the other one may still answer
                self.held_detail = detail
                return 0
            self._rewind()
        else:
            self.attempts += 1                  # nobody could be reached: that was one, too
            self.phase = X_NEW
        body = self.unsent if self.unsent is not None else b""
        self.unsent = None
        return attempt_over(self, body, <size_t>len(body), self.unsent_done, reason, detail, now)

    cdef int _rewind(self) except -1:
        # What was sent is unsent again, if it was kept.
        self.unsent = self.kept()
        self.unsent_done = self.request_done
        if self.replay is not None:
            self.replay = b""
        return 0

    cdef int attempt_drained(self) except -1:
        if not self.request_done:
            self.client.resume_request()
        return 0

    # -- ends ----------------------------------------------------------------------------------------------------

    cdef int on_deadline(self, int64_t now) except -1:
        if self.total_deadline and now >= self.total_deadline:
            if self.phase == X_SENT and self.request_done and self.attempt is not None and self.endpoint is not None:
                observe_failure(self, R_UPSTREAM_HEAD_TIMEOUT, now)     # it was its answer that we waited for
            return self.fail(R_TOTAL_TIMEOUT, None)
        if self.phase_deadline and now >= self.phase_deadline:
            self.phase_deadline = 0
            phase_over(self, now)
        if self.phase != X_DONE and self.timer.deadline == 0:
            self.wait_until(self.phase_deadline)
        return 0

    cdef int fail(self, int reason, str detail) except -1:
        if self.phase == X_DONE:
            return 0
        self.reason = reason
        self.detail = detail
        note_try(self, reason, detail, self.status, now_ns())
        self._drop_attempt()
        if self.phase == X_ANSWERING or self.phase == X_TUNNEL:
            self.client.cut(self)
        elif self.kind == KIND_CLIENT:
            if REASON_STATUS[reason] == 400 or self.view.method_id == METHOD_CONNECT:
                # Whoever sent this may mean something else by what follows it.
                self.client.no_more()
            if self.run is not None and self.run.takes_failure(reason):
                return self.run.failure(reason, detail)
            send_problem(self, reason)
        return self._finish(now_ns())

    cdef int _drop_attempt(self) except -1:
        cdef EndpointSide attempt = self.attempt
        if self.hedge is not None:
            drop_hedge(self)
        if attempt is not None:
            self.attempt = None
            attempt.abandon()
        elif X_NEW < self.phase < X_SENT:
            leave_waiting(self)
        return self.rise()

    cdef int _finish(self, int64_t now) except -1:
        cdef ExchangeRecord record
        cdef Exchange this = self               # the sides let go below; we may have been called through one of them
        cdef Worker worker = self.worker
        cdef ClientSide client = self.client
        cdef bytes detail = None
        cdef int kept = KEPT_NOT
        if self.phase == X_DONE:
            return 0
        if worker.trails is not None:
            kept = whether_kept(self)
            if self.traced & TRACED_WHOLE:
                now = now_ns()                  # behind each of its steps
            if kept:
                note_try(self, self.reason, self.detail, self.status, now)
        self._drop_attempt()
        if self.phase == X_TUNNEL:
            worker.tunnels -= 1
        self.phase = X_DONE
        forget_timer(worker.wheel, self)
        if self.kind == KIND_CLIENT or kept >= KEPT_REFUSAL:
            if self.detail is not None:
                detail = self.detail.encode("utf-8", "replace")
            fill_record(self, &record, span_of(NULL, 0) if detail is None else bytes_span(detail), now)
            if kept:
                worker.trails.keep(self, &record, kept)
        if self.kind == KIND_CLIENT:
            if self.arm >= 0:
                observe_arm(self, now)
            if worker.log is not None:
                worker.log.write(&record)
            worker.counters.record(&record)
            if self.run is not None:
                self.run.over()
        if self.holds:
            leave_upstream(self, now)
        client.exchange_done(this, now)
        worker.give_exchange(this)
        return 0
