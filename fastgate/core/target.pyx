# The request target and Host.
#
# Theory of operation. One pass over the path looks for the first byte that is not in normal form; almost always there is
# none and the Span points into the request line. Otherwise the path is written anew into the scratch buffer, segment by
# segment: a segment is written decoded, and only when it is complete is it judged (empty, ".", "..", other), so that a
# dot segment counts however it was encoded. What is refused is refused because two readers could see two paths.

from libc.string cimport memchr, strlen
from typing import NamedTuple

cdef enum _PathClass:
    _P_PLAIN                # pchar (RFC 3986 3.3) that stands for itself
    _P_SLASH
    _P_DOT
    _P_PERCENT
    _P_QUERY
    _P_ENCODE               # not pchar, but sent raw by browsers: percent-encoded
    _P_BAD

cdef uint8_t[256] PATH_CLASS
cdef uint8_t[256] QUERY_BAD         # control, space, "#", not ASCII
cdef uint8_t[256] UNRESERVED        # RFC 3986 2.3
cdef uint8_t[256] HEX_VALUE         # 255: not a hex digit


cdef void _init_target_tables() noexcept:
    cdef int c
    for c in range(256):
        UNRESERVED[c] = 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122 or c in (45, 46, 95, 126)
        PATH_CLASS[c] = _P_PLAIN if UNRESERVED[c] else _P_BAD
        QUERY_BAD[c] = c <= 32 or c >= 127 or c == 35
        HEX_VALUE[c] = 255
        if 48 <= c <= 57:
            HEX_VALUE[c] = c - 48
        elif 65 <= c <= 70 or 97 <= c <= 102:
            HEX_VALUE[c] = (c | 32) - 87
    for c in b"!$&'()*+,;=:@":
        PATH_CLASS[c] = _P_PLAIN
    for c in b'"<>[]^`{|}':
        PATH_CLASS[c] = _P_ENCODE
    PATH_CLASS[47] = _P_SLASH
    PATH_CLASS[46] = _P_DOT
    PATH_CLASS[37] = _P_PERCENT
    PATH_CLASS[63] = _P_QUERY


_init_target_tables()


cdef int _refuse(Target* result, int reason, const char* detail) noexcept nogil:
    result.detail = span_of(detail, <Py_ssize_t>strlen(detail))
    return reason


# ---- path


cdef Py_ssize_t _normal_until(const unsigned char* p, Py_ssize_t n, bint* encoded_slash) noexcept nogil:
    # How far the path is in normal form: n, the "?", or the first byte that asks for a closer look. p[0] is "/".
    cdef Py_ssize_t i = 1, k
    cdef uint8_t kind, high, low
    if n > 1 and p[1] == 47:
        return 1
    while i < n:
        kind = PATH_CLASS[p[i]]
        if kind == _P_PLAIN:
            i += 1
            continue
        if kind == _P_SLASH:
            if p[i - 1] == 47:
                return i
        elif kind == _P_DOT:
            if p[i - 1] == 47:
                # One or two dots and then the segment's end (or what some servers take for one) are not plain.
                k = i + 2 if i + 1 < n and p[i + 1] == 46 else i + 1
                if k >= n or p[k] == 47 or p[k] == 63 or p[k] == 59:
                    return i
                if k + 2 < n and p[k] == 37 and p[k + 1] == 51 and p[k + 2] == 66:
                    return i
        elif kind == _P_PERCENT:
            if i + 2 >= n:
                return i
            high = HEX_VALUE[p[i + 1]]
            low = HEX_VALUE[p[i + 2]]
            if high == 255 or low == 255 or p[i + 1] >= 97 or p[i + 2] >= 97:
                return i
            high = high << 4 | low
            if high == 0 or UNRESERVED[high]:
                return i
            if high == 0x2F or high == 0x5C:
                encoded_slash[0] = True
            i += 2
        else:
            return i
        i += 1
    return n


cdef inline bint _is_slash_escape(const char* p) noexcept nogil:
    # "%2F" or "%5C"; p is at the "%" of an escape.
    return (p[1] == 50 and p[2] == 70) or (p[1] == 53 and p[2] == 67)


cdef bint _dot_piece(const char* p, Py_ssize_t n) noexcept nogil:
    # "." or "..", alone or with path parameters (";", or "%3B", which some servers decode first).
    cdef Py_ssize_t i = 0
    while i < n and i < 2 and p[i] == 46:
        i += 1
    if i == 0:
        return False
    return i == n or p[i] == 59 or (n - i >= 3 and p[i] == 37 and p[i + 1] == 51 and p[i + 2] == 66)


cdef bint _hides_dot_segment(Span path) noexcept nogil:
    # Whether a server that decodes %2F or %5C would see a dot segment.
    cdef Py_ssize_t i = 0, start = 0
    cdef const char* p = path.ptr
    while i <= path.len:
        if i == path.len or p[i] == 47:
            if _dot_piece(p + start, i - start):
                return True
            i += 1
            start = i
        elif p[i] == 37 and _is_slash_escape(p + i):
            if _dot_piece(p + start, i - start):
                return True
            i += 3
            start = i
        else:
            i += 1
    return False


