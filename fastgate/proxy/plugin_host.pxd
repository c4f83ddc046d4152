# Plugins in Python, run by the exchange. See plugin_host.pyx for the theory of operation.

@cython.final
cdef class PluginSlot:
    # One plugin of the configuration, in this worker.
    # -- who
    cdef readonly str name
    cdef readonly object plugin
    cdef object shared                  # its Shared
    # -- its phases; None: it has none. Bound methods
    cdef object on_request
    cdef object on_response
    cdef object on_response_body
    cdef object on_error
    cdef object on_log
    cdef readonly str body_mode         # "none", "chunks", "buffered"
    cdef int64_t body_limit
    # -- when it fails
    cdef bint open                      # on_failure = "open": it is passed over
    cdef bint report_only
    cdef int64_t timeout_ns
    # -- its breaker
    cdef int failures                   # in a row: exchanges in which one of its hooks failed
    cdef int64_t open_until_ns          # 0: closed
    # -- counted
    cdef readonly dict counts

    cdef bint admits(self, int64_t now) noexcept
    cdef int failed(self, str what, object error, int64_t now) except -1
    cdef void went_well(self) noexcept
    cdef int count(self, str what) except -1

@cython.final
cdef class PluginSet:
    # The plugins of one configuration. `active`: runs that hold it.
    cdef dict upstreams                 # name -> Upstream
    cdef object idle                    # called once nothing runs any more, from `retire` on; None: in force
    cdef readonly int active

    cdef Upstream upstream(self, str name)
    cdef int enter(self) except -1
    cdef int leave(self) except -1

@cython.final
cdef class PluginChain:
    # What a route runs from its first plugin in Python on: PluginSlot and NativeFilter, in order.
    cdef PluginSet plugins
    cdef tuple steps
    cdef tuple identity                 # header names that no client may set: lower case, "-" for "_"
    cdef bint has_response
    cdef bint has_error
    cdef bint has_log
    cdef int body_mode                  # BodyMode
    cdef int64_t body_limit             # of answers that are held whole
    cdef tuple observers                # NativeFilters that look at the upstream's head
    cdef object part_cache              # fastgate.aggregation.part_cache.PartCache; None until there is a gather

    cdef int strip(self, Exchange x) except -1

cdef enum BodyMode:
    BODY_PASSES
    BODY_CHUNKS
    BODY_BUFFERED

cdef enum RunState:
    RUN_IDLE                # nothing of it runs: the exchange is with the upstream, or has not begun
    RUN_REQUEST             # on_request of steps[at]
    RUN_ERROR               # on_error
    RUN_RESPONSE            # on_response
    RUN_BODY                # on_response_body
    RUN_LOG
    RUN_OVER

cdef enum HookVerdict:
    # The names stand in HOOK_VERDICTS.
    HOOK_RUNNING
    HOOK_PASSED
    HOOK_ANSWERED
    HOOK_REPORTED           # it would have answered, and only reports
    HOOK_REFUSED            # by a native filter
    HOOK_FAILED
    HOOK_TIMED_OUT
    HOOK_BREAKER            # open: it was not asked

cdef struct HookNote:
    void* who               # PluginSlot or NativeFilter, which the chain keeps alive
    int64_t began
    int64_t spent           # over all calls, if it is called for each piece of a body
    int16_t status          # of HOOK_ANSWERED
    uint8_t state           # RunState
    uint8_t verdict

cdef enum:
    MAX_HOOK_NOTES = 16

