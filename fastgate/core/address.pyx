# IP addresses and networks: reading and writing text.

from libc.string cimport memchr, memset

cdef char[200] _ADDR_DIGITS      # two digits for each of 0..99


cdef void _addr_init() noexcept:
    cdef int i
    for i in range(100):
        _ADDR_DIGITS[2 * i] = <char>(48 + i // 10)
        _ADDR_DIGITS[2 * i + 1] = <char>(48 + i % 10)


_addr_init()


cdef bint _addr_parse_v4(const char* at, Py_ssize_t length, uint8_t* octets) noexcept nogil:
    # RFC 3986 3.2.2 IPv4address: dec-octet without leading zeros.
    cdef Py_ssize_t i = 0
    cdef int n, digits, value
    if length < 7 or length > 15:
        return False
    for n in range(4):
        value = 0
        digits = 0
        while i < length and 48 <= at[i] <= 57 and digits < 3:
            value = value * 10 + (at[i] - 48)
            digits += 1
            i += 1
        if digits == 0 or value > 255 or (digits > 1 and at[i - digits] == 48):
            return False
        octets[n] = <uint8_t>value
        if n < 3:
            if i >= length or at[i] != 46:
                return False
            i += 1
    return i == length


cdef inline int _addr_hex(char c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    if 97 <= c <= 102:
        return c - 87
    if 65 <= c <= 70:
        return c - 55
    return -1


cdef bint _addr_parse_v6(const char* at, Py_ssize_t length, uint8_t* octets) noexcept nogil:
    # RFC 4291 2.2: eight groups of one to four hex digits, one "::" for one or more zero groups, the last two
    # groups possibly as dotted IPv4.
    cdef uint8_t[16] head
    cdef int n = 0, gap = -1, digits, value, i
    cdef Py_ssize_t i_at = 0, start
    if length < 2 or length > 45:
        return False
    if at[0] == 58:
        if at[1] != 58:
            return False
        gap = 0
        i_at = 2
    while i_at < length:
        start = i_at
        value = 0
        digits = 0
        while i_at < length and digits < 5 and _addr_hex(at[i_at]) >= 0:
            value = value * 16 + _addr_hex(at[i_at])
            digits += 1
            i_at += 1
        if digits == 0 or digits > 4:
            return False
        if i_at < length and at[i_at] == 46:
            if n > 6 or not _addr_parse_v4(at + start, length - start, &head[2 * n]):
                return False
            n += 2
            break
        if n == 8:
            return False
        head[2 * n] = <uint8_t>(value >> 8)
        head[2 * n + 1] = <uint8_t>(value & 255)
        n += 1
        if i_at == length:
            break
        if at[i_at] != 58:
            return False
        i_at += 1
        if i_at == length:
            return False
        if at[i_at] == 58:
            if gap >= 0:
                return False
            gap = n
            i_at += 1
    if gap < 0:
        if n != 8:
            return False
        gap = 8
    elif n > 7:
        return False
    memset(octets, 0, 16)
    for i in range(2 * gap):
        octets[i] = head[i]
    for i in range(2 * gap, 2 * n):
        octets[16 - 2 * n + i] = head[i]
    return True


cdef inline bint _addr_is_mapped(const uint8_t* octets) noexcept nogil:
    cdef int i
    for i in range(10):
        if octets[i]:
            return False
    return octets[10] == 255 and octets[11] == 255


cdef bint parse_address(Span text, Address* out) noexcept nogil:
    if text.len <= 0 or text.len > 45:
        return False
    if memchr(text.ptr, 58, <size_t>text.len) == NULL:
        memset(out.bytes, 0, 10)
        out.bytes[10] = 255
        out.bytes[11] = 255
        out.family = 4
        return _addr_parse_v4(text.ptr, text.len, &out.bytes[12])
    if not _addr_parse_v6(text.ptr, text.len, out.bytes):
        return False
    out.family = 4 if _addr_is_mapped(out.bytes) else 6
    return True


cdef void mask_address(Address* address, int bits) noexcept nogil:
    cdef int byte = bits >> 3
    if byte >= 16:
        return
    address.bytes[byte] &= <uint8_t>(0xFF00 >> (bits & 7))
    memset(&address.bytes[byte + 1], 0, <size_t>(15 - byte))


cdef bint parse_network(Span text, Address* out, int* bits) noexcept nogil:
    cdef const char* slash
    cdef Span host = text
    cdef Span digits
    cdef int64_t given
    if text.len <= 0:
        return False
    slash = <const char*>memchr(text.ptr, 47, <size_t>text.len)
    if slash != NULL:
        host.len = slash - text.ptr
    if not parse_address(host, out):
        return False
    bits[0] = 32 if out.family == 4 else 128
    if slash == NULL:
        return True
    digits = span_of(slash + 1, text.len - host.len - 1)
    if digits.len > 3 or (digits.len > 1 and digits.ptr[0] == 48):
        return False
    given = parse_decimal(digits)
    if given < 0:
        return False
    if out.family == 4 and memchr(host.ptr, 58, <size_t>host.len) != NULL:
        # Written as IPv6: inside ::ffff:0:0/96 it is an IPv4 network, wider it is an IPv6 one.
        if given > 128:
            return False
        if given >= 96:
            given -= 96
        else:
            out.family = 6
    elif given > bits[0]:
        return False
    bits[0] = <int>given
    mask_address(out, bits[0] + (96 if out.family == 4 else 0))
    return True


cdef inline char* _addr_put_octet(char* at, int value) noexcept nogil:
    if value >= 100:
        at[0] = <char>(48 + value // 100)
        value = value % 100
        at[1] = _ADDR_DIGITS[2 * value]
        at[2] = _ADDR_DIGITS[2 * value + 1]
        return at + 3
    if value >= 10:
        at[0] = _ADDR_DIGITS[2 * value]
        at[1] = _ADDR_DIGITS[2 * value + 1]
        return at + 2
    at[0] = <char>(48 + value)
    return at + 1


cdef char* put_address(char* at, const Address* address) noexcept nogil:
    # RFC 5952 4: lower case, no leading zeros, "::" for the longest run of two or more zero groups, the first
    # of equals.
    cdef int[8] groups
    cdef int i, run = 0, best = 0, best_at = -1, shift
    cdef bint begun
    if address.family == 4:
        for i in range(12, 16):
            at = _addr_put_octet(at, address.bytes[i])
            if i < 15:
                at[0] = 46
                at += 1
        return at
    if address.family != 6:
        return at
    for i in range(8):
        groups[i] = (address.bytes[2 * i] << 8) | address.bytes[2 * i + 1]
        run = run + 1 if groups[i] == 0 else 0
        if run > best:
            best = run
            best_at = i - run + 1
    if best < 2:
        best_at = -1
    i = 0
    while i < 8:
        if i == best_at:
            at[0] = 58
            at[1] = 58
            at += 2
            i += best
            continue
        if i and i != best_at + best:
            at[0] = 58
            at += 1
        begun = False
        for shift in range(12, -4, -4):
            if groups[i] >> shift or shift == 0:
                begun = True
            if begun:
                at[0] = b"0123456789abcdef"[(groups[i] >> shift) & 15]
                at += 1
        i += 1
    return at


cdef void out_address(Out* out, const Address* address) noexcept nogil:
    if out_reserve(out, 39):
        out.len = <size_t>(put_address(out.data + out.len, address) - out.data)


def canonical_address(str text not None) -> str | None:
    """The RFC 5952 text of an IP address (IPv4-mapped IPv6 as IPv4), or None if it is not one, strictly."""
    cdef bytes raw = text.encode("utf-8", "surrogatepass")
    cdef Address address
    cdef char[40] room
    if not parse_address(span_of(raw, len(raw)), &address):
        return None
    return span_text(span_of(room, put_address(room, &address) - room))


def canonical_network(str text not None) -> str | None:
    """The network with the bits behind its prefix cleared, as "address/bits", or None if it is not a CIDR
    network or an address. It differs from `text` where somebody wrote, say, "10.1.2.3/8"."""
    cdef bytes raw = text.encode("utf-8", "surrogatepass")
    cdef Address address
    cdef int bits = 0
    cdef char[40] room
    if not parse_network(span_of(raw, len(raw)), &address, &bits):
        return None
    return f"{span_text(span_of(room, put_address(room, &address) - room))}/{bits}"
