# HTTP's three forms of a date (RFC 9110 5.6.7).

# Seconds since 1970 (0 for an earlier date), or -1 for what is no HTTP-date. `wall_s` is the present time: a year of two
# digits is read by it. The name of the day is not compared with the date.
cdef int64_t parse_http_date(Span text, int64_t wall_s) noexcept nogil
