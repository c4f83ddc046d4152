# A ClientHello (RFC 8446 4.1.2, of TLS 1.2 alike: RFC 5246 7.4.1.2) in one record, and of it the server_name extension
# (RFC 6066 3). It is read to choose a certificate before OpenSSL begins, not to judge: OpenSSL reads it again, and refuses
# what is wrong. So whatever is unusual is left to it.

cdef enum:
    HELLO_RECORD = 22               # ContentType handshake
    HELLO_TYPE = 1                  # HandshakeType client_hello
    HELLO_FIXED = 34                # legacy_version and random
    EXTENSION_SERVER_NAME = 0
    NAME_HOST = 0
    MAX_SERVER_NAME = 255


cdef inline Py_ssize_t _u16(const unsigned char* at) noexcept nogil:
    return (<Py_ssize_t>at[0] << 8) | at[1]


cdef Py_ssize_t read_server_name(const unsigned char* data, Py_ssize_t length, Span* name) noexcept nogil:
    cdef Py_ssize_t at, end, size, i
    cdef int kind
    if length < 9 or data[0] != HELLO_RECORD or data[5] != HELLO_TYPE:
        return HELLO_UNREAD
    end = 9 + ((<Py_ssize_t>data[6] << 16) | _u16(data + 7))
    if end > 5 + _u16(data + 3) or end > length:
        return HELLO_UNREAD
    at = 9 + HELLO_FIXED
    if at + 1 > end:
        return HELLO_UNREAD
    at += 1 + data[at]                          # legacy_session_id
    if at + 2 > end:
        return HELLO_UNREAD
    at += 2 + _u16(data + at)                   # cipher_suites
    if at + 1 > end:
        return HELLO_UNREAD
    at += 1 + data[at]                          # legacy_compression_methods
    if at == end:
        return HELLO_NAMELESS                   # without extensions
    if at + 2 > end or at + 2 + _u16(data + at) != end:
        return HELLO_UNREAD
    at += 2
    while at + 4 <= end:
        kind = <int>_u16(data + at)
        size = _u16(data + at + 2)
        at += 4
        if size > end - at:
            return HELLO_UNREAD
        if kind == EXTENSION_SERVER_NAME:
            # A list of one name, which is a host's.
            if size < 6 or _u16(data + at) != size - 2 or data[at + 2] != NAME_HOST or _u16(data + at + 3) != size - 5:
                return HELLO_UNREAD
            if size - 5 > MAX_SERVER_NAME:
                return HELLO_UNREAD
            for i in range(at + 5, at + size):
                if not 33 <= data[i] <= 126:
                    return HELLO_UNREAD
            name[0] = span_of(<const char*>data + at + 5, size - 5)
            return size - 5
        at += size
    return HELLO_NAMELESS if at == end else HELLO_UNREAD


def server_name(bytes data not None):
    """The name in small letters that a ClientHello asks for, "" if it names none. None: it is not whole here, or not
    plain. data: what a client has sent first."""
    cdef Span name
    cdef Py_ssize_t size = read_server_name(<const unsigned char*>PyBytes_AS_STRING(data), len(data), &name)
    if size == HELLO_UNREAD:
        return None
    return "" if size == HELLO_NAMELESS else span_text(name).lower()
