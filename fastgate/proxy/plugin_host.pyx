# Theory of operation. A route with a plugin in Python has a PluginChain; an exchange that takes it gets a PluginRun, which
# walks the chain: on_request of each step in order, then, when an answer begins, on_response of those that were reached in
# reverse order, and on_response_body of each piece. A hook's coroutine is driven by one `send(None)` in place. Only if it
# suspends does it become a task; the exchange then stands in X_PLUGINS or X_RESPONDING (or pauses its upstream in the middle
# of a body), with the plugin's budget as its deadline, until the task is done.
#
# `_drive` is the one loop: each `_..._steps` goes as far as it can and returns with `suspended` set, or with the state
# changed, or with RUN_IDLE when it is the exchange's turn again. Whatever a hook does may end the exchange: after each call
# `x` is looked at again, and a run whose exchange is over does nothing more.
#
# asyncio's own functions (`timeout`, TaskGroup, anyio) ask for the current task before anything has suspended. So a coroutine
# runs under a stand-in, which is a task to whoever asks, and hands on to the real one as soon as there is one.

import asyncio
import collections.abc
import contextvars
import logging
from asyncio import CancelledError
from asyncio import current_task as _current_task
from asyncio.tasks import _enter_task, _leave_task

from cpython.ref cimport PyObject, Py_XDECREF

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(PyObject* iter, PyObject* arg, PyObject** result) except? PYGEN_ERROR
    bint PyCoro_CheckExact(object thing)
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef object _log = logging.getLogger("fastgate.plugins")

cdef enum:
    BREAKER_FAILURES = 20           # exchanges in a row in which a plugin fails open its breaker

cdef int64_t BREAKER_OPEN_NS = 5000000000


cdef class PluginSlot:
    """One plugin, ready to run. ``phases``: its hooks by name, those that it has. timeout_ns: of one hook."""

    def __init__(self, str name, plugin, dict phases not None, *, str body_mode="none", int64_t body_limit=1048576,
                 bint open=False, bint report_only=False, int64_t timeout_ns, shared=None):
        self.name = name
        self.plugin = plugin
        self.on_request = phases.get("on_request")
        self.on_response = phases.get("on_response")
        self.on_response_body = phases.get("on_response_body") if body_mode != "none" else None
        self.on_error = phases.get("on_error")
        self.on_log = phases.get("on_log")
        self.body_mode = body_mode
        self.body_limit = body_limit
        self.open = open
        self.report_only = report_only
        self.timeout_ns = timeout_ns
        self.shared = shared
        self.counts = {}

    cdef bint admits(self, int64_t now) noexcept:
        if self.open_until_ns == 0:
            return True
        if now < self.open_until_ns:
            return False
        self.open_until_ns = now + BREAKER_OPEN_NS      # one trial; the others wait for how it goes
        return True

    cdef int count(self, str what) except -1:
        self.counts[what] = self.counts.get(what, 0) + 1
        return 0

    cdef int failed(self, str what, object error, int64_t now) except -1:
        self.failures += 1
        self.count(what)
        if self.failures >= BREAKER_FAILURES:
            if self.open_until_ns == 0:
                _log.error("plugin %s: %d failures in a row, not called for a while", self.name, self.failures)
            self.open_until_ns = now + BREAKER_OPEN_NS
        if error is None:
            _log.error("plugin %s: took longer than its timeout", self.name)
        else:
            _log.error("plugin %s failed", self.name, exc_info=error)
        return 0


cdef class PluginSet:
    """The plugins of one configuration, and what their exchanges may reach. upstreams: name -> Upstream."""

    def __init__(self, dict upstreams not None):
        self.upstreams = upstreams

    cdef Upstream upstream(self, str name):
        found = self.upstreams.get(name)
        if found is None:
            raise LookupError(f'no upstream is named "{name}"')
        return <Upstream>found

    def find_upstream(self, str name not None):
        """Raises LookupError."""
        return self.upstream(name)

    cdef int enter(self) except -1:
        self.active += 1
        return 0

    cdef int leave(self) except -1:
        self.active -= 1
        if self.active == 0 and self.idle is not None:
            idle, self.idle = self.idle, None
            idle()
        return 0

    def retire(self, idle not None):
        """No new exchange takes it; ``idle()`` is called when the last one has ended, perhaps at once."""
        self.idle = idle
        self.active += 1
        self.leave()


