# What a route asks of a request beside host and path: methods, header fields, query parameters, cookies.

cdef enum ConditionPlace:
    COND_HEADER
    COND_QUERY
    COND_COOKIE

cdef enum ConditionKind:
    COND_EQUAL
    COND_PRESENT
    COND_REGEX

cdef struct Condition:
    # Name and value point into bytes objects that the RouteTable keeps.
    uint8_t place
    uint8_t kind
    int pattern             # COND_REGEX: position in the table's list of patterns
    Span name               # header: lower case; query: decoded; cookie: as it is written
    Span value              # COND_EQUAL

cdef class RegexSet:
    # Patterns that are matched together, in one pass over the text (RE2 Set); full match. Immutable once built.
    cdef object _match              # the set's bound method
    cdef int _count

    # Positions of the patterns that match the whole text, ascending.
    cdef list find(self, bytes text)

# Whether the request meets it. Only COND_REGEX makes Python objects (and may raise).
cdef bint condition_holds(
    const Condition* condition, const RequestView* view, list patterns, Out* scratch
) except -1
# Whether the parameter text of a query, percent-decoded and with "+" as space, equals `plain`.
cdef bint query_text_equal(Span text, Span plain) noexcept nogil
