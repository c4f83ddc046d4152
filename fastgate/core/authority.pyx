# The authority of a request: host and port (RFC 9110 7.2), read for target.pyx.

cdef enum _HostClass:
    _H_BAD
    _H_PLAIN
    _H_UPPER
    _H_DOT
    _H_COLON

cdef uint8_t[256] HOST_CLASS


cdef void _init_host_class() noexcept:
    cdef int c
    for c in range(256):
        HOST_CLASS[c] = _H_BAD
        if 48 <= c <= 57 or 97 <= c <= 122 or c in (45, 95):
            HOST_CLASS[c] = _H_PLAIN
        elif 65 <= c <= 90:
            HOST_CLASS[c] = _H_UPPER
    HOST_CLASS[46] = _H_DOT
    HOST_CLASS[58] = _H_COLON


_init_host_class()


cdef bint _is_ipv4(const unsigned char* p, Py_ssize_t n) noexcept nogil:
    # Four dec-octets without leading zeros (RFC 3986 3.2.2).
    cdef Py_ssize_t i = 0, start
    cdef int value, octet
    for octet in range(4):
        if octet:
            if i >= n or p[i] != 46:
                return False
            i += 1
        start = i
        value = 0
        while i < n and i - start < 3 and 48 <= p[i] <= 57:
            value = value * 10 + p[i] - 48
            i += 1
        if i == start or value > 255 or (p[start] == 48 and i - start > 1):
            return False
    return i == n


cdef bint _is_ipv6(const unsigned char* p, Py_ssize_t n) noexcept nogil:
    # IPv6address (RFC 3986 3.2.2): no zone.
    cdef Py_ssize_t i = 0, start
    cdef int groups = 0
    cdef bint gap = False
    if n < 2:
        return False
    if p[0] == 58:
        if p[1] != 58:
            return False
        gap = True
        i = 2
        if n == 2:
            return True
    while True:
        start = i
        while i < n and i - start < 5 and HEX_VALUE[p[i]] != 255:
            i += 1
        if i < n and p[i] == 46:
            if not _is_ipv4(p + start, n - start):
                return False
            groups += 2
            break
        if i == start or i - start > 4:
            return False
        groups += 1
        if i == n:
            break
        if p[i] != 58 or i + 1 == n:
            return False
        i += 1
        if p[i] == 58:
            if gap:
                return False
            gap = True
            i += 1
            if i == n:
                break
    return groups <= 7 if gap else groups == 8


cdef int _read_authority(Span text, Target* result, Out* scratch, Py_ssize_t* host_at) noexcept nogil:
    # Host = uri-host [ ":" port ] (RFC 9110 7.2). `*host_at` is where in the scratch the lower-case host stands, or -1.
    cdef const unsigned char* p = <const unsigned char*>text.ptr
    cdef Py_ssize_t n = text.len, i = 0, end, k
    cdef bint upper = False
    cdef int number
    cdef uint8_t kind
    host_at[0] = -1
    result.authority = text
    result.port = span_of(NULL, 0)
    if n == 0:
        result.host = span_of(b"", 0)
        return R_NONE
    if p[0] == 91:
        while i < n and p[i] != 93:
            if HOST_CLASS[p[i]] == _H_UPPER:
                upper = True
            i += 1
        if i == n or not _is_ipv6(p + 1, i - 1):
            return _refuse(result, R_HOST_SYNTAX, b"not an IPv6 address in the brackets of the host")
        i += 1
        end = i
        if i < n and p[i] != 58:
            return _refuse(result, R_HOST_SYNTAX, b"more than a port behind the address of the host")
    else:
        while i < n:
            kind = HOST_CLASS[p[i]]
            if kind == _H_PLAIN:
                i += 1
                continue
            if kind == _H_UPPER:
                upper = True
            elif kind == _H_DOT:
                if i == 0 or p[i - 1] == 46:
                    return _refuse(result, R_HOST_SYNTAX, b"an empty label in the host")
            elif kind == _H_COLON:
                break
            else:
                return _refuse(result, R_HOST_SYNTAX, b"a byte that no host name holds")
            i += 1
        end = i
        if end == 0:
            return _refuse(result, R_HOST_SYNTAX, b"a port without a host")
        if p[end - 1] == 46:
            end -= 1
    if end > 255:
        return _refuse(result, R_HOST_SYNTAX, b"the host is over 255 bytes")
    if i < n:
        i += 1
        result.port = span_of(text.ptr + i, n - i)
        number = 0
        if i == n or n - i > 5:
            return _refuse(result, R_HOST_SYNTAX, b"the port of the host is not 1 to 5 digits")
        while i < n:
            if p[i] < 48 or p[i] > 57:
                return _refuse(result, R_HOST_SYNTAX, b"the port of the host is not 1 to 5 digits")
            number = number * 10 + p[i] - 48
            i += 1
        if number > 65535:
            return _refuse(result, R_HOST_SYNTAX, b"the port of the host is over 65535")
    result.host = span_of(text.ptr, end)
    if upper:
        if not out_reserve(scratch, <size_t>end):
            return _refuse(result, R_INTERNAL, b"no memory")
        host_at[0] = <Py_ssize_t>scratch.len
        for k in range(end):
            scratch.data[scratch.len + <size_t>k] = <char>lower(p[k])
        scratch.len += <size_t>end
    return R_NONE