cdef class PluginChain:
    """What a route runs from its first plugin in Python on. steps: PluginSlot and NativeFilter in order. identity:
    request headers that no client may set, in any case."""

    def __init__(self, PluginSet plugins not None, tuple steps not None, tuple identity=()):
        cdef PluginSlot slot
        self.plugins = plugins
        self.steps = steps
        self.identity = tuple(sorted({name.lower().replace("_", "-").encode("ascii") for name in identity}))
        self.observers = tuple([each for each in steps if isinstance(each, NativeFilter) and (<NativeFilter>each).observes()])
        self.body_mode = BODY_PASSES
        for each in steps:
            if isinstance(each, PluginSlot):
                slot = each
                self.has_response |= slot.on_response is not None or slot.on_response_body is not None
                self.has_error |= slot.on_error is not None
                self.has_log |= slot.on_log is not None
                if slot.on_response_body is not None:
                    if slot.body_mode == "buffered":
                        self.body_limit = slot.body_limit if self.body_mode != BODY_BUFFERED else min(
                            self.body_limit, slot.body_limit)
                        self.body_mode = BODY_BUFFERED
                    elif self.body_mode == BODY_PASSES:
                        self.body_mode = BODY_CHUNKS

    cdef int strip(self, Exchange x) except -1:
        # What a client says of its own identity. Some services read "_" as "-" (CGI, RFC 3875 4.1.18), so both are one name.
        cdef int i, kept = 0
        cdef bytes name
        for i in range(x.view.field_count):
            name = span_bytes(x.view.fields[i].name).lower().replace(b"_", b"-")
            if name in self.identity:
                continue
            if kept != i:
                x.view.fields[kept] = x.view.fields[i]
            kept += 1
        x.view.field_count = kept
        return 0


# -- a coroutine that may become a task ------------------------------------------------------------------------------

cdef class _StandIn:
    # What `asyncio.current_task()` gives inside a plugin: the real task, once there is one.
    cdef object loop
    cdef object coroutine
    cdef object real
    cdef bint cancel_asked
    cdef object __weakref__

    def __getattr__(self, name):
        if self.real is not None:
            return getattr(self.real, name)
        if name == "_must_cancel":
            return False
        if name == "_fut_waiter":
            return None
        raise AttributeError(name)

    def cancel(self, msg=None):
        if self.real is not None:
            return self.real.cancel(msg)
        self.cancel_asked = True
        return True

    def cancelling(self):
        return int(self.cancel_asked) if self.real is None else self.real.cancelling()

    def uncancel(self):
        if self.real is not None:
            return self.real.uncancel()
        self.cancel_asked = False
        return 0

    def done(self):
        return False if self.real is None else self.real.done()

    def cancelled(self):
        return False if self.real is None else self.real.cancelled()

    def get_loop(self):
        return self.loop

    def get_coro(self):
        return self.coroutine

    def get_name(self):
        return "plugin" if self.real is None else self.real.get_name()


cdef class _Resumed:
    # The rest of a coroutine, for asyncio.Task: its first step gives out what the coroutine waits for already.
    cdef object coroutine
    cdef object waits_for
    cdef _StandIn stand_in
    cdef bint begun

    def send(self, value):
        if not self.begun:
            self.begun = True
            waits_for, self.waits_for = self.waits_for, None
            return waits_for
        real = self._enter()
        try:
            return self.coroutine.send(value)
        finally:
            self._leave(real)

    def throw(self, *error):
        # A task that is cancelled before its first step never hears what the coroutine waits for: we cancel that in its place.
        waits_for, self.waits_for = self.waits_for, None
        self.begun = True
        if waits_for is not None and not waits_for.cancel() and not waits_for.cancelled():
            waits_for.exception()               # it has failed meanwhile, and nobody else will look
        real = self._enter()
        try:
            return self.coroutine.throw(*error)
        finally:
            self._leave(real)

    def close(self):
        self.coroutine.close()

    def __await__(self):
        raise RuntimeError("only a task runs this")

    def _enter(self):
        real = self.stand_in.real
        _leave_task(self.stand_in.loop, real)
        _enter_task(self.stand_in.loop, self.stand_in)
        return real

    def _leave(self, real):
        _leave_task(self.stand_in.loop, self.stand_in)
        _enter_task(self.stand_in.loop, real)


