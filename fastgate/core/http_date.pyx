# RFC 9110 5.6.7: "A recipient that parses a timestamp value in an HTTP field MUST accept all three HTTP-date formats."
#
#   IMF-fixdate    Sun, 06 Nov 1994 08:49:37 GMT
#   rfc850-date    Sunday, 06-Nov-94 08:49:37 GMT
#   asctime-date   Sun Nov  6 08:49:37 1994


cdef inline int _date_number(const char* at, int digits) noexcept nogil:
    # That many digits, or -1.
    cdef int i, value = 0
    for i in range(digits):
        if not 48 <= at[i] <= 57:
            return -1
        value = 10 * value + (at[i] - 48)
    return value


cdef inline int _date_month(const char* at) noexcept nogil:
    cdef const char* names = b"JanFebMarAprMayJunJulAugSepOctNovDec"
    cdef int i
    for i in range(12):
        if memcmp(at, names + 3 * i, 3) == 0:
            return i + 1
    return -1


cdef inline int _date_time(const char* at) noexcept nogil:
    # "08:49:37" as seconds of the day, or -1. A leap second is the next minute's first.
    cdef int hour = _date_number(at, 2), minute = _date_number(at + 3, 2), second = _date_number(at + 6, 2)
    if at[2] != 58 or at[5] != 58 or not 0 <= hour < 24 or not 0 <= minute < 60 or not 0 <= second <= 60:
        return -1
    return 3600 * hour + 60 * minute + second


cdef inline bint _date_leap(int year) noexcept nogil:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef int64_t _date_seconds(int year, int month, int day, int time) noexcept nogil:
    # Of the proleptic Gregorian calendar; -1 for a day that there is not.
    cdef int* lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    cdef int64_t years = year - 1, days
    cdef int i
    if year < 0 or month < 1 or time < 0 or day < 1:
        return -1
    if day > lengths[month - 1] + (month == 2 and _date_leap(year)):
        return -1
    days = years * 365 + years // 4 - years // 100 + years // 400 - 719162 + day - 1
    for i in range(month - 1):
        days += lengths[i]
    if month > 2 and _date_leap(year):
        days += 1
    return max(<int64_t>0, days * 86400 + time)


cdef int64_t parse_http_date(Span text, int64_t wall_s) noexcept nogil:
    cdef const char* at = text.ptr
    cdef Py_ssize_t name = 0
    cdef int year, this_year, day
    while name < text.len and 65 <= (at[name] & 0xDF) <= 90:
        name += 1
    if name < 3 or name > 9 or name == text.len:
        return -1
    at += name
    if at[0] == 44 and text.len - name == 26 and memcmp(at + 22, b" GMT", 4) == 0:
        # ", 06 Nov 1994 08:49:37 GMT"
        if at[1] != 32 or at[4] != 32 or at[8] != 32 or at[13] != 32:
            return -1
        return _date_seconds(_date_number(at + 9, 4), _date_month(at + 5), _date_number(at + 2, 2), _date_time(at + 14))
    if at[0] == 44 and text.len - name == 24 and memcmp(at + 20, b" GMT", 4) == 0:
        # ", 06-Nov-94 08:49:37 GMT"
        if at[1] != 32 or at[4] != 45 or at[8] != 45 or at[11] != 32:
            return -1
        year = _date_number(at + 9, 2)
        if year < 0:
            return -1
        # "Recipients of a timestamp value in rfc850-date format, which uses a two-digit year, MUST interpret a timestamp
        # that appears to be more than 50 years in the future as representing the most recent year in the past that had
        # the same last two digits."
        this_year = 1970 + <int>(wall_s // 31556952)
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
        return _date_seconds(year, _date_month(at + 5), _date_number(at + 2, 2), _date_time(at + 12))
    if at[0] == 32 and text.len - name == 21:
        # " Nov  6 08:49:37 1994"
        if at[4] != 32 or at[7] != 32 or at[16] != 32:
            return -1
        day = _date_number(at + 6, 1) if at[5] == 32 else _date_number(at + 5, 2)
        return _date_seconds(_date_number(at + 17, 4), _date_month(at + 1), day, _date_time(at + 8))
    return -1


def http_date(text: bytes, wall_s: int) -> int | None:
    """`parse_http_date` for Python: seconds since 1970, or None for what is no HTTP-date."""
    cdef int64_t seconds = parse_http_date(span_of(text, len(text)), wall_s)
    return None if seconds < 0 else seconds