cdef int _write_path(const unsigned char* p, Py_ssize_t n, Target* result, Out* scratch) noexcept nogil:
    # Appends the normal form of the path p[0:n] (p[0] is "/"). It never grows but by percent-encoding.
    cdef Py_ssize_t i, w = 1, segment = 1, length, extra = 0
    cdef uint8_t kind, high, low
    cdef unsigned char c
    cdef char* o
    for i in range(n):
        if PATH_CLASS[p[i]] == _P_ENCODE:
            extra += 2
    if not out_reserve(scratch, <size_t>(n + extra)):
        return _refuse(result, R_INTERNAL, b"no memory")
    o = scratch.data + scratch.len
    o[0] = 47
    i = 1
    while True:
        if i >= n or p[i] == 47:
            length = w - segment
            if length == 1 and o[segment] == 46:
                w = segment
            elif length == 2 and o[segment] == 46 and o[segment + 1] == 46:
                if segment == 1:
                    return _refuse(result, R_TARGET_SYNTAX, b"the path climbs above the root")
                w = segment - 1
                while o[w - 1] != 47:
                    w -= 1
                segment = w
            elif length:
                if _dot_piece(o + segment, length):
                    return _refuse(result, R_TARGET_SYNTAX, b"path parameters on a dot segment")
                if i < n:
                    o[w] = 47
                    w += 1
                    segment = w
            if i >= n:
                break
            i += 1
            continue
        c = p[i]
        kind = PATH_CLASS[c]
        if kind == _P_PLAIN or kind == _P_DOT:
            o[w] = <char>c
            w += 1
            i += 1
            continue
        if kind == _P_PERCENT:
            high = HEX_VALUE[p[i + 1]] if i + 2 < n else 255
            low = HEX_VALUE[p[i + 2]] if i + 2 < n else 255
            if high == 255 or low == 255:
                return _refuse(result, R_TARGET_SYNTAX, b"a bad percent escape in the path")
            c = high << 4 | low
            i += 3
            if c == 0:
                return _refuse(result, R_TARGET_SYNTAX, b"%00 in the path")
            if UNRESERVED[c]:
                o[w] = <char>c
                w += 1
                continue
        elif kind == _P_ENCODE:
            i += 1
        else:
            return _refuse(result, R_TARGET_SYNTAX, b"a byte that no path may hold")
        o[w] = 37
        o[w + 1] = b"0123456789ABCDEF"[c >> 4]
        o[w + 2] = b"0123456789ABCDEF"[c & 15]
        w += 3
    # Only now: a segment that held one may be gone.
    for i in range(w - 2):
        if o[i] == 37 and _is_slash_escape(o + i):
            result.encoded_slash = True
            break
    result.path = span_of(NULL, w)
    result.copied = True
    scratch.len += <size_t>w
    return R_NONE


cdef int _read_path_query(Span text, Target* result, Out* scratch) noexcept nogil:
    # `text` begins with "/". The path's ptr is NULL afterwards when it stands in the scratch (the caller mends it).
    cdef const unsigned char* p = <const unsigned char*>text.ptr
    cdef const void* mark
    cdef bint encoded_slash = False
    cdef Py_ssize_t end, i
    cdef int reason
    end = _normal_until(p, text.len, &encoded_slash)
    result.query = span_of(NULL, 0)
    if end == text.len or p[end] == 63:
        result.path = span_of(text.ptr, end)
        result.encoded_slash = encoded_slash
    else:
        mark = memchr(text.ptr + end, 63, <size_t>(text.len - end))
        end = text.len if mark == NULL else <const char*>mark - text.ptr
        reason = _write_path(p, end, result, scratch)
        if reason != R_NONE:
            return reason
    if end < text.len:
        i = end + 1
        result.query = span_of(text.ptr + i, text.len - i)
        while i < text.len:
            if QUERY_BAD[p[i]]:
                return _refuse(result, R_TARGET_SYNTAX, b"a byte that no query may hold")
            i += 1
    return R_NONE


cdef int _absolute_scheme(Span target, Py_ssize_t* length) noexcept nogil:
    # SCHEME_HTTP or SCHEME_HTTPS when the target begins with it and "://"; the scheme is case-insensitive (RFC 3986 3.1).
    if target.len >= 7 and span_is(span_of(target.ptr, 7), b"http://", 7):
        length[0] = 7
        return SCHEME_HTTP
    if target.len >= 8 and span_is(span_of(target.ptr, 8), b"https://", 8):
        length[0] = 8
        return SCHEME_HTTPS
    return SCHEME_NONE