collections.abc.Coroutine.register(_Resumed)


async def _await(awaitable):
    return await awaitable


cdef object start_coroutine(object loop, object coroutine, str name, list result):
    # Its first step. None: it has returned, and `result` holds what; else the Task that runs the rest. Raises what it raises.
    cdef PyObject* out = NULL
    cdef PySendResult how
    cdef object context = PyContext_CopyCurrent()
    cdef object outer = _current_task(loop)
    cdef _StandIn stand_in = _StandIn()
    cdef _Resumed rest
    stand_in.loop = loop
    stand_in.coroutine = coroutine
    if outer is not None:
        _leave_task(loop, outer)
    _enter_task(loop, stand_in)
    PyContext_Enter(context)
    try:
        how = PyIter_Send(<PyObject*>coroutine, <PyObject*>None, &out)
    finally:
        PyContext_Exit(context)
        _leave_task(loop, stand_in)
        if outer is not None:
            _enter_task(loop, outer)
    value = <object>out
    Py_XDECREF(out)
    if how == PYGEN_RETURN:
        result.append(value)
        return None
    rest = _Resumed()
    rest.coroutine = coroutine
    rest.waits_for = value
    rest.stand_in = stand_in
    stand_in.real = asyncio.Task(rest, loop=loop, name=name, context=context)
    if stand_in.cancel_asked:
        stand_in.real.cancel()
    return stand_in.real


# -- native filters beside plugins -------------------------------------------------------------------------------------

cdef class Ticket:
    """One decision that is waited for. ``settle`` it once; what comes later is not heard."""

    @property
    def cancelled(self):
        """The exchange is over: nobody waits any more."""
        return self.run is None or self.run.x is None

    def settle(self, bint refused, str code="", bytes lines=b""):
        """refused: the exchange ends with the reason ``code``. lines: whole field lines for whatever answer goes out."""
        cdef PluginRun run = self.run
        if self.settled:
            return
        self.settled = True
        self.reason = _REASON_BY_CODE[code] if refused else R_NONE
        self.lines = lines
        if run is not None and run.ticket is self and run.suspended:
            run._wake()


cdef class PendingFilter(NativeFilter):
    """A limit whose decision may have to be waited for. ``begin(key, ticket)`` is called with 16 bytes that stand for the
    request's key, and settles the ticket, at once or later; it has ``timeout_ns`` for that, then the answer is 503.

    charge: ``charge(key, tokens)``, called with what ``cost_header`` of the upstream's answer says beyond ``cost``. scope_route: the route
    is a part of the key.
    """

    def __init__(self, str name, RequestKey key not None, begin not None, *, int64_t cost=1, bint per_route=False, charge=None,
                 str cost_header="", int64_t timeout_ns=1000000000):
        self.name = name
        self.key = key
        self.begin = begin
        self.cost = cost
        self.per_route = per_route
        self.charge = charge if cost_header else None
        self.cost_header = cost_header.lower().encode("ascii")
        self.timeout_ns = timeout_ns

    cdef bint waits(self) noexcept:
        return True

    cdef bint observes(self) noexcept:
        return self.charge is not None

    cdef int observe(self, Exchange x, ResponseHead* head) except -1:
        cdef int64_t cost = cost_of(head, self.cost_header)
        if cost >= 0:
            self.charge(self._key_of(x), cost - self.cost)
        return 0

    cdef Ticket start(self, PluginRun run):
        cdef Ticket ticket = Ticket()
        ticket.run = run
        ticket.cost = self.cost
        ticket.timeout_ns = self.timeout_ns
        ticket.key = self._key_of(run.x)
        run.ticket = ticket
        self.begin(ticket.key, ticket)
        return ticket

    cdef bytes _key_of(self, Exchange x):
        cdef Hash128 key = self.key.every(&x.view, x.route.id if self.per_route else 0)
        return (<char*>&key)[:sizeof(key)]


