# Bytes: comparing, scanning and writing them without making Python objects.

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

# 1: tchar (RFC 9110 5.6.2). 2: must be escaped inside a JSON string (RFC 8259 7). 4: not ASCII.
cdef uint8_t[256] CHAR_CLASS


cdef void _init_char_class() noexcept:
    cdef int c
    for c in range(256):
        CHAR_CLASS[c] = 0
        if c < 32 or c == 34 or c == 92 or c == 127:
            CHAR_CLASS[c] |= 2
        if c >= 128:
            CHAR_CLASS[c] |= 4
        if 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122:
            CHAR_CLASS[c] |= 1
    for c in b"!#$%&'*+-.^_`|~":
        CHAR_CLASS[c] |= 1


_init_char_class()

# "00" .. "ff"
cdef bytes HEX_PAIRS_TEXT = bytes(range(256)).hex().encode()
cdef const char* HEX_PAIRS = HEX_PAIRS_TEXT


cdef unsigned char lower(unsigned char c) noexcept nogil:
    return c | 0x20 if 65 <= c <= 90 else c


cdef bint span_equal(Span a, Span b) noexcept nogil:
    return a.len == b.len and memcmp(a.ptr, b.ptr, a.len) == 0


cdef bint span_equal_nocase(Span a, Span b) noexcept nogil:
    cdef Py_ssize_t i
    if a.len != b.len:
        return False
    for i in range(a.len):
        if a.ptr[i] != b.ptr[i] and lower(<unsigned char>a.ptr[i]) != lower(<unsigned char>b.ptr[i]):
            return False
    return True


