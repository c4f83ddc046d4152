# Which exchanges are traced, what is noted of them on the way, and where it is kept.

cdef uint64_t TRACE_DEFAULT         # a Route's threshold that means: the listener's

cdef enum TraceTrust:
    TRUST_NONE
    TRUST_PROXIES
    TRUST_ALL

cdef enum Traced:
    TRACED_WRITE = 1        # the traceparent that goes on is ours
    TRACED_SPANS = 2        # sampled: its spans are exported
    TRACED_ASKED = 4        # the request has asked for it, with a signature
    TRACED_DRAWN = 8        # kept by chance
    TRACED_WHOLE = 14       # any of these three: each step is noted, and it is kept however it ends

cdef enum Kept:
    # How an exchange is kept; each has its own room, so that a flood of one kind drives no other out.
    KEPT_NOT
    KEPT_NOTED              # a hedge: its notes go to its main exchange
    KEPT_REFUSAL            # 4xx of the gateway's own, or the client's doing
    KEPT_ERROR              # 5xx, whoever said it, and what was cut
    KEPT_OTHER              # sampled, or asked for
    KEPT_COUNT

cdef enum:
    NOTES_LIMIT = 8192      # bytes of notes of one exchange
    BLOB_OVERHEAD = 64      # of a bytes object and its place in the deque

@cython.final
cdef class TracePolicy:
    # Of one configuration.
    cdef bint propagate                 # the gateway takes part in traces
    cdef int trust                      # TraceTrust
    cdef uint64_t threshold
    cdef uint64_t draw                  # share of 2^32 that is kept by chance
    cdef object asked                   # checks X-Fastgate-Trace; None: it is a field like any other

@cython.final
cdef class Trails:
    # What has ended, as JSON objects: the access log's line, with more behind it.
    cdef AccessLog lines                # writes them; as much redacted as there
    # -- by Kept: deques of bytes, oldest first; bytes that they hold
    cdef list kept
    cdef int64_t[KEPT_COUNT] held
    cdef int64_t room                   # bytes for each Kept
    # -- those that are to be exported
    cdef list spans
    cdef int span_room
    cdef readonly uint64_t spans_sampled    # all that were to be exported
    cdef readonly uint64_t spans_dropped    # those of them for which there was no room
    # -- told by the exporter
    cdef public uint64_t spans_exported
    cdef public uint64_t spans_lost     # that the receiver did not take
    # -- what of them stands in the counters already: sampled, exported, dropped
    cdef uint64_t[3] shown

    cdef int keep(self, Exchange x, ExchangeRecord* record, int kept) except -1
    cdef int _push(self, bytes blob, int kept) except -1
    cdef int show(self, Counters counters) except -1

cdef int begin_trace(Exchange x, Route route) except -1
cdef int inherit_trace(Exchange x, Exchange parent) except -1
cdef bytes trace_lines(Exchange parent)
cdef char* copy_trace(char* at, Exchange x, HeaderRules rules) noexcept
cdef int whether_kept(Exchange x) noexcept
cdef int write_timing(Exchange x) noexcept
# Each notes nothing where nothing is kept.
cdef int note_phase(Exchange x, int phase) noexcept
cdef int note_filter(Exchange x, NativeFilter filter, int64_t began, int reason) except -1
# The try under way is over. reason: R_NONE where an answer came, whose status this is (0: not known).
cdef int note_try(Exchange x, int reason, str detail, int status, int64_t now) except -1
cdef int note_part(Exchange x, str name, int64_t began, int64_t took, int status, str reason, str upstream, str endpoint,
                   int attempts) except -1
cdef int note_fallback(Exchange x, str failure, int64_t now) except -1
cdef int adopt_notes(Exchange x, Exchange hedge) noexcept
# -- hook_notes.pyx. who: a PluginSlot, or a NativeFilter of the run's chain. status: of an answer, else 0
cdef int hook_began(PluginRun run, object who) noexcept
cdef int hook_ended(PluginRun run, int verdict, int status) noexcept
cdef int note_hooks(PluginRun run) except -1         # writes them into the exchange's notes