cdef class OnlyFor(NativeFilter):
    """Another filter, for some consumers alone: by name, or by their plan."""

    def __init__(self, NativeFilter inner not None, consumers=(), str plan=""):
        self.name = inner.name
        self.inner = inner
        self.consumers = frozenset([each.encode() for each in consumers])
        self.plan = plan

    cdef bint applies(self, Exchange x) except -1:
        if self.consumers and (x.consumer_name is None or x.consumer_name not in self.consumers):
            return False
        return not self.plan or (x.consumer_plan is not None and x.consumer_plan == self.plan)

    cdef int check(self, Exchange x) except -1:
        return self.inner.check(x) if self.applies(x) else R_NONE

    cdef bint waits(self) noexcept:
        return self.inner.waits()

    cdef bint observes(self) noexcept:
        return self.inner.observes()

    cdef int observe(self, Exchange x, ResponseHead* head) except -1:
        return self.inner.observe(x, head) if self.applies(x) else 0


# -- the run -----------------------------------------------------------------------------------------------------------

cdef int begin_plugins(Exchange x, const char* body, size_t length, bint end) except -1:
    cdef PluginRun run = PluginRun.__new__(PluginRun)
    run.x = x
    run.chain = x.route.chain
    run.view = ExchangeView.__new__(ExchangeView)
    run.view.x = x
    run.view.run = run
    run.chain.plugins.enter()
    x.run = run
    if run.chain.identity:
        run.chain.strip(x)
    return run.begin(body, length, end)


