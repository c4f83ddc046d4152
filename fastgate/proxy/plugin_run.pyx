# One exchange's way through its plugins; the theory of operation stands in plugin_host.pyx.

import asyncio
from asyncio import CancelledError


cdef int begin_plugins(Exchange x, const char* body, size_t length, bint end) except -1:
    cdef PluginRun run = PluginRun.__new__(PluginRun)
    run.x = x
    run.chain = x.route.chain
    run.noting = x.worker.trails is not None
    run.view = ExchangeView.__new__(ExchangeView)
    run.view.x = x
    run.view.run = run
    run.chain.plugins.enter()
    x.run = run
    if run.chain.identity:
        run.chain.strip(x)
    return run.begin(body, length, end)


cdef class PluginRun:
    # The exchange lets go of its run when it is over, in the middle of whatever the run does. So what is called through the
    # exchange holds itself: `this`. Everything else is called from there, or by somebody who holds the run.

    cdef int begin(self, const char* body, size_t length, bint end) except -1:
        cdef Exchange x = self.x
        self.state = RUN_REQUEST
        x.phase = X_PLUGINS
        x.unsent = body[:length] if length else None
        x.unsent_done = end
        return self._drive()

    cdef int may_change(self) except -1:
        if self.state != RUN_REQUEST:
            raise RuntimeError("only on_request changes the request")
        return 0

    # -- the loop ------------------------------------------------------------------------------------------------------

    cdef int _drive(self) except -1:
        if self.driving:
            return 0
        self.driving = True
        try:
            while not self.suspended and self.x is not None:
                if self.state == RUN_REQUEST:
                    self._request_steps()
                elif self.state == RUN_ERROR:
                    self._error_steps()
                elif self.state == RUN_RESPONSE:
                    self._response_steps()
                elif self.state == RUN_BODY:
                    self._body_steps()
                else:
                    break
        finally:
            self.driving = False
        if self.suspended and self.x is not None:
            self._suspend()
        return 0

    cdef bint _call(self, PluginSlot slot, object hook, object argument, object more) except -1:
        # True: `hook_result` is there. False: it has suspended, or failed and something else is under way.
        cdef int64_t now
        cdef list result
        cdef int state = self.state
        self.slot = slot
        self.hook_result = None
        if self.troubled is not None and slot in self.troubled:
            return True                         # it is not asked again about what it has failed at
        if slot.open_until_ns and self.trial is not slot:
            now = now_ns()
            if slot.admits(now):
                self.trial = slot               # for all of its phases
            else:
                self._in_trouble(slot)
                hook_began(self, slot)
                hook_ended(self, HOOK_BREAKER, 0)
                if slot.open:
                    return True
                self._refused(R_PLUGIN_BREAKER, slot.name)
                return False
        hook_began(self, slot)
        try:
            if more is not None:
                value = hook(self.view, argument, more)
            elif argument is not None:
                value = hook(self.view, argument)
            else:
                value = hook(self.view)
            if value is not None and not isinstance(value, (Response, bytes)):
                if not PyCoro_CheckExact(value):
                    value = _await(value)       # a Future, or another awaitable; what is none raises TypeError
                result = []
                task = start_coroutine(self.x.worker.loop, value, slot, result)
                if task is not None:
                    if self.x is None or self.state != state:
                        task.cancel()           # its own doing has ended the exchange
                        task.add_done_callback(_told_nobody)
                        return False
                    self.task = task
                    self.suspended = True
                    task.add_done_callback(self._task_done)
                    return False
                value = result[0]
        except KeyboardInterrupt:
            raise
        except BaseException as error:          # also one that wants to end the program, or to cancel a task
            if self.x is None or self.state != state:
                return False
            value = self._raised(error)
            if value is None:
                return False
        if self.x is None or self.state != state:
            return False                        # what it called has ended the exchange
        hook_ended(self, HOOK_PASSED, 0)
        self.hook_result = value
        return True

    def _task_done(self, task):
        error = None if task.cancelled() else task.exception()
        if task is not self.task:
            return                              # it was stopped, and nobody waits for it
        self.task = None
        if self._awake():
            try:
                if not task.cancelled() and error is None:
                    self._take(task.result())
                else:
                    value = self._raised(error if error is not None else CancelledError())
                    if value is not None:
                        self._take(value)
            finally:
                self.driving = False
            self._drive()

    cdef object _raised(self, object error):
        # What a hook raised is its answer, or None: it has failed.
        if isinstance(error, Refusal):
            try:
                value = error.answer(self.view)
                if not isinstance(value, Response):
                    raise TypeError(f"{type(error).__name__}.answer gives a Response, not {type(value).__name__}")
                return value
            except Exception as wrong:
                error = wrong
        self._hook_failed("failures", error)
        return None

    cdef int _take(self, object value) except -1:
        # What a hook gave that had suspended: as if `_call` had returned it.
        hook_ended(self, HOOK_PASSED, 0)
        if self.state == RUN_REQUEST:
            return self._checked_result(value)
        if self.state == RUN_ERROR:
            return self._checked_error(value)
        if self.state == RUN_RESPONSE:
            return self._checked_response(value)
        return self._checked_body(value)

    cdef bint _awake(self) except -1:
        # True: what follows is ours to do, with `driving` set until it is done.
        self.suspended = False
        if self.x is None:
            return False
        if self.x.phase_deadline:
            self.x.wait_until(0)
        self.driving = True
        return True

    cdef int _wake(self) except -1:
        # A ticket was settled.
        cdef Ticket ticket = self.ticket
        self.ticket = None
        if self._awake():
            try:
                self._ticket_result(ticket)
            finally:
                self.driving = False
            self._drive()
        return 0

    cdef int _suspend(self) except -1:
        # The budget of what is waited for; while it waits for the client's body, the client's deadlines hold.
        cdef Exchange x = self.x
        cdef int64_t budget
        if self.reading:
            return 0
        budget = self.slot.timeout_ns if self.ticket is None else self.ticket.timeout_ns
        if not x.unsent_done and x.phase == X_PLUGINS and self.gathered is None:
            x.client.pause_request()
        return x.wait_until(now_ns() + budget)

    cdef int _hook_failed(self, str what, object error) except -1:
        cdef PluginSlot slot = self.slot
        cdef int64_t now = now_ns()
        self._in_trouble(slot)
        hook_ended(self, HOOK_TIMED_OUT if error is None else HOOK_FAILED, 0)
        slot.failed(what, error, now)
        if slot.open:
            if self.state == RUN_REQUEST:
                self._unread()
                self.at += 1
            else:
                self.at -= 1
            return 0
        return self._refused(R_PLUGIN_TIMEOUT if error is None else R_PLUGIN_FAILED, slot.name)

    cdef int _in_trouble(self, PluginSlot slot) except -1:
        if self.troubled is None:
            self.troubled = []
        self.troubled.append(slot)
        return 0

    cdef int _refused(self, int reason, str detail) except -1:
        # A step ends the exchange.
        self.failing = self.failing or self.state != RUN_REQUEST
        return self.x.fail(reason, detail)

    cdef int budget_over(self, int64_t now) except -1:
        cdef PluginRun this = self
        if not self.suspended:
            return 0
        if self.ticket is not None:
            self.ticket.settle(True, "limit-unavailable")
            return 0
        self.stop()
        self.driving = True
        try:
            self._hook_failed("timeouts", None)
        finally:
            self.driving = False
        return self._drive()

    cdef int stop(self) except -1:
        # Whatever runs is not wanted any more.
        if self.suspended:
            self.suspended = False
            self.ticket = None
            task, self.task = self.task, None
            if task is not None:
                task.cancel()
                task.add_done_callback(_told_nobody)
        self.reading = False
        if self.body_waiter is not None:
            self.body_waiter.cancel()
        return 0

    # -- requests --------------------------------------------------------------------------------------------------------

    cdef int _request_steps(self) except -1:
        cdef PluginSlot slot
        cdef NativeFilter native
        cdef Ticket ticket
        cdef Exchange x = self.x
        cdef int reason
        cdef tuple steps = self.chain.steps
        while self.at < len(steps):
            step = steps[self.at]
            self.entered = self.at + 1
            if isinstance(step, PluginSlot):
                slot = step
                if slot.on_request is None:
                    self.at += 1
                    continue
                if not self._call(slot, slot.on_request, None, None):
                    return 0
                self._checked_result(self.hook_result)
            else:
                native = step
                if native.waits() and not (isinstance(native, OnlyFor) and not (<OnlyFor>native).applies(x)):
                    hook_began(self, native)
                    ticket = (<PendingFilter>((<OnlyFor>native).inner if isinstance(native, OnlyFor) else native)).start(self)
                    if not ticket.settled:
                        self.suspended = True
                        return 0
                    self.ticket = None
                    self._ticket_result(ticket)
                else:
                    hook_began(self, native)
                    reason = native.check(x)
                    hook_ended(self, HOOK_PASSED if reason == R_NONE else HOOK_REFUSED, 0)
                    if reason != R_NONE:
                        return x.fail(reason, native.name)
                    self.at += 1
            if self.x is None or self.state != RUN_REQUEST:
                return 0
        return self._go_on()

    cdef int _checked_result(self, object value) except -1:
        try:
            self._request_result(value)
        except (TypeError, ValueError) as error:
            self._hook_failed("failures", error)

    cdef int _request_result(self, object value) except -1:
        cdef PluginSlot slot = self.slot
        cdef Response response
        if value is not None:
            if not isinstance(value, Response):
                raise TypeError(f"on_request returned {type(value).__name__}: it gives None or a Response")
            response = value
            if slot.report_only:
                hook_ended(self, HOOK_REPORTED, response.code_status)
                self._reported(response.code_status, response.reason_code, response.detail)
            else:
                slot.count("answered")
                hook_ended(self, HOOK_ANSWERED, response.code_status)
                return self._answered(_taken(response))
        return self._passed()

    cdef int _passed(self) except -1:
        # The step has let it pass.
        self._unread()
        if self.view.seen is not None:
            self.view.seen.commit()
        self.at += 1
        return 0

    cdef int _ticket_result(self, Ticket ticket) except -1:
        cdef NativeFilter native = self.chain.steps[self.at]
        hook_ended(self, HOOK_PASSED if ticket.reason == R_NONE else HOOK_REFUSED, 0)
        if ticket.lines:
            out_put(&self.x.extra, PyBytes_AS_STRING(ticket.lines), <size_t>len(ticket.lines))
        if ticket.reason != R_NONE:
            self.x.fail(ticket.reason, native.name)
        else:
            self.at += 1

    cdef int _reported(self, int status, str code, str detail) except -1:
        self.slot.count("reported")
        _log.info("plugin %s would have answered %d %s (%s)", self.slot.name, status, code, detail or self.view.id)
        return 0

    cdef int _answered(self, Response response) except -1:
        # A plugin's answer ends the request side.
        cdef Exchange x = self.x
        self.stop()
        x.reason = response.reason
        x.detail = response.detail or self.slot.name
        return self.own_answer(response)

    cdef int _go_on(self) except -1:
        # Every step has let it pass.
        cdef Exchange x = self.x
        cdef bytes body = self.body
        cdef bint end = x.unsent_done
        self.state = RUN_IDLE
        x.phase = X_NEW
        if body is None:
            body = x.unsent if x.unsent is not None else b""
        else:
            end = True
        x.unsent = None
        return x.take_action(PyBytes_AS_STRING(body), <size_t>len(body), end)

    cdef object gather(self, int64_t limit):
        # A future that is done when `Request.whole` is there; None: it is there already. `gather_over` follows, unless None.
        cdef Exchange x = self.x
        cdef Request request = self.view.seen
        cdef bytes first
        if x is None or self.state != RUN_REQUEST:
            raise RuntimeError("the request's body is read in on_request")
        self.read_limit = self.slot.body_limit if limit < 0 else limit      # of the last who asked
        if self.gathered is None:
            first = x.unsent if x.unsent is not None else b""
            if x.unsent_done and len(first) <= self.read_limit:
                self.body = request.whole = first
                return None
        self.readers += 1
        if x.facts.content_length > self.read_limit or (
                len(first) if self.gathered is None else len(self.gathered)) > self.read_limit:
            # Not from within the coroutine that asks: it is to be cancelled where it waits.
            x.worker.loop.call_soon(self._refuse_body, x, x.turn, self.slot)
            return x.worker.loop.create_future()        # never done
        if self.gathered is None:
            self.gathered = bytearray(first)
            x.unsent = None
            self.body_waiter = x.worker.loop.create_future()
            self.reading = True
            if x.phase_deadline:
                x.wait_until(0)
            if x.facts.expect_continue and not self.gathered:
                send_continue(x)
            x.client.resume_request()
        return asyncio.shield(self.body_waiter)         # one reader that gives up takes it from nobody else

    cdef int gather_over(self) except -1:
        # A reader has what it wanted, or has given up: the last of them leaves what came where it was before.
        self.readers -= 1
        if self.readers == 0 and self.x is not None and self.gathered is not None:
            self._unread()
            if self.suspended:
                return self._suspend()
        return 0

    cdef int _unread(self) except -1:
        # What was read so far goes on as if nobody had asked for it.
        if self.gathered is not None:
            self.x.unsent = bytes(self.gathered)
            self.gathered = None
            self.reading = False
            waiter, self.body_waiter = self.body_waiter, None
            waiter.cancel()
        return 0

    def _refuse_body(self, Exchange x, uint64_t turn, PluginSlot slot):
        if x.turn == turn and self.x is x and self.state == RUN_REQUEST and self.slot is slot and self.suspended:
            self._too_long()

    cdef int _too_long(self) except -1:
        # The hook asks for more than may be held.
        cdef PluginSlot slot = self.slot
        if not slot.report_only:
            return self.x.fail(R_BODY_TOO_LARGE, slot.name)
        self.stop()
        self.driving = True
        try:
            self._reported(413, "body-too-large", None)
            self._passed()
        finally:
            self.driving = False
        if self.x.phase_deadline:
            self.x.wait_until(0)
        return self._drive()

    cdef int request_body(self, const char* body, size_t length, bint end) except -1:
        cdef PluginRun this = self
        # While X_PLUGINS: the client sends more of it.
        cdef Exchange x = self.x
        if self.gathered is None:
            x.unsent = (x.unsent or b"") + body[:length]
            x.unsent_done = end
            if not end:
                x.client.pause_request()
            else:
                x.client.resume_request()
            return 0
        self.gathered += body[:length]
        x.unsent_done = end
        if <int64_t>len(self.gathered) > self.read_limit:
            return self._too_long()
        if end:
            self.body = self.view.seen.whole = bytes(self.gathered)
            self.gathered = None
            self.reading = False
            x.client.resume_request()
            waiter, self.body_waiter = self.body_waiter, None
            if not waiter.done():
                waiter.set_result(None)
            if self.suspended:
                return self._suspend()
        return 0

    # -- answers -----------------------------------------------------------------------------------------------------------

    cdef bint holds(self) noexcept:
        return RUN_ERROR <= self.state <= RUN_BODY or (self.held is not None and len(self.held) > 0)

    cdef int upstream_head(self, ResponseHead* head, const char* body, size_t length, bint end) except -1:
        cdef PluginRun this = self
        cdef Exchange x = self.x
        x.phase = X_RESPONDING
        x.status = 0                            # the client has seen nothing yet
        self.response = self.view.response = _response_of(head)
        self.held = bytearray(body[:length])
        self.last = end
        self.state = RUN_RESPONSE
        self.at = self.entered - 1
        self._drive()
        return SENT_CONGESTED if self.suspended or self.congested else SENT_ALL

    cdef int upstream_body(self, const char* body, size_t length, bint end) except -1:
        cdef PluginRun this = self
        cdef Exchange x = self.x
        if self.drained:
            return SENT_ALL
        if self.head_sent and self.chain.body_mode == BODY_PASSES and self.state == RUN_IDLE and not self.held:
            x.bytes_out += <int64_t>length
            return x.client.send_body(x, body, length, end)
        self.held += body[:length]
        self.last = self.last or end
        if self.state == RUN_IDLE:
            self.state = RUN_BODY
            self._drive()
        return SENT_CONGESTED if self.suspended or self.congested else SENT_ALL

    cdef int own_answer(self, Response response) except -1:
        cdef PluginRun this = self
        # A whole answer that no upstream gives.
        cdef Exchange x = self.x
        self.stop()
        x._drop_attempt()
        x.phase = X_RESPONDING
        self.response = self.view.response = response
        self.held = bytearray()
        self.last = self.ended = self.drained = True
        self.state = RUN_RESPONSE
        self.at = self.entered - 1
        return self._drive()

    cdef bint takes_failure(self, int reason) noexcept:
        # Whether the answer to a failure passes through hooks: once, and not when it is one of them that has failed.
        return (self.state <= RUN_REQUEST and not self.failing and not self.head_sent
                and (self.chain.has_error or self.chain.has_response))

    cdef int failure(self, int reason, str detail) except -1:
        cdef PluginRun this = self
        cdef Exchange x = self.x
        self.failing = True
        self.stop()
        x._drop_attempt()
        x.phase = X_RESPONDING
        self.state = RUN_ERROR
        self.at = self.entered - 1
        return self._drive()

    cdef int _error_steps(self) except -1:
        cdef PluginSlot slot
        cdef Exchange x = self.x
        cdef tuple parts
        cdef int status
        while self.at >= 0:
            step = self.chain.steps[self.at]
            if isinstance(step, PluginSlot) and (<PluginSlot>step).on_error is not None:
                slot = step
                if not self._call(slot, slot.on_error, _gateway_error(x.reason, problem_status(x, x.reason), x.detail), None):
                    return 0
                self._checked_error(self.hook_result)
                if self.x is None or self.state != RUN_ERROR:
                    return 0
            else:
                self.at -= 1
        status = problem_status(x, x.reason)
        parts = problem_parts(x, x.reason, status, None)
        return self.own_answer(_own_response(status, parts[0], parts[1], "gateway", x.reason))

    cdef int _checked_error(self, object value) except -1:
        try:
            self._error_result(value)
        except (TypeError, ValueError) as error:
            self._hook_failed("failures", error)

    cdef int _error_result(self, object value) except -1:
        if value is None:
            self.at -= 1
        elif not isinstance(value, Response):
            raise TypeError(f"on_error returned {type(value).__name__}: it gives None or a Response")
        else:
            self.own_answer(_taken(value))

    cdef int _response_steps(self) except -1:
        cdef PluginSlot slot
        while self.at >= 0:
            step = self.chain.steps[self.at]
            if isinstance(step, PluginSlot) and (<PluginSlot>step).on_response is not None:
                slot = step
                if not self._call(slot, slot.on_response, self.response, None):
                    return 0
                self._checked_response(self.hook_result)
                if self.x is None or self.state != RUN_RESPONSE:
                    return 0
            else:
                self.at -= 1
        return self._send_answer()

    cdef int _checked_response(self, object value) except -1:
        try:
            self._response_result(value)
        except (TypeError, ValueError) as error:
            self._hook_failed("failures", error)

    cdef int _response_result(self, object value) except -1:
        cdef Response response
        if value is not None and value is not self.response:
            if not isinstance(value, Response):
                raise TypeError(f"on_response returned {type(value).__name__}: it gives None or a Response")
            response = _taken(value)
            response.replaced = True
            self.response = self.view.response = response
            self.x.reason = response.reason
            self.x.detail = response.detail or self.slot.name
        self.at -= 1

    cdef int _send_answer(self) except -1:
        # Every on_response is done: now the body's hooks, or the head goes out.
        cdef Exchange x = self.x
        cdef Response response = self.response
        cdef bint bodiless = x.view.method_id == METHOD_HEAD or response.code_status in (204, 304)
        if response.replaced and not self.drained:
            # The upstream's own body is not wanted any more.
            self.drained = self.last = self.ended = True
            self.held = bytearray()
            x._drop_attempt()
        if response.code_status == 205 and response.whole is not None:
            response.whole = b""                    # RFC 9110 15.3.6
        if response.whole is not None and not self.held:
            self.held = bytearray(response.whole)
            self.last = True
        if self.chain.body_mode != BODY_PASSES and not bodiless and response.body_kind != BODY_NONE:
            if self.chain.body_mode == BODY_BUFFERED or response.whole is not None:
                self.state = RUN_BODY
                return 0
            # The length is not known before the last hook has spoken.
            response.body_kind = BODY_CHUNKED
            response.content_length = -1
        return self._send_head(bodiless)

    cdef int _send_head(self, bint bodiless) except -1:
        cdef Exchange x = self.x
        cdef Response response = self.response
        cdef ResponseHead head
        cdef bytes body = bytes(self.held)
        cdef bint end = self.last
        cdef int sent
        if response.whole is not None or (self.chain.body_mode == BODY_BUFFERED and not bodiless):
            response.body_kind = BODY_LENGTH if self.held else BODY_NONE
            response.content_length = len(self.held)
            if response.code_status in (204, 304):
                response.content_length = -1
        if bodiless:
            if response.whole is None and self.chain.body_mode != BODY_PASSES and x.view.method_id == METHOD_HEAD:
                response.content_length = -1        # the hooks would have had a word in it
            response.body_kind = BODY_NONE
            body = b""
        response.to_head(&head)
        x.phase = X_ANSWERING
        x.status = response.code_status
        self.head_sent = True
        if self.chain.body_mode == BODY_CHUNKS and response.whole is None and not bodiless:
            # Its bytes, if there are any yet, go through the hooks.
            sent = x.client.send_head(x, &head, NULL, 0, False)
            if self.held or self.last:
                self.state = RUN_BODY
                return 0
            self.state = RUN_IDLE
            return self._sent(sent)
        self.state = RUN_IDLE
        self.held = bytearray()
        x.bytes_out += len(body)
        sent = x.client.send_head(x, &head, PyBytes_AS_STRING(body), <size_t>len(body), end)
        self._sent(sent)

    cdef int _sent(self, int sent) except -1:
        # While a hook waits its upstream is paused: it goes on if the client takes more, or when it does again.
        cdef Exchange x = self.x
        if x is None:
            return 0
        self.congested = sent == SENT_CONGESTED
        if self.ended and not self.held:
            return x._finish(now_ns())
        if not self.congested and not self.last:
            x.client_drained()
        return 0

    # -- bodies --------------------------------------------------------------------------------------------------------------

    cdef int _body_steps(self) except -1:
        # One piece through every hook, from the last to the first.
        cdef PluginSlot slot
        if self.chain.body_mode == BODY_BUFFERED or self.response.whole is not None:
            if self.response.whole is None and <int64_t>len(self.held) > self.chain.body_limit:
                return self._refused(R_PLUGIN_BODY, None)
            if not self.last:
                self.state = RUN_IDLE           # until it is whole
                return self.x.client_drained()  # a hook of its head may have held the upstream back
        if self.piece is None:
            self.piece = bytes(self.held)
            self.held = bytearray()
            self.at = self.entered - 1
        while self.at >= 0:
            step = self.chain.steps[self.at]
            if isinstance(step, PluginSlot) and (<PluginSlot>step).on_response_body is not None:
                slot = step
                if not self._call(slot, slot.on_response_body, self.piece, self.last):
                    return 0
                self._checked_body(self.hook_result)
                if self.x is None or self.state != RUN_BODY:
                    return 0
            else:
                self.at -= 1
        return self._send_piece()

    cdef int _checked_body(self, object value) except -1:
        try:
            self._body_result(value)
        except (TypeError, ValueError) as error:
            self._hook_failed("failures", error)

    cdef int _body_result(self, object value) except -1:
        if value is None:
            value = self.piece                  # it was passed over
        if not isinstance(value, bytes):
            raise TypeError(f"on_response_body returned {type(value).__name__}: it gives bytes")
        self.piece = value
        self.at -= 1

    cdef int _send_piece(self) except -1:
        cdef Exchange x = self.x
        cdef bytes piece = self.piece
        cdef bint end = self.last and not self.held
        self.piece = None
        if not self.head_sent:
            self.held = bytearray(piece)
            self.response.whole = piece
            self._send_head(False)
            return 0
        self.state = RUN_BODY if self.held else RUN_IDLE
        x.bytes_out += len(piece)
        if piece or end:
            return self._sent(x.client.send_body(x, PyBytes_AS_STRING(piece), <size_t>len(piece), end))
        return self._sent(SENT_ALL)

    # -- the end ---------------------------------------------------------------------------------------------------------------

    cdef int over(self) except -1:
        # Called by `_finish`, while the exchange can still be read.
        cdef bint keep = False
        cdef PluginSlot slot
        cdef object step
        if self.suspended and self.ticket is None:
            self._in_doubt(self.slot)           # it was not given the time to go well
        self.stop()
        if self.chain.has_log:
            self.state = RUN_LOG
            keep = run_log_hooks(self)
        for step in self.chain.steps[:self.entered]:
            if isinstance(step, PluginSlot):
                slot = step
                if slot.failures and (self.troubled is None or slot not in self.troubled) and (
                        self.doubtful is None or slot not in self.doubtful):
                    slot.went_well()
        self.state = RUN_OVER
        self.view._let_go(keep)
        self.view = None                        # it knows us: no circle
        self.x = None
        self.body = None
        self.gathered = None
        self.held = None
        return self.chain.plugins.leave()

    cdef int _in_doubt(self, PluginSlot slot) except -1:
        if self.doubtful is None:
            self.doubtful = []
        self.doubtful.append(slot)
        return 0


def _told_nobody(task):
    # A hook that was stopped: what it says of that is not asked for, but a defect in its clean-up is told.
    if not task.cancelled() and task.exception() is not None:
        _log.error("a plugin failed while it was stopped", exc_info=task.exception())
