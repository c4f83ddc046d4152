# What happens to an exchange before, between and behind its attempts. Theory of operation:
#
#   begin_detour    split, fault injection, mirror: for routes that have one of them
#   enter_upstream  breaker, caps, concurrency limit; then Exchange.send chooses an endpoint
#   attempt_over    a try has failed before an answer began: retry, or fall back, or fail
#   answer_refused  an answer has come whose status is to be retried or to fall back on
#   leave_upstream  gives back what was taken; its place goes to the next in the queue
#
# The decisions lie in core/ (RetryPolicy, Group, Admission, ...); here they are put to work. Nothing is sent twice but
# what RetryPolicy.allows says, or what provably reached nobody.

from cpython.tuple cimport PyTuple_GET_ITEM

cdef str TOOK_NOTHING = "the connection took no byte of the request"

cdef enum:
    ADMITTED = 0            # R_NONE
    IN_QUEUE = -2           # neither admitted nor refused: it waits


# -- before --------------------------------------------------------------------------------------------------------

cdef int begin_detour(Exchange x, const char* body, size_t length, bint end) except -1:
    cdef Route route = x.route
    cdef int64_t delay
    cdef uint64_t chance
    cdef int abort
    if route.split is not None and x.upstream is None:
        choose_arm(x)
    if route.fault is not None:
        chance = random64(&x.worker.random)
        delay = route.fault.delay(&x.view, chance)
        abort = route.fault.abort(&x.view, chance)
        if delay > 0:
            x.fault_status = abort
            x.stash(X_DELAYED, body, length, end)
            return x.wait_until(x.start_ns + delay)
        if abort:
            return inject_abort(x, abort)
    return begin_mirrored(x, body, length, end, x.start_ns)


cdef int choose_arm(Exchange x) except -1:
    cdef Route route = x.route
    cdef Hash128 key
    cdef bint keyed = route.split_key.first(&x.view, &key)
    x.arm = route.split.choose(&x.view, keyed, key.low, random64(&x.worker.random))
    x.upstream = <Upstream>route.split_upstreams[x.arm]
    return 0


cdef int inject_abort(Exchange x, int status) except -1:
    cdef tuple parts
    x.reason = R_FAULT_INJECTED
    parts = problem_parts(x, R_FAULT_INJECTED, status, None)
    return answer(x, status, parts[0], parts[1])


cdef int begin_mirrored(Exchange x, const char* body, size_t length, bint end, int64_t now) except -1:
    # The copy is made first, since the exchange may be over when `enter_upstream` returns, and sent last.
    cdef Mirror mirror = x.route.mirror
    cdef Exchange copy = None
    if mirror is not None and mirror.wants(x):
        if end and <int64_t>length <= mirror.body_limit:
            copy = twin_of(x, Discard(mirror), KIND_MIRROR)
        elif not end:
            x.mirrored = True
            x.replay = b""
            x.replay_limit = max(x.replay_limit, mirror.body_limit)
    enter_upstream(x, body, length, end, now)
    if copy is not None:
        mirror.start(copy, body, length, now)
    return 0


cdef int mirror_request(Exchange x, bytes body) except -1:
    # The body of a request that is to be mirrored is whole. None: too long to be kept, or the answer has begun already.
    cdef Mirror mirror = x.route.mirror
    x.mirrored = False
    if body is not None and len(body) <= mirror.body_limit and mirror.has_room(x):
        mirror.start(twin_of(x, Discard(mirror), KIND_MIRROR), PyBytes_AS_STRING(body), <size_t>len(body), now_ns())
    return 0


cdef inline bint is_retried(Exchange x) noexcept:
    return x.kind == KIND_CLIENT or (<InnerSide>x.client).retried


cdef int enter_upstream(Exchange x, const char* body, size_t length, bint end, int64_t now) except -1:
    cdef Upstream upstream = x.upstream
    cdef int reason
    cdef RetryPolicy own = None
    if is_retried(x):
        own = x.route.retry if x.kind == KIND_CLIENT else (<InnerSide>x.client).retry
        x.retry = own if own is not None else upstream.retry
        if x.retry is not None and x.tries == 0 and not x.fell_back:
            if not x.replayable and x.retry.allows(&x.view, False):
                x.replayable = True
                x.replay = b""
            x.replay_limit = max(x.replay_limit, x.retry.body_limit)
    if not upstream.load.enter_request():
        return attempt_over(x, body, length, end, R_BREAKER_LIMIT, "max_requests", now)
    x.holds |= HOLDS_REQUEST
    if upstream.gated:
        reason = admit(x, body, length, end, now)
        if reason == IN_QUEUE:
            return 0
        if reason != ADMITTED:
            return attempt_over(x, body, length, end, reason, None, now)
    return x.send(body, length, end, False, now)


