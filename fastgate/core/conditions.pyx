# What a route asks of a request beside host and path.

import re2

cdef enum:
    _SET_MEMORY = 16 << 20         # bytes for the automaton of one RegexSet
    _SET_MEMORY_PER_PATTERN = 64 << 10


def compile_regex(pattern: str) -> object:
    """An RE2 pattern over bytes (RE2 with Latin-1: `.` is one byte). Raises ValueError with RE2's message."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        text = error.args[0] if error.args else error
        raise ValueError(text.decode(errors="replace") if isinstance(text, bytes) else str(text)) from None


cdef object _compile_set(list patterns, int64_t memory):
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = memory
    together = re2.Set.FullMatchSet(options)
    for pattern in patterns:
        together.Add(pattern.encode())
    together.Add(b"(?s:.*)")
    together.Compile()
    return together.Match


cdef class RegexSet:
    """Patterns matched together. The set has a last pattern that matches everything: an answer without it is no answer (RE2's
    automaton ran out of memory) and must not be taken for "none matches", which could open a route to hostile text."""

    def __init__(self, patterns: list[str]) -> None:
        cdef int64_t memory = _SET_MEMORY + _SET_MEMORY_PER_PATTERN * <int64_t>len(patterns)
        self._count = len(patterns)
        try:
            self._match = _compile_set(patterns, memory)
        except re2.error:
            raise ValueError("the regular expressions of one host are too large together") from None

    cdef list find(self, bytes text):
        cdef list found = self._match(text)
        if found is not None:
            found.sort()
            if found.pop() == self._count:
                return found
        raise MemoryError("RE2 ran out of memory")


cdef inline int _query_byte(Span text, Py_ssize_t* at) noexcept nogil:
    # The next decoded byte; moves `*at` behind it. A bad escape stands for itself (WHATWG URL 1.3).
    cdef Py_ssize_t i = at[0]
    cdef unsigned char c = <unsigned char>text.ptr[i]
    cdef uint8_t high, low
    at[0] = i + 1
    if c == 43:
        return 32
    if c == 37 and i + 2 < text.len:
        high = HEX_VALUE[<unsigned char>text.ptr[i + 1]]
        low = HEX_VALUE[<unsigned char>text.ptr[i + 2]]
        if high != 255 and low != 255:
            at[0] = i + 3
            return high << 4 | low
    return c


cdef bint query_text_equal(Span text, Span plain) noexcept nogil:
    cdef Py_ssize_t i = 0, k = 0
    while i < text.len:
        if k == plain.len or _query_byte(text, &i) != <unsigned char>plain.ptr[k]:
            return False
        k += 1
    return k == plain.len


cdef bytes _query_plain(Span text, Out* scratch):
    cdef Py_ssize_t i = 0
    scratch.len = 0
    while i < text.len:
        out_byte(scratch, <char>_query_byte(text, &i))
    if scratch.failed:
        raise MemoryError
    return PyBytes_FromStringAndSize(scratch.data, <Py_ssize_t>scratch.len)


cdef bint _next_parameter(Span query, Py_ssize_t* at, Span* name, Span* value) noexcept nogil:
    # name=value between "&"; without "=" the value is empty. Empty parts are skipped.
    cdef Py_ssize_t i = at[0], start, equals
    while i < query.len and query.ptr[i] == 38:
        i += 1
    if i >= query.len:
        return False
    start = i
    equals = -1
    while i < query.len and query.ptr[i] != 38:
        if equals < 0 and query.ptr[i] == 61:
            equals = i
        i += 1
    at[0] = i
    name[0] = span_of(query.ptr + start, (equals if equals >= 0 else i) - start)
    value[0] = span_of(query.ptr + equals + 1, i - equals - 1) if equals >= 0 else span_of(query.ptr + i, 0)
    return True


cdef bint _next_cookie(Span field, Py_ssize_t* at, Span* name, Span* value) noexcept nogil:
    # cookie-string (RFC 6265 4.2.1), read as leniently as 5.2 reads a cookie-pair: split at ";", trimmed. A pair without
    # "=" has no name and is skipped. Quotes belong to the value.
    cdef const char* p = field.ptr
    cdef Py_ssize_t i = at[0], start, end, equals, k
    while i < field.len:
        start = i
        equals = -1
        while i < field.len and p[i] != 59:
            if equals < 0 and p[i] == 61:
                equals = i
            i += 1
        end = i
        i += 1
        if equals < 0:
            continue
        while start < equals and p[start] in (32, 9):
            start += 1
        k = equals
        while k > start and p[k - 1] in (32, 9):
            k -= 1
        if k == start:
            continue
        name[0] = span_of(p + start, k - start)
        k = equals + 1
        while k < end and p[k] in (32, 9):
            k += 1
        while end > k and p[end - 1] in (32, 9):
            end -= 1
        value[0] = span_of(p + k, end - k)
        at[0] = i
        return True
    at[0] = i
    return False


cdef bint _pattern_matches(const Condition* condition, bytes text, list patterns) except -1:
    return len((<RegexSet>patterns[condition.pattern]).find(text)) != 0


cdef bint condition_holds(
    const Condition* condition, const RequestView* view, list patterns, Out* scratch
) except -1:
    # Several lines, parameters or cookies of one name: any of them may meet the condition.
    cdef int i
    cdef Py_ssize_t at = 0
    cdef Span name, value
    if condition.place == COND_QUERY:
        if view.query.ptr == NULL:
            return False
        while _next_parameter(view.query, &at, &name, &value):
            if not query_text_equal(name, condition.name):
                continue
            if condition.kind == COND_PRESENT:
                return True
            if condition.kind == COND_EQUAL:
                if query_text_equal(value, condition.value):
                    return True
            elif _pattern_matches(condition, _query_plain(value, scratch), patterns):
                return True
        return False
    for i in range(view.field_count):
        if condition.place == COND_HEADER:
            if not span_equal_nocase(view.fields[i].name, condition.name):
                continue
            if condition.kind == COND_PRESENT:
                return True
            if condition.kind == COND_EQUAL:
                if span_equal(view.fields[i].value, condition.value):
                    return True
            elif _pattern_matches(condition, span_bytes(view.fields[i].value), patterns):
                return True
            continue
        if not span_is(view.fields[i].name, b"cookie", 6):
            continue
        at = 0
        while _next_cookie(view.fields[i].value, &at, &name, &value):
            if not span_equal(name, condition.name):
                continue
            if condition.kind == COND_PRESENT:
                return True
            if condition.kind == COND_EQUAL:
                if span_equal(value, condition.value):
                    return True
            elif _pattern_matches(condition, span_bytes(value), patterns):
                return True
    return False
