# The PROXY protocol's header: who really connected, told by a load balancer in front of us.

from libc.string cimport memcpy

cdef enum:
    PROXY_V1_MAX = 107              # "PROXY TCP6 " + two full addresses + two ports + CRLF
    PROXY_V2_MAX = 16 + 2048        # TLVs beyond this are no load balancer's


cdef Py_ssize_t _read_v1(const char* data, Py_ssize_t length, ProxyHeader* header) noexcept nogil:
    cdef const char* end
    cdef Span[6] words
    cdef Py_ssize_t i, start = 0, size
    cdef int count = 0
    cdef int64_t port
    cdef Address destination
    end = <const char*>memchr(data, 10, min(length, PROXY_V1_MAX))
    if end == NULL:
        return 0 if length < PROXY_V1_MAX else -1
    size = end - data - 1
    if size < 0 or data[size] != 13:
        return -1
    for i in range(size + 1):
        if i == size or data[i] == 32:
            if count == 6:
                return -1
            words[count] = span_of(data + start, i - start)
            count += 1
            start = i + 1
    if count < 2:
        return -1
    header.source.family = 0
    if words[1].len == 7 and memcmp(words[1].ptr, b"UNKNOWN", 7) == 0:
        return size + 2
    if count != 6 or words[1].len != 4 or memcmp(words[1].ptr, b"TCP", 3) != 0:
        return -1
    port = parse_decimal(words[4])
    if not parse_address(words[2], &header.source) or port < 0 or port > 65535:
        return -1
    if not parse_address(words[3], &destination) or not 0 <= parse_decimal(words[5]) <= 65535:
        return -1
    if header.source.family != words[1].ptr[3] - 48:
        return -1
    header.port = <uint16_t>port
    return size + 2


cdef Py_ssize_t _read_v2(const char* data, Py_ssize_t length, ProxyHeader* header) noexcept nogil:
    cdef const unsigned char* at = <const unsigned char*>data
    cdef Py_ssize_t size
    cdef int i
    if length < 16:
        return 0
    size = 16 + (at[14] << 8 | at[15])
    if at[12] >> 4 != 2 or at[12] & 15 > 1 or size > PROXY_V2_MAX:
        return -1
    if length < size:
        return 0
    header.source.family = 0
    if at[12] & 15 == 0:            # LOCAL: the load balancer's own health check
        return size
    if at[13] == 0x11:              # TCP over IPv4
        if size < 16 + 12:
            return -1
        memset(header.source.bytes, 0, 10)
        header.source.bytes[10] = 255
        header.source.bytes[11] = 255
        memcpy(&header.source.bytes[12], at + 16, 4)
        header.source.family = 4
        header.port = <uint16_t>(at[24] << 8 | at[25])
    elif at[13] == 0x21:            # TCP over IPv6
        if size < 16 + 36:
            return -1
        memcpy(header.source.bytes, at + 16, 16)
        header.source.family = 6
        for i in range(12):         # a mapped address is an IPv4 one, for lists and limits alike
            if header.source.bytes[i] != (255 if i >= 10 else 0):
                break
        else:
            header.source.family = 4
        header.port = <uint16_t>(at[48] << 8 | at[49])
    elif at[13] not in (0x00, 0x12, 0x22, 0x31, 0x32):
        return -1                   # "must be rejected as invalid by receivers"; those five leave the address as it is
    return size


cdef Py_ssize_t read_proxy_header(const char* data, Py_ssize_t length, ProxyHeader* header) noexcept nogil:
    cdef const char* signature = b"\r\n\r\n\x00\r\nQUIT\n"
    cdef Py_ssize_t known = min(length, <Py_ssize_t>12)
    if memcmp(data, signature, known) == 0:
        return _read_v2(data, length, header) if length >= 12 else 0
    known = min(length, <Py_ssize_t>6)
    if memcmp(data, b"PROXY ", known) == 0:
        return _read_v1(data, length, header)
    return -1