@cython.final
cdef class PluginRun:
    # -- whose
    cdef Exchange x                     # None once it is over
    cdef PluginChain chain
    cdef ExchangeView view
    # -- where it stands
    cdef int state                      # RunState
    cdef int at                         # index into chain.steps
    cdef int entered                    # steps that were reached: their answers pass through them again
    cdef PluginSlot slot                # whose hook runs
    cdef PluginSlot trial               # whose open breaker lets this exchange try
    cdef list troubled                  # slots that failed here, or whose breaker was open; None: none
    cdef list doubtful                  # slots of which nothing is known: stopped in a hook, or their on_log goes on; None: none
    cdef object hook_result
    cdef bint driving                   # inside `_drive`
    # -- how each hook did; see hook_notes.pyx
    cdef bint noting                    # anything is kept at all
    cdef bint hook_lost                 # of the present call no note is made: there was no room
    cdef int64_t hook_at                # when the present call began
    cdef HookNote[MAX_HOOK_NOTES] hooks
    cdef int hook_count
    # -- a hook that has suspended
    cdef bint suspended
    cdef object task
    cdef Ticket ticket
    cdef bint reading                   # it waits for the request's body: the client's deadlines hold, not its budget
    # -- the request's body
    cdef bytes body                     # set by a plugin, or read; None: it is in `x.unsent`
    cdef object gathered                # a bytearray, while somebody reads it
    cdef object body_waiter             # beside it: done when it is whole
    cdef int readers                    # who wait for that
    cdef int64_t read_limit
    # -- the answer
    cdef Response response
    cdef bint failing                   # the answer is the gateway's own word on a failure: no on_error again
    cdef bint head_sent
    cdef bint congested                 # the client has not taken the last piece yet
    cdef bint drained                   # what came from the upstream is no longer wanted
    cdef object held                    # a bytearray: body bytes that wait for hooks
    cdef bint last                      # no more of the body comes
    cdef bint ended                     # and the exchange may end behind it
    cdef bytes piece                    # in RUN_BODY: what the hooks have made of it so far

    # -- from the exchange
    cdef int begin(self, const char* body, size_t length, bint end) except -1
    cdef int request_body(self, const char* body, size_t length, bint end) except -1
    cdef int upstream_head(self, ResponseHead* head, const char* body, size_t length, bint end) except -1   # a `Sent`
    cdef int upstream_body(self, const char* body, size_t length, bint end) except -1                       # a `Sent`
    cdef bint holds(self) noexcept              # the answer is not all out yet
    cdef int own_answer(self, Response response) except -1
    cdef bint takes_failure(self, int reason) noexcept
    cdef int failure(self, int reason, str detail) except -1
    cdef int budget_over(self, int64_t now) except -1
    cdef int stop(self) except -1
    cdef int over(self) except -1
    # -- from the views
    cdef int may_change(self) except -1
    cdef object gather(self, int64_t limit)
    cdef int gather_over(self) except -1
    # -- within
    cdef int _drive(self) except -1
    cdef int _request_steps(self) except -1
    cdef int _error_steps(self) except -1
    cdef int _response_steps(self) except -1
    cdef int _body_steps(self) except -1
    cdef int _go_on(self) except -1
    cdef int _refused(self, int reason, str detail) except -1
    cdef int _passed(self) except -1
    cdef int _unread(self) except -1
    cdef int _reported(self, int status, str code, str detail) except -1
    cdef int _answered(self, Response response) except -1
    cdef int _send_answer(self) except -1
    cdef int _send_piece(self) except -1
    cdef bint _call(self, PluginSlot slot, object hook, object argument, object more) except -1
    cdef int _hook_failed(self, str what, object error) except -1
    cdef int _in_trouble(self, PluginSlot slot) except -1
    cdef int _in_doubt(self, PluginSlot slot) except -1
    cdef int _suspend(self) except -1
    cdef bint _awake(self) except -1
    cdef int _wake(self) except -1
    cdef object _raised(self, object error)
    cdef int _take(self, object value) except -1
    cdef int _ticket_result(self, Ticket ticket) except -1
    cdef int _too_long(self) except -1
    # What a hook has given; the `_checked_` ones take what it may not give for its failure.
    cdef int _checked_result(self, object value) except -1
    cdef int _request_result(self, object value) except -1
    cdef int _checked_error(self, object value) except -1
    cdef int _error_result(self, object value) except -1
    cdef int _checked_response(self, object value) except -1
    cdef int _response_result(self, object value) except -1
    cdef int _checked_body(self, object value) except -1
    cdef int _body_result(self, object value) except -1
    cdef int _send_head(self, bint bodiless) except -1
    cdef int _sent(self, int sent) except -1

@cython.final
cdef class Ticket:
    # A native filter's decision that has to be waited for.
    cdef PluginRun run
    cdef readonly bytes key
    cdef readonly int64_t cost
    cdef int64_t timeout_ns
    cdef bint settled
    cdef int reason
    cdef bytes lines

@cython.final
cdef class PendingFilter(NativeFilter):
    cdef RequestKey key
    cdef object begin
    cdef object charge                  # None: the upstream's head says nothing of the cost
    cdef bytes cost_header
    cdef bint per_route
    cdef readonly int64_t cost
    cdef int64_t timeout_ns

    cdef Ticket start(self, PluginRun run)
    cdef bytes _key_of(self, Exchange x)

@cython.final
cdef class OnlyFor(NativeFilter):
    # Another filter, for some consumers alone.
    cdef NativeFilter inner
    cdef frozenset consumers            # of bytes; empty: all
    cdef str plan                       # "": any

    cdef bint applies(self, Exchange x) except -1