cdef class PluginRun:
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
                if slot.open:
                    return True
                self._refused(R_PLUGIN_BREAKER, slot.name)
                return False
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
                task = start_coroutine(self.x.worker.loop, value, slot.name, result)
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
        except Exception as error:
            if self.x is not None and self.state == state:
                self._hook_failed("failures", error)
            return False
        except CancelledError as error:
            if self.x is not None and self.state == state:
                self._hook_failed("failures", error)
            return False
        if self.x is None or self.state != state:
            return False                        # what it called has ended the exchange
        self.hook_result = value
        return True

    def _task_done(self, task):
        error = None if task.cancelled() else task.exception()
        if task is not self.task:
            return                              # it was stopped, and nobody waits for it
        self.task = None
        if self._awake():
            try:
                if task.cancelled() or error is not None:
                    self._hook_failed("failures", error if error is not None else CancelledError())
                else:
                    self._take(task.result())
            finally:
                self.driving = False
            self._drive()

    cdef int _take(self, object value) except -1:
        # What a hook gave that had suspended: as if `_call` had returned it.
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
        slot.failed(what, error, now)
        if slot.open:
            self.at += 1 if self.state == RUN_REQUEST else -1
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
        waiter, self.body_waiter = self.body_waiter, None
        if waiter is not None and not waiter.done():
            waiter.cancel()
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
                    ticket = (<PendingFilter>((<OnlyFor>native).inner if isinstance(native, OnlyFor) else native)).start(self)
                    if not ticket.settled:
                        self.suspended = True
                        return 0
                    self.ticket = None
                    self._ticket_result(ticket)
                else:
                    reason = native.check(x)
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
                slot.count("reported")
                _log.info("plugin %s would have answered %d %s (%s)", slot.name, response.code_status, response.reason_code,
                          response.detail or self.view.id)
            else:
                slot.count("answered")
                return self._answered(response)
        if self.view.seen is not None:
            self.view.seen.commit()
        self.at += 1

    cdef int _ticket_result(self, Ticket ticket) except -1:
        cdef NativeFilter native = self.chain.steps[self.at]
        if ticket.lines:
            out_put(&self.x.extra, PyBytes_AS_STRING(ticket.lines), <size_t>len(ticket.lines))
        if ticket.reason != R_NONE:
            self.x.fail(ticket.reason, native.name)
        else:
            self.at += 1

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
        # A future that is done when `Request.whole` is there; None: it is there already.
        cdef Exchange x = self.x
        cdef Request request = self.view.seen
        cdef bytes first
        if x is None or self.state != RUN_REQUEST:
            raise RuntimeError("the request's body is read in on_request")
        if self.body_waiter is not None:
            return asyncio.shield(self.body_waiter)
        self.read_limit = self.slot.body_limit if limit < 0 else limit
        first = x.unsent if x.unsent is not None else b""
        if x.facts.content_length > self.read_limit or len(first) > self.read_limit:
            self._too_long()
            return x.worker.loop.create_future()        # never done: the coroutine is cancelled
        if x.unsent_done:
            self.body = request.whole = first
            return None
        self.gathered = bytearray(first)
        self.body_waiter = x.worker.loop.create_future()
        self.reading = True
        if x.phase_deadline:
            x.wait_until(0)
        if x.facts.expect_continue and not self.gathered:
            send_continue(x)
        x.client.resume_request()
        return self.body_waiter

    cdef int _too_long(self) except -1:
        # Not from within the coroutine that asks: it is to be cancelled where it waits.
        self.x.worker.loop.call_soon(self._refuse_body, self.x, self.x.turn)

    def _refuse_body(self, Exchange x, uint64_t turn):
        if x.turn == turn and self.x is x:
            x.fail(R_BODY_TOO_LARGE, self.slot.name)

    cdef int request_body(self, const char* body, size_t length, bint end) except -1:
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
        if <int64_t>len(self.gathered) > self.read_limit:
            return x.fail(R_BODY_TOO_LARGE, self.slot.name)
        if end:
            x.unsent_done = True
            x.unsent = None
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
        while self.at >= 0:
            step = self.chain.steps[self.at]
            if isinstance(step, PluginSlot) and (<PluginSlot>step).on_error is not None:
                slot = step
                if not self._call(slot, slot.on_error, _gateway_error(x.reason, x.detail), None):
                    return 0
                self._checked_error(self.hook_result)
                if self.x is None or self.state != RUN_ERROR:
                    return 0
            else:
                self.at -= 1
        parts = problem_parts(x, x.reason, REASON_STATUS[x.reason], None)
        return self.own_answer(_own_response(REASON_STATUS[x.reason], parts[0], parts[1], "gateway", x.reason))

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
            self.own_answer(value)

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
            response = value
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
        self.stop()
        for step in self.chain.steps[:self.entered]:
            if isinstance(step, PluginSlot):
                slot = step
                if slot.failures and (self.troubled is None or slot not in self.troubled):
                    slot.failures = 0               # none of its hooks has failed here
                    slot.open_until_ns = 0
        if self.chain.has_log:
            self.state = RUN_LOG
            keep = self._log()
        self.state = RUN_OVER
        self.view._let_go(keep)
        self.view = None                        # it knows us: no circle
        self.x = None
        self.body = None
        self.held = None
        return self.chain.plugins.leave()

    cdef int _log(self) except -1:
        # 1: a hook goes on behind the end, in a task.
        cdef PluginSlot slot
        cdef list result
        cdef bint suspended = False
        for step in self.chain.steps:
            if not isinstance(step, PluginSlot) or (<PluginSlot>step).on_log is None:
                continue
            slot = step
            self.slot = slot
            try:
                value = slot.on_log(self.view)
                if value is not None:
                    if not PyCoro_CheckExact(value):
                        value = _await(value)
                    task = start_coroutine(self.x.worker.loop, value, slot.name, [])
                    if task is not None:
                        suspended = True
                        _watch_log(self.x.worker, slot, self.chain.plugins, task)
            except Exception as error:
                slot.failed("failures", error, now_ns())
        return suspended


def _watch_log(Worker worker, PluginSlot slot, PluginSet plugins, task):
    # An on_log that goes on: it has its budget, and the plugin is not closed under it.
    plugins.enter()
    handle = worker.loop.call_later(slot.timeout_ns / 1e9, task.cancel)

    def done(task):
        handle.cancel()
        plugins.leave()
        if task.cancelled():
            slot.failed("timeouts", None, now_ns())
        elif task.exception() is not None:
            slot.failed("failures", task.exception(), now_ns())

    task.add_done_callback(done)


def _told_nobody(task):
    # A hook that was stopped: what it says of that is not asked for, but a defect in its clean-up is told.
    if not task.cancelled() and task.exception() is not None:
        _log.error("a plugin failed while it was stopped", exc_info=task.exception())
