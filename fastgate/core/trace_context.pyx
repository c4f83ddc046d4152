# See trace_context.pxd. Section numbers are those of W3C Trace Context.

from libc.math cimport ldexp


# The value of each byte as a hex digit, of lower case alone (3.2.2); 255: it is none.
cdef uint8_t[256] TRACE_DIGITS


cdef void _init_trace_digits() noexcept:
    cdef int i
    memset(TRACE_DIGITS, 255, 256)
    for i in range(10):
        TRACE_DIGITS[48 + i] = <uint8_t>i
    for i in range(6):
        TRACE_DIGITS[97 + i] = <uint8_t>(10 + i)


_init_trace_digits()


cdef inline bint _hex_number(const char* at, int digits, uint64_t* into) noexcept nogil:
    cdef int i
    cdef uint8_t digit, seen = 0
    cdef uint64_t value = 0
    for i in range(digits):
        digit = TRACE_DIGITS[<unsigned char>at[i]]
        seen |= digit
        value = value << 4 | digit
    into[0] = value
    return seen < 16


cdef bint read_traceparent(Span value, TraceContext* into) noexcept nogil:
    cdef const char* p = value.ptr
    cdef uint64_t version = 0, flags = 0
    if value.len < TRACEPARENT_LEN or p[2] != 45 or p[35] != 45 or p[52] != 45:
        return False
    if not _hex_number(p, 2, &version) or version == 255:
        return False
    # 3.2.4: a later version is read as far as we know it, if what follows is set off by a dash.
    if value.len > TRACEPARENT_LEN and (version == 0 or p[TRACEPARENT_LEN] != 45):
        return False
    if not (_hex_number(p + 3, 16, &into.high) and _hex_number(p + 19, 16, &into.low)
            and _hex_number(p + 36, 16, &into.parent) and _hex_number(p + 53, 2, &flags)):
        return False
    if (into.high == 0 and into.low == 0) or into.parent == 0:
        return False
    # Of a later version only the sampled flag is sure to mean what we take it for.
    into.flags = <uint8_t>(flags & (TRACE_SAMPLED | TRACE_RANDOM if version == 0 else TRACE_SAMPLED))
    into.verbatim = version == 0
    return True


cdef inline bint _key_char(unsigned char c) noexcept nogil:
    return 97 <= c <= 122 or 48 <= c <= 57 or c == 95 or c == 45 or c == 42 or c == 47 or c == 64


cdef bint _member_key(Span member, Span* key) noexcept nogil:
    # list-member = key "=" value (level 2, 3.3.1.3; its keys hold those of level 1).
    cdef Py_ssize_t i, equals = -1
    cdef unsigned char c
    for i in range(member.len):
        if member.ptr[i] == 61:
            equals = i
            break
        if not _key_char(<unsigned char>member.ptr[i]):
            return False
    if equals < 1 or equals > 256 or member.ptr[0] in (95, 45, 42, 47, 64):
        return False
    if member.len - equals - 1 < 1 or member.len - equals - 1 > 256:
        return False
    for i in range(equals + 1, member.len):
        c = <unsigned char>member.ptr[i]
        if c < 32 or c > 126 or c == 61:        # a comma has parted the members
            return False
    key[0] = span_of(member.ptr, equals)
    return True


cdef bint tracestate_sound(const Field* fields, int count) noexcept nogil:
    cdef Span[TRACESTATE_MEMBERS] keys
    cdef int members = 0, i, k
    cdef Py_ssize_t total = 0, start, end, stop
    cdef Span value, member
    for i in range(count):
        if fields[i].id != F_TRACESTATE:
            continue
        value = fields[i].value
        total += value.len
        if total > TRACESTATE_BYTES:
            return False
        start = 0
        while start <= value.len:
            stop = start
            while stop < value.len and value.ptr[stop] != 44:
                stop += 1
            end = stop
            while start < end and (value.ptr[start] == 32 or value.ptr[start] == 9):
                start += 1
            while end > start and (value.ptr[end - 1] == 32 or value.ptr[end - 1] == 9):
                end -= 1
            if end > start:                     # 3.3.1.1: empty members are allowed
                if members == TRACESTATE_MEMBERS or not _member_key(span_of(value.ptr + start, end - start), &member):
                    return False
                for k in range(members):        # 3.3.1: one entry for a key
                    if span_equal(keys[k], member):
                        return False
                keys[members] = member
                members += 1
            start = stop + 1
    return True


cdef uint64_t trace_span_id(RandomState* random) noexcept nogil:
    cdef uint64_t id = random64(random)
    return id if id else 1


cdef void trace_begin(TraceContext* into, RandomState* random) noexcept nogil:
    into.high = random64(random)
    into.low = random64(random)
    into.high |= into.low == 0                  # not all zero
    into.parent = 0
    into.flags = TRACE_RANDOM
    into.verbatim = False


cdef char* put_hex64(char* at, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        memcpy(at + 2 * i, HEX_PAIRS + 2 * (value >> (56 - 8 * i) & 255), 2)
    return at + 16


cdef char* put_traceparent(char* at, const TraceContext* context, uint64_t span) noexcept nogil:
    memcpy(at, b"00-", 3)
    at = put_hex64(put_hex64(at + 3, context.high), context.low)
    at[0] = 45
    at = put_hex64(at + 1, span)
    memcpy(at, b"-0", 2)
    at[2] = <char>(48 + context.flags)
    return at + 3


cdef uint64_t trace_threshold(double share) except? 0:
    if not 0 <= share <= 1:
        raise ValueError("a share is 0 to 1")
    return (<uint64_t>1 << 56) - <uint64_t>ldexp(share, 56)


def parse_traceparent(bytes value not None) -> tuple[str, str, int] | None:
    """trace-id, parent-id and flags of a traceparent field; None: it is malformed."""
    cdef TraceContext context
    if not read_traceparent(bytes_span(value), &context):
        return None
    return f"{context.high:016x}{context.low:016x}", f"{context.parent:016x}", context.flags


def format_traceparent(bytes value not None) -> bytes:
    """What is sent on in place of a sound traceparent, by somebody who records nothing. ValueError for a malformed one."""
    cdef TraceContext context
    cdef char[TRACEPARENT_LEN] text
    if not read_traceparent(bytes_span(value), &context):
        raise ValueError("malformed")
    put_traceparent(text, &context, context.parent)
    return text[:TRACEPARENT_LEN]


def sound_tracestate(list values not None) -> bool:
    """Whether these tracestate lines are well-formed, together."""
    cdef Field[16] fields
    cdef int i
    if len(values) > 16:
        raise ValueError("at most 16 lines")
    for i in range(len(values)):
        fields[i].id = F_TRACESTATE
        fields[i].value = bytes_span(<bytes?>values[i])
    return tracestate_sound(fields, len(values))


def samples_trace(str trace_id not None, double share) -> bool:
    """Whether a trace that begins here with this id is sampled, of a share of 0 to 1 (ValueError)."""
    cdef TraceContext context
    context.low = int(trace_id[16:], 16)
    return trace_sampled(&context, trace_threshold(share))
