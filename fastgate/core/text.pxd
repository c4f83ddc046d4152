# Bytes: what every other part reads and writes with. No Python object is made here.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from * nogil:
    # Asks for a cache line early. Never faults; changes nothing but time.
    void prefetch "__builtin_prefetch" (const void* address)

cdef struct Span:
    # Borrowed bytes. Whoever hands out a Span says what keeps it alive; a NULL `ptr` means "absent".
    const char* ptr
    Py_ssize_t len

cdef inline Span span_of(const char* ptr, Py_ssize_t length) noexcept nogil:
    cdef Span span
    span.ptr = ptr
    span.len = length
    return span

cdef bint span_equal(Span a, Span b) noexcept nogil
# ASCII case is folded, nothing else (RFC 9110 5.1: field names are case-insensitive).
cdef bint span_equal_nocase(Span a, Span b) noexcept nogil
# `literal` must be lower case and `length` bytes long.
cdef bint span_is(Span a, const char* literal, Py_ssize_t length) noexcept nogil
cdef bytes span_bytes(Span a)
cdef str span_text(Span a)           # latin-1: every byte survives

cdef bint is_token_char(unsigned char c) noexcept nogil         # RFC 9110 5.6.2 tchar
cdef bint is_token(Span a) noexcept nogil                       # one or more tchar
cdef unsigned char lower(unsigned char c) noexcept nogil        # ASCII only
# The next element of a comma list (RFC 9110 5.6.1), trimmed; moves `*at` behind it. False at the end.
# Empty elements are skipped. Quoted strings are not looked into: for token lists only.
cdef bint next_list_item(Span list_value, Py_ssize_t* at, Span* item) noexcept nogil
# A decimal of 1..18 digits and nothing else, or -1.
cdef int64_t parse_decimal(Span a) noexcept nogil

cdef struct Out:
    # A growable buffer that its owner reuses: no allocation once it has reached its working size.
    # `failed` is set when memory ran out; the writers do nothing from then on and the owner checks once, at the end.
    char* data
    size_t len
    size_t room
    bint failed

cdef void out_free(Out* out) noexcept nogil
cdef bint out_reserve(Out* out, size_t more) noexcept nogil
cdef void out_put(Out* out, const char* data, size_t length) noexcept nogil
cdef void out_span(Out* out, Span span) noexcept nogil
cdef void out_byte(Out* out, char c) noexcept nogil
cdef char* put_decimal(char* at, int64_t value) noexcept nogil      # 20 bytes of room; behind the last digit
cdef void out_decimal(Out* out, int64_t value) noexcept nogil
cdef void out_hex(Out* out, uint64_t value, int digits) noexcept nogil   # digits = 0: as many as needed
# The span as the inside of a JSON string (RFC 8259 7); bytes that are not UTF-8 are written as \u00XX (latin-1).
cdef void out_json(Out* out, Span span) noexcept nogil