cdef int admit(Exchange x, const char* body, size_t length, bint end, int64_t now) except -3:
    # ADMITTED, IN_QUEUE, or the Reason why not.
    cdef Admission admission = x.upstream.admission
    cdef int priority = x.route.priority
    cdef object other
    if not x.upstream.health.admits(now):
        return R_BREAKER_OPEN
    if admission is None:
        return ADMITTED
    if admission.enter(priority, now):
        x.holds |= HOLDS_SLOT
        x.slot_ns = now
        return ADMITTED
    x.stash(X_QUEUED, body, length, end)
    x.wait_until(now + admission.wait_ns(priority, now))
    other = admission.offer(x, priority, now)
    if other is x:
        x.phase = X_NEW
        return R_OVERLOADED
    if other is not None:
        x.upstream.send_away(<Exchange>other, now)      # somebody less important made room
    return IN_QUEUE


cdef int queue_refused(Exchange x, int reason, int64_t now) except -1:
    cdef bytes body = x.unsent if x.unsent is not None else b""
    x.phase = X_NEW                 # it stands in no queue any more
    return attempt_over(x, PyBytes_AS_STRING(body), <size_t>len(body), x.unsent_done, reason, None, now)


cdef int choose_endpoint(Exchange x, int64_t now) except -3:
    # The seat of the next endpoint, or PICK_NONE or PICK_FULL.
    cdef Upstream upstream = x.upstream
    cdef Hash128 key
    cdef bint keyed = False
    cdef int at
    key.low = 0
    if upstream.sticky is not None:
        if x.tries == 0:
            at = upstream.sticky.find(&x.view, upstream.group.seats, now)
            if at >= 0 and upstream.health.admits_seat(<Seat>upstream.group.seats[at], now):
                return at
        x.stick = True
    if upstream.hash_key is not None:
        keyed = upstream.hash_key.first(&x.view, &key)
    return upstream.group.pick(keyed, key.low, x.tried, x.tries, random64(&x.worker.random), now)


cdef int why_nobody(Upstream upstream) noexcept:
    # Whether somebody could be used but for the endpoint's own breaker.
    cdef EndpointState* state
    cdef Seat seat
    if upstream.health.endpoint_breakers:
        for seat in upstream.group.seats:
            state = seat.state
            if (state.breaker.state != BREAKER_CLOSED and state.operator_state == OPERATOR_NONE
                    and state.probe_state != PROBE_DOWN):
                return R_BREAKER_OPEN
    return R_NO_ENDPOINT


cdef int await_endpoints(Exchange x, const char* body, size_t length, bint end, int64_t now) except -1:
    # The names of its upstream are being resolved for the first time.
    x.stash(X_UNRESOLVED, body, length, end)
    x.upstream.arrivals.add(x)
    return x.wait_until(now + x.upstream.connect_ns)


# -- between -------------------------------------------------------------------------------------------------------

cdef int attempt_over(Exchange x, const char* body, size_t length, bint end, int reason, str detail, int64_t now) except -1:
    # `body`: what has come of the request's body so far; worth something only if all of it is still there.
    cdef bint no_load = reason_undelivered(reason) or x.phase != X_SENT     # this try has reached nobody,
    cdef bint undelivered = no_load and not x.delivered                     # nor has one before it
    cdef bint whole = x.phase != X_SENT or x.replay is not None
    cdef int64_t delay
    if whole and x.retry is not None and x.retry.wants(reason, 0) and (undelivered or may_replay(x, length)):
        delay = take_retry(x, undelivered, no_load, span_of(NULL, 0), now)
        if delay >= 0:
            return send_again(x, body, length, end, delay, now)
    if x.route.fallback is not None and may_fall_back(x, reason, 0, whole, undelivered):
        return fall_back(x, body, length, end, REASONS[reason].code, now)
    return x.fail(reason, detail)


cdef inline bint may_replay(Exchange x, size_t length) noexcept:
    # More may be kept of a body than the policy allows: for the keep-alive race, or a mirror.
    return x.replayable and max(<int64_t>length, x.facts.content_length) <= x.retry.body_limit