cdef bint span_is(Span a, const char* literal, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    if a.len != length:
        return False
    for i in range(length):
        if lower(<unsigned char>a.ptr[i]) != <unsigned char>literal[i]:
            return False
    return True


cdef bytes span_bytes(Span a):
    return PyBytes_FromStringAndSize(a.ptr, a.len)


cdef str span_text(Span a):
    return PyUnicode_DecodeLatin1(a.ptr, a.len, NULL)


cdef bint is_token_char(unsigned char c) noexcept nogil:
    return CHAR_CLASS[c] & 1


cdef bint is_token(Span a) noexcept nogil:
    cdef Py_ssize_t i
    if a.len == 0:
        return False
    for i in range(a.len):
        if not CHAR_CLASS[<unsigned char>a.ptr[i]] & 1:
            return False
    return True


cdef bint next_list_item(Span list_value, Py_ssize_t* at, Span* item) noexcept nogil:
    cdef Py_ssize_t i = at[0], start, end
    while i < list_value.len:
        while i < list_value.len and list_value.ptr[i] in (32, 9, 44):
            i += 1
        if i >= list_value.len:
            break
        start = i
        while i < list_value.len and list_value.ptr[i] != 44:
            i += 1
        end = i
        while end > start and list_value.ptr[end - 1] in (32, 9):
            end -= 1
        at[0] = i
        item[0] = span_of(list_value.ptr + start, end - start)
        return True
    at[0] = i
    return False


cdef int64_t parse_decimal(Span a) noexcept nogil:
    cdef int64_t value = 0
    cdef Py_ssize_t i
    cdef int digit
    if a.len < 1 or a.len > 18:
        return -1
    for i in range(a.len):
        digit = <int><unsigned char>a.ptr[i] - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


cdef void out_free(Out* out) noexcept nogil:
    free(out.data)
    out.data = NULL
    out.len = 0
    out.room = 0


cdef bint out_reserve(Out* out, size_t more) noexcept nogil:
    cdef size_t need = out.len + more
    cdef size_t room
    cdef char* grown
    if need <= out.room:
        return True
    if out.failed:
        return False
    room = out.room * 2 if out.room else 256
    while room < need:
        room *= 2
    grown = <char*>realloc(out.data, room)
    if grown == NULL:
        out.failed = True
        return False
    out.data = grown
    out.room = room
    return True


cdef void out_put(Out* out, const char* data, size_t length) noexcept nogil:
    if length and out_reserve(out, length):
        memcpy(out.data + out.len, data, length)
        out.len += length


cdef void out_span(Out* out, Span span) noexcept nogil:
    out_put(out, span.ptr, <size_t>span.len)


cdef void out_byte(Out* out, char c) noexcept nogil:
    if out_reserve(out, 1):
        out.data[out.len] = c
        out.len += 1


cdef char* put_decimal(char* at, int64_t value) noexcept nogil:
    cdef char[24] digits
    cdef int first = 24
    cdef uint64_t rest = <uint64_t>value
    if value < 0:
        at[0] = 45
        at += 1
        rest = 0 - rest
    while True:
        first -= 1
        digits[first] = <char>(48 + rest % 10)
        rest = rest // 10
        if rest == 0:
            break
    memcpy(at, &digits[first], <size_t>(24 - first))
    return at + 24 - first


cdef void out_decimal(Out* out, int64_t value) noexcept nogil:
    if out_reserve(out, 20):
        out.len = <size_t>(put_decimal(out.data + out.len, value) - out.data)


cdef void out_hex(Out* out, uint64_t value, int digits) noexcept nogil:
    cdef int shift
    if digits == 0:
        digits = 1
        while digits < 16 and value >> (4 * digits):
            digits += 1
    if not out_reserve(out, <size_t>digits):
        return
    for shift in range(4 * (digits - 1), -1, -4):
        out.data[out.len] = b"0123456789abcdef"[(value >> shift) & 15]
        out.len += 1


cdef Py_ssize_t _utf8_length(const char* at, Py_ssize_t left) noexcept nogil:
    # The length of the well-formed UTF-8 sequence that begins at `at`, or 0 (Unicode 15, table 3-7).
    cdef const unsigned char* p = <const unsigned char*>at
    cdef unsigned char c = p[0], low = 0x80, high = 0xBF
    cdef Py_ssize_t length, i
    if c < 0xC2 or c > 0xF4:
        return 0
    length = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
    if length > left:
        return 0
    if c == 0xE0:
        low = 0xA0
    elif c == 0xED:
        high = 0x9F
    elif c == 0xF0:
        low = 0x90
    elif c == 0xF4:
        high = 0x8F
    if p[1] < low or p[1] > high:
        return 0
    for i in range(2, length):
        if p[i] < 0x80 or p[i] > 0xBF:
            return 0
    return length


cdef uint64_t _is_line_break(const char* at, Py_ssize_t length) noexcept nogil:
    # C1 controls and U+2028, U+2029: many readers end a line or act there, though JSON would let them stand. The code
    # point, or 0.
    cdef const unsigned char* p = <const unsigned char*>at
    if length == 2 and p[0] == 0xC2 and p[1] < 0xA0:
        return p[1]
    if length == 3 and p[0] == 0xE2 and p[1] == 0x80 and (p[2] == 0xA8 or p[2] == 0xA9):
        return 0x2028 + p[2] - 0xA8
    return 0


cdef void out_json(Out* out, Span span) noexcept nogil:
    cdef uint64_t breaks
    cdef Py_ssize_t i = 0, start = 0, length
    cdef unsigned char c
    while i < span.len:
        c = <unsigned char>span.ptr[i]
        if not CHAR_CLASS[c] & 6:
            i += 1
            continue
        if c >= 128:
            length = _utf8_length(span.ptr + i, span.len - i)
            breaks = _is_line_break(span.ptr + i, length)
            if length and not breaks:
                i += length
                continue
        out_put(out, span.ptr + start, <size_t>(i - start))
        if c >= 128 and breaks:
            out_put(out, b"\\u", 2)
            out_hex(out, breaks, 4)
            i += length - 1
        elif c == 34 or c == 92:
            out_byte(out, 92)
            out_byte(out, <char>c)
        else:
            out_put(out, b"\\u00", 4)
            out_hex(out, c, 2)
        i += 1
        start = i
    out_put(out, span.ptr + start, <size_t>(i - start))
