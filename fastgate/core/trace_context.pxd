# W3C Trace Context (Recommendation, level 1; level 2 where it says more): traceparent and tracestate.

cdef enum:
    TRACE_SAMPLED = 1       # trace-flags: the caller may have recorded its part
    TRACE_RANDOM = 2        # level 2: the last 7 bytes of the trace-id are random
    TRACEPARENT_LEN = 55    # of version 00, which is what we write
    TRACESTATE_MEMBERS = 32
    TRACESTATE_BYTES = 4096 # of all lines together; 512 must pass, what is more we may refuse

cdef struct TraceContext:
    # -- the trace-id, as two big-endian halves; both 0: none
    uint64_t high
    uint64_t low
    uint64_t parent         # span-id of the caller; 0: none
    uint8_t flags           # TRACE_SAMPLED, TRACE_RANDOM; others are not kept
    bint verbatim           # it came as version 00: the field may be passed on as it is

# False: malformed, and the trace is to be begun anew (3.2.2, 4.3). Then `into` is not to be used.
cdef bint read_traceparent(Span value, TraceContext* into) noexcept nogil
# Whether all tracestate lines together are well-formed (3.3.1); else all of them are to be left out.
cdef bint tracestate_sound(const Field* fields, int count) noexcept nogil
# A trace that begins here.
cdef void trace_begin(TraceContext* into, RandomState* random) noexcept nogil
cdef uint64_t trace_span_id(RandomState* random) noexcept nogil     # never 0
# TRACEPARENT_LEN bytes; returns what lies behind them.
cdef char* put_traceparent(char* at, const TraceContext* context, uint64_t span) noexcept nogil
cdef char* put_hex64(char* at, uint64_t value) noexcept nogil       # 16 bytes

# The limit that `trace_sampled` takes, of a share of all traces (0..1); ValueError outside.
cdef uint64_t trace_threshold(double share) except? 0
cdef inline bint trace_sampled(const TraceContext* context, uint64_t threshold) noexcept nogil:
    # By the 56 random bits of the trace-id, so that whoever samples behind us by them with the same share, or a
    # greater one, takes the same traces (OpenTelemetry's consistent probability sampling).
    return (context.low & <uint64_t>0xFFFFFFFFFFFFFF) >= threshold
