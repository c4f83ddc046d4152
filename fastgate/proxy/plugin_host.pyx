# Theory of operation. A route with a plugin in Python has a PluginChain; an exchange that takes it gets a PluginRun, which
# walks the chain: on_request of each step in order, then, when an answer begins, on_response of those that were reached in
# reverse order, and on_response_body of each piece. A hook's coroutine is driven by one `send(None)` in place. Only if it
# suspends does it become a task; the exchange then stands in X_PLUGINS or X_RESPONDING (or pauses its upstream in the middle
# of a body), with the plugin's budget as its deadline, until the task is done.
#
# `_drive` is the one loop: each `_..._steps` goes as far as it can and returns with `suspended` set, or with the state
# changed, or with RUN_IDLE when it is the exchange's turn again. Whatever a hook does may end the exchange: after each call
# `x` is looked at again, and a run whose exchange is over does nothing more.
# The parts: plugin_task (a coroutine, or a task), plugin_filters (native filters beside plugins), plugin_run (the walk).

import logging

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

    cdef void went_well(self) noexcept:
        self.failures = 0
        self.open_until_ns = 0

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