cdef int64_t take_retry(Exchange x, bint undelivered, bint no_load, Span retry_after, int64_t now) except -2:
    # The pause before the retry, in nanoseconds; -1: there is none.
    cdef RetryPolicy retry = x.retry
    cdef int64_t delay
    if x.retries + 1 >= retry.attempts or not retry.allows(&x.view, undelivered):
        return -1
    delay = retry.wait_ns(x.retries + 1, random64(&x.worker.random), retry_after,
                          (now + x.worker.wall_offset) // SECOND)
    if delay < 0:
        return -1
    if x.total_deadline and now + delay >= x.total_deadline:
        return -1
    # The budget keeps retries from multiplying the load of a service that fails under it. What nobody has seen was no
    # load to anybody.
    if not no_load and not x.holds & HOLDS_RETRY:
        if not x.upstream.load.take_retry(retry):
            return -1
        x.holds |= HOLDS_RETRY
    return delay


cdef int send_again(Exchange x, const char* body, size_t length, bint end, int64_t delay, int64_t now) except -1:
    x.retries += 1
    x.upstream_head_ns = -1
    x.rise()
    x.stash(X_BACKOFF, body, length, end)
    # The wheel's grain is coarser than a short pause.
    if delay < 1 << (TICK_SHIFT - 1):
        return x.send_stashed(False, now)
    note_phase(x, X_BACKOFF)
    return x.wait_until(now + delay)


cdef bint may_fall_back(Exchange x, int reason, int status, bint whole, bint undelivered) noexcept:
    cdef Fallback fallback = x.route.fallback
    if x.fell_back or x.kind != KIND_CLIENT or not fallback.wants(reason, status):
        return False
    return fallback.upstream is None or (whole and (undelivered or fallback.when.allows(&x.view, False)))


cdef int fall_back(Exchange x, const char* body, size_t length, bint end, str failure, int64_t now) except -1:
    cdef Fallback fallback = x.route.fallback
    x.fell_back = True
    note_fallback(x, failure, now)
    x.detail = f"fallback: {failure}"           # for the log: the answer does not show it
    x._drop_attempt()
    leave_upstream(x, now)
    x.upstream_head_ns = -1
    x.phase = X_NEW
    if fallback.upstream is None:
        x.reason = R_FALLBACK_RESPONSE
        return answer(x, fallback.status, fallback.lines, fallback.body)
    x.upstream = fallback.upstream
    x.endpoint = None
    x.tries = 0
    x.retries = 0
    x.stick = False
    return enter_upstream(x, body, length, end, now)


cdef bint answer_refused(Exchange x, ResponseHead* head, bint end, int64_t now) except -1:
    # True: the answer is thrown away, and something else is under way. `end`: it has ended already.
    cdef int64_t delay
    cdef bytes body
    if not is_retried(x):
        return x.kind == KIND_HEDGE and hedge_refused(x, head.status)
    if x.retry is not None and x.replay is not None and may_replay(x, <size_t>len(x.kept())) and \
            x.retry.wants(R_NONE, head.status):
        delay = take_retry(x, False, False, retry_after_of(head), now)
        if delay >= 0:
            body = throw_away(x, head.status)
            send_again(x, PyBytes_AS_STRING(body), <size_t>len(body), x.unsent_done, delay, now)
            return True
    if x.route.fallback is not None and may_fall_back(x, R_NONE, head.status, x.replay is not None, False):
        body = throw_away(x, head.status)
        fall_back(x, PyBytes_AS_STRING(body), <size_t>len(body), x.unsent_done, f"status {head.status}", now)
        return True
    return False


cdef bytes throw_away(Exchange x, int status):
    # The attempt and its answer; gives the request's body as far as it has come.
    cdef EndpointSide attempt = x.attempt
    x.attempt = None
    note_try(x, R_NONE, None, status, now_ns())
    x.delivered = True
    x.response_trailers.len = 0
    if x.hedge is not None:
        drop_hedge(x)
    if attempt is not None:
        attempt.abandon()
    x.rise()
    x._rewind()
    x.phase = X_NEW
    body = x.unsent if x.unsent is not None else b""
    x.unsent = None
    return body


cdef Span retry_after_of(ResponseHead* head) noexcept nogil:
    # When the endpoint asks to be asked again (RFC 9110 10.2.3); ptr NULL: it says nothing.
    cdef int i
    for i in range(head.field_count):
        if span_equal_nocase(head.fields[i].name, span_of(b"retry-after", 11)):
            return head.fields[i].value
    return span_of(NULL, 0)


cdef int phase_over(Exchange x, int64_t now) except -1:
    # The deadline of a phase has passed.
    cdef int phase = x.phase
    cdef int reason
    if x.run is not None and x.run.suspended:
        return x.run.budget_over(now)
    if phase == X_BACKOFF:
        return x.send_stashed(False, now)
    if phase == X_DELAYED:
        return delay_over(x, now)
    if phase == X_SENT:
        return start_hedge(x, now)
    if phase == X_QUEUED:
        reason = R_OVERLOAD_TIMEOUT
    elif phase == X_UNRESOLVED:
        reason = R_ENDPOINTS_PENDING
    elif phase == X_WAITING:
        reason = x.endpoint.why_late()
    else:
        return 0
    note_try(x, reason, None, 0, now)
    leave_waiting(x)
    if reason == R_CONNECT_TIMEOUT:
        x.attempts += 1
        observe_failure(x, reason, now)
    x.rise()
    return queue_refused(x, reason, now)


cdef int delay_over(Exchange x, int64_t now) except -1:
    cdef bytes body = x.unsent if x.unsent is not None else b""
    cdef bint end = x.unsent_done
    x.unsent = None
    x.phase = X_NEW
    if x.fault_status:
        return inject_abort(x, x.fault_status)
    begin_mirrored(x, PyBytes_AS_STRING(body), <size_t>len(body), end, now)
    return 0


# -- behind --------------------------------------------------------------------------------------------------------

cdef int leave_waiting(Exchange x) except -1:
    # Out of whatever queue it stands in.
    if x.phase == X_WAITING:
        leave_pending(x)
        if x.endpoint is not None:
            x.endpoint.leave_queue(x)
    elif x.phase == X_QUEUED:
        x.upstream.admission.withdraw(x)
    elif x.phase == X_UNRESOLVED:
        x.upstream.arrivals.discard(x)
    return 0


cdef int leave_pending(Exchange x) except -1:
    if x.holds & HOLDS_PENDING:
        x.holds &= ~HOLDS_PENDING
        x.upstream.load.leave_pending()
    return 0


cdef int leave_upstream(Exchange x, int64_t now) except -1:
    cdef Upstream upstream = x.upstream
    cdef int holds
    leave_pending(x)
    holds = x.holds
    x.holds = 0
    if holds & HOLDS_RETRY:
        upstream.load.give_retry()
    if holds & HOLDS_REQUEST:
        upstream.load.leave_request()
    if holds & HOLDS_SLOT:
        # How long a client takes to read its answer says nothing of the upstream: the time to the head does. A time-out
        # tells as much: it was at least so long.
        if x.upstream_head_ns >= 0:
            upstream.next_in_line(upstream.admission.leave(x.upstream_head_ns, True, now), now)
        else:
            upstream.next_in_line(upstream.admission.leave(
                now - x.slot_ns, x.reason == R_UPSTREAM_HEAD_TIMEOUT or x.reason == R_TOTAL_TIMEOUT, now), now)
    return 0


# -- what is learnt of the endpoint ----------------------------------------------------------------------------------

cdef inline int outcome_of(int status) noexcept nogil:
    if status < 500:
        return OUTCOME_OK
    return OUTCOME_GATEWAY if 502 <= status <= 504 else OUTCOME_5XX


cdef inline void count_answer(Endpoint endpoint, int status, int64_t latency) noexcept:
    cdef EndpointCounts* counts = endpoint.counts
    counts.head_sum_ns += <uint64_t>latency
    counts.head[_histogram_bucket(latency)] += 1
    if status >= 500:
        counts.failed += 1


cdef int observe_answer(Exchange x, int status, int64_t now) except -1:
    cdef Upstream upstream = x.upstream
    cdef int64_t latency = now - x.sent_ns
    if x.pinned:
        return 0                            # a check, which has its own judge
    count_answer(x.endpoint, status, latency)
    upstream.health.report_attempt(x.endpoint, upstream.group.seats, outcome_of(status), now)
    if upstream.ewma:
        ewma_observe(x.endpoint, latency, now)
    if upstream.hedge is not None and x.kind == KIND_CLIENT:
        upstream.hedge.latency.observe(latency, now)
    return 0


cdef int observe_failure(Exchange x, int reason, int64_t now) except -1:
    # The gateway's own doing, and what the client has done, say nothing of the endpoint.
    if x.endpoint is not None and not x.pinned and REASON_OF_UPSTREAM[reason]:
        x.endpoint.counts.unanswered += 1
        x.upstream.health.report_attempt(x.endpoint, x.upstream.group.seats, OUTCOME_GATEWAY, now)
    return 0


cdef int observe_arm(Exchange x, int64_t now) except -1:
    # How the split's arm did; what the client broke off says nothing of it.
    cdef bint failed = x.fell_back or x.status >= 500 or REASON_OF_UPSTREAM[x.reason]
    if x.route.split.rollback is None or (x.status == 499 and not failed):
        return 0
    x.route.split.rollback.observe(x.arm, failed, x.upstream_head_ns if x.upstream_head_ns >= 0 else now - x.start_ns, now)
    return 0