cdef int normalise_target(
    uint8_t method_id, Span target, Span host, Target* result, Out* scratch
) noexcept nogil:
    cdef Py_ssize_t host_at = -1, path_at = -1, start = 0, end
    cdef Span rest
    cdef int reason
    cdef size_t mark = scratch.len
    result.form = TARGET_ORIGIN
    result.scheme = SCHEME_NONE
    result.encoded_slash = False
    result.copied = False
    result.detail = span_of(NULL, 0)
    # RFC 9112 3.2: an invalid Host is refused even where absolute-form makes it irrelevant.
    reason = _read_authority(host, result, scratch, &host_at)
    if reason != R_NONE:
        return reason
    if target.len > 0 and target.ptr[0] == 47:
        rest = target
    elif target.len == 1 and target.ptr[0] == 42:
        if method_id != METHOD_OPTIONS:
            return _refuse(result, R_TARGET_SYNTAX, b"asterisk-form on a method other than OPTIONS")
        result.form = TARGET_ASTERISK
        rest = span_of(NULL, 0)
    else:
        result.scheme = <uint8_t>_absolute_scheme(target, &start)
        if result.scheme == SCHEME_NONE:
            return _refuse(result, R_TARGET_SYNTAX, b"neither a path nor an http or https URI")
        result.form = TARGET_ABSOLUTE
        end = start
        while end < target.len and target.ptr[end] != 47 and target.ptr[end] != 63 and target.ptr[end] != 35:
            if target.ptr[end] == 64:
                return _refuse(result, R_TARGET_SYNTAX, b"userinfo in the target (RFC 9110 4.2.4)")
            end += 1
        if end == start:
            return _refuse(result, R_TARGET_SYNTAX, b"an http URI with an empty host (RFC 9110 4.2.1)")
        scratch.len = mark
        reason = _read_authority(span_of(target.ptr + start, end - start), result, scratch, &host_at)
        if reason != R_NONE:
            return reason
        rest = span_of(target.ptr + end, target.len - end)
    if rest.len == 0:
        # RFC 9112 3.2.4: the last proxy sends "*" for OPTIONS with an absolute-form without path and query.
        if method_id == METHOD_OPTIONS:
            result.form = TARGET_ASTERISK
        result.path = span_of(b"*", 1) if result.form == TARGET_ASTERISK else span_of(b"/", 1)
        result.query = span_of(NULL, 0)
    elif rest.ptr[0] == 47:
        path_at = <Py_ssize_t>scratch.len
        reason = _read_path_query(rest, result, scratch)
        if reason != R_NONE:
            return reason
    else:
        # "http://host?query": the empty path is "/" (RFC 9110 4.2.3). A "#" here is refused as part of the query.
        result.path = span_of(b"/", 1)
        result.query = span_of(rest.ptr + 1, rest.len - 1)
        if rest.ptr[0] == 35:
            return _refuse(result, R_TARGET_SYNTAX, b"a fragment in the target")
        for end in range(result.query.len):
            if QUERY_BAD[<unsigned char>result.query.ptr[end]]:
                return _refuse(result, R_TARGET_SYNTAX, b"a byte that no query may hold")
    if host_at >= 0:
        result.host.ptr = scratch.data + host_at
    if result.copied:
        result.path.ptr = scratch.data + path_at
    if result.encoded_slash and _hides_dot_segment(result.path):
        return _refuse(result, R_TARGET_SYNTAX, b"a dot segment behind an encoded slash")
    return R_NONE


# ---- for explain, the configuration and the tests


class TargetError(ValueError):
    """A target or Host that fastgate refuses. `reason` is the stable reason code; the message names the rule."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NormalTarget(NamedTuple):
    """What `parse_target` read; see docs/routing.md for the normal form.

    form: "origin", "absolute" or "asterisk". scheme: "http", "https" or "" (not named). query: None without "?".
    copied: whether the path had to be rewritten.
    """

    form: str
    scheme: str
    authority: bytes
    host: bytes
    port: int | None
    path: bytes
    query: bytes | None
    encoded_slash: bool
    copied: bool


def parse_target(bytes target, bytes host=None, bytes method=b"GET"):
    """Read a request target and a Host value (None: no Host) as the gateway does.

    Raises TargetError with the reason code for what is refused.
    """
    cdef Target result
    cdef Out scratch = Out(NULL, 0, 0, False)
    cdef Span host_span = span_of(NULL, 0)
    cdef int reason
    if host is not None:
        host_span = span_of(host, len(host))
    try:
        reason = normalise_target(
            METHOD_OPTIONS if method == b"OPTIONS" else METHOD_GET,
            span_of(target, len(target)), host_span, &result, &scratch,
        )
        if reason != R_NONE:
            raise TargetError(REASONS[reason].code, span_text(result.detail))
        return NormalTarget(
            ("origin", "absolute", "asterisk")[result.form],
            ("", "http", "https")[result.scheme],
            span_bytes(result.authority) if result.authority.ptr != NULL else b"",
            span_bytes(result.host),
            None if result.port.ptr == NULL else int(span_bytes(result.port)),
            span_bytes(result.path),
            None if result.query.ptr == NULL else span_bytes(result.query),
            bool(result.encoded_slash),
            bool(result.copied),
        )
    finally:
        out_free(&scratch)
