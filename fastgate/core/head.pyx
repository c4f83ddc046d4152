# Reading a head: lines, spans, and the rules of RFC 9112 that go beyond its grammar.

from libc.string cimport memchr, memcmp, memset


cdef Py_ssize_t scan_head(const char* data, Py_ssize_t length, HeadScan* scan, const HeadLimits* limits,
                          int* reason) noexcept nogil:
    cdef const char* found
    cdef Py_ssize_t end
    while True:
        found = <const char*>memchr(data + scan.at, 10, length - scan.at) if scan.at < length else NULL
        if found == NULL:
            scan.at = length
            if scan.lines == 0 and length - scan.line_start > limits.line:
                reason[0] = R_REQUEST_LINE_TOO_LONG
                return -1
            if length > limits.bytes:
                reason[0] = R_HEADER_TOO_LARGE
                return -1
            return 0
        end = found - data
        if end == 0 or data[end - 1] != 13 or (data[scan.line_start] == 13 and end - 1 != scan.line_start):
            # RFC 9112 2.2 lets a recipient take a bare LF for a line's end; we refuse, since others may not. A line
            # that begins with a bare CR is refused at once, since it may be meant as the empty one.
            reason[0] = R_BARE_LF
            return -1
        scan.at = end + 1
        if end - 1 == scan.line_start:
            if scan.lines == 0:
                # One empty line before the request line is passed over (RFC 9112 2.2), a second is refused.
                if scan.line_start > 0:
                    reason[0] = R_REQUEST_LINE_SYNTAX
                    return -1
                scan.line_start = end + 1
                continue
            if end + 1 > limits.bytes:
                reason[0] = R_HEADER_TOO_LARGE
                return -1
            return end + 1
        if scan.lines == 0 and end - 1 - scan.line_start > limits.line:
            reason[0] = R_REQUEST_LINE_TOO_LONG
            return -1
        scan.lines += 1
        if scan.lines - 1 > limits.count:
            reason[0] = R_HEADER_TOO_MANY
            return -1
        scan.line_start = end + 1


cdef inline uint8_t _known(const char* name, Py_ssize_t length, const char* lower_name, uint8_t field) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        if lower(<unsigned char>name[i]) != <unsigned char>lower_name[i]:
            return F_OTHER
    return field


cdef uint8_t field_id(Span name) noexcept nogil:
    # By length and first letter, then one comparison: most names are told apart by the first two.
    cdef const char* p = name.ptr
    cdef unsigned char first = lower(<unsigned char>p[0])
    cdef Py_ssize_t n = name.len
    if n == 2:
        return _known(p, n, b"te", F_TE)
    elif n == 3:
        return _known(p, n, b"via", F_VIA)
    elif n == 4:
        return _known(p, n, b"host", F_HOST) if first == 104 else _known(p, n, b"date", F_DATE)
    elif n == 6:
        if first == 99:
            return _known(p, n, b"cookie", F_COOKIE)
        elif first == 97:
            return _known(p, n, b"accept", F_ACCEPT)
        elif first == 101:
            return _known(p, n, b"expect", F_EXPECT)
        return _known(p, n, b"server", F_SERVER)
    elif n == 7:
        if first == 117:
            return _known(p, n, b"upgrade", F_UPGRADE)
        elif first == 116:
            return _known(p, n, b"trailer", F_TRAILER)
        return _known(p, n, b"referer", F_REFERER)
    elif n == 9:
        return _known(p, n, b"forwarded", F_FORWARDED)
    elif n == 10:
        if first == 99:
            return _known(p, n, b"connection", F_CONNECTION)
        elif first == 107:
            return _known(p, n, b"keep-alive", F_KEEP_ALIVE)
        elif first == 116:
            return _known(p, n, b"tracestate", F_TRACESTATE)
        return _known(p, n, b"user-agent", F_USER_AGENT)
    elif n == 11:
        return _known(p, n, b"traceparent", F_TRACEPARENT)
    elif n == 12:
        if first == 99:
            return _known(p, n, b"content-type", F_CONTENT_TYPE)
        elif first == 120:
            return _known(p, n, b"x-request-id", F_X_REQUEST_ID)
        return _known(p, n, b"max-forwards", F_MAX_FORWARDS)
    elif n == 14:
        return _known(p, n, b"content-length", F_CONTENT_LENGTH) if first == 99 else _known(
            p, n, b"http2-settings", F_HTTP2_SETTINGS)
    elif n == 15:
        return _known(p, n, b"x-forwarded-for", F_X_FORWARDED_FOR)
    elif n == 16:
        if first == 120:
            if p[2] == 102 or p[2] == 70:
                return _known(p, n, b"x-fastgate-trace", F_FASTGATE_TRACE) or _known(
                    p, n, b"x-forwarded-host", F_X_FORWARDED_HOST)
        return _known(p, n, b"proxy-connection", F_PROXY_CONNECTION)
    elif n == 17:
        if first == 116:
            return _known(p, n, b"transfer-encoding", F_TRANSFER_ENCODING)
        return _known(p, n, b"x-forwarded-proto", F_X_FORWARDED_PROTO)
    elif n == 18:
        return _known(p, n, b"proxy-authenticate", F_PROXY_AUTHENTICATE)
    elif n == 19:
        return _known(p, n, b"proxy-authorization", F_PROXY_AUTHORIZATION)
    return F_OTHER


cdef int split_fields(const char* data, Py_ssize_t length, Field* fields, int room) noexcept nogil:
    cdef const char* at = data
    cdef const char* end = data + length
    cdef const char* line_end = <const char*>memchr(at, 10, end - at)
    if line_end != NULL and line_end - at == 1:        # the empty line that may precede a request line
        at = line_end + 1
        line_end = <const char*>memchr(at, 10, end - at)
    if line_end == NULL:
        return -1
    return split_lines(line_end + 1, end - line_end - 1, fields, room)


cdef int split_lines(const char* at, Py_ssize_t length, Field* fields, int room) noexcept nogil:
    cdef const char* end = at + length
    cdef const char* line_end
    cdef const char* colon
    cdef const char* value
    cdef int count = 0
    cdef Field* field
    while at < end:
        if at[0] == 13:
            return count
        line_end = <const char*>memchr(at, 10, end - at)
        if line_end == NULL or count == room:
            return -1
        colon = <const char*>memchr(at, 58, line_end - at)
        if colon == NULL or colon == at or at[0] == 32 or at[0] == 9 or (colon - 1)[0] == 32 or (colon - 1)[0] == 9:
            return -1                                   # RFC 9112 5.1, 5.2: no white space there, no folding
        value = colon + 1
        line_end -= 1                                   # onto the CR
        field = &fields[count]
        field.name = span_of(at, colon - at)
        at = line_end + 2
        # RFC 9112 5.1: optional white space around the value is no part of it.
        while value < line_end and (value[0] == 32 or value[0] == 9):
            value += 1
        while line_end > value and ((line_end - 1)[0] == 32 or (line_end - 1)[0] == 9):
            line_end -= 1
        field.value = span_of(value, line_end - value)
        field.id = field_id(field.name)
        field.drop = 0
        field.whole = value == colon + 2 and colon[1] == 32 and line_end == at - 2
        count += 1
    return count


cdef uint8_t method_of(Span method) noexcept nogil:
    cdef const char* p = method.ptr
    if method.len == 3:
        if memcmp(p, b"GET", 3) == 0:
            return METHOD_GET
        if memcmp(p, b"PUT", 3) == 0:
            return METHOD_PUT
    elif method.len == 4:
        if memcmp(p, b"POST", 4) == 0:
            return METHOD_POST
        if memcmp(p, b"HEAD", 4) == 0:
            return METHOD_HEAD
    elif method.len == 5:
        if memcmp(p, b"PATCH", 5) == 0:
            return METHOD_PATCH
        if memcmp(p, b"TRACE", 5) == 0:
            return METHOD_TRACE
    elif method.len == 6:
        if memcmp(p, b"DELETE", 6) == 0:
            return METHOD_DELETE
    elif method.len == 7:
        if memcmp(p, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        if memcmp(p, b"CONNECT", 7) == 0:
            return METHOD_CONNECT
    return METHOD_OTHER


cdef int split_request_line(const char* data, Py_ssize_t length, Span* method, uint8_t* method_id, Span* target,
                            uint8_t* http_minor) noexcept nogil:
    cdef const char* at = data
    cdef const char* end
    cdef const char* space
    if length > 2 and at[0] == 13 and at[1] == 10:
        at += 2
    end = <const char*>memchr(at, 10, length - (at - data)) - 1
    space = <const char*>memchr(at, 32, end - at)
    if space == NULL:
        return R_REQUEST_LINE_SYNTAX
    method[0] = span_of(at, space - at)
    if not is_token(method[0]):
        return R_REQUEST_LINE_SYNTAX
    method_id[0] = method_of(method[0])
    at = space + 1
    space = <const char*>memchr(at, 32, end - at)
    if space == NULL or space == at:
        return R_REQUEST_LINE_SYNTAX
    target[0] = span_of(at, space - at)
    at = space + 1
    if end - at != 8 or memcmp(at, b"HTTP/", 5) != 0:
        return R_REQUEST_LINE_SYNTAX
    if at[5] != 49 or at[6] != 46 or (at[7] != 48 and at[7] != 49):
        return R_HTTP_VERSION
    http_minor[0] = <uint8_t>(at[7] - 48)
    return R_NONE


cdef int split_status_line(const char* data, Py_ssize_t length, uint8_t* http_minor, Span* phrase) noexcept nogil:
    cdef const char* end = <const char*>memchr(data, 10, length) - 1
    cdef int i, digit, status = 0
    if end - data < 12 or memcmp(data, b"HTTP/1.", 7) != 0 or (data[7] != 48 and data[7] != 49) or data[8] != 32:
        return -1
    http_minor[0] = <uint8_t>(data[7] - 48)
    for i in range(9, 12):
        digit = <int>data[i] - 48
        if digit < 0 or digit > 9:
            return -1
        status = status * 10 + digit
    if status < 100 or status > 599:
        return -1
    if end - data == 12:
        # "SP phrase" may be empty but the space must be there (RFC 9112 4); many servers leave it out, and no two
        # readers can differ on what it means.
        phrase[0] = span_of(data + 12, 0)
        return status
    if data[12] != 32:
        return -1
    phrase[0] = span_of(data + 13, end - data - 13)
    for i in range(<int>phrase.len):
        # reason-phrase = 1*( HTAB / SP / VCHAR / obs-text ), RFC 9112 4; the parser does not look.
        if (<unsigned char>phrase.ptr[i] < 32 and phrase.ptr[i] != 9) or phrase.ptr[i] == 127:
            return -1
    return status


cdef enum:
    MAX_CONNECTION_OPTIONS = 64     # of one field line: each costs a walk over all fields


cdef bint _read_connection(Span value, Field* fields, int count, HeadFacts* facts) noexcept nogil:
    cdef Py_ssize_t at = 0
    cdef Span item
    cdef int i, options = 0
    while next_list_item(value, &at, &item):
        options += 1
        if options > MAX_CONNECTION_OPTIONS:
            return False
        if span_is(item, b"close", 5):
            facts.close = True
        elif span_is(item, b"keep-alive", 10):
            facts.keep_alive = True
        elif span_is(item, b"upgrade", 7):
            facts.connection_upgrade = True
        elif not span_is(item, b"host", 4):
            # RFC 9110 7.6.1: fields that Connection names go no further. Host is kept whatever a client names:
            # it decides the route, here and behind us.
            for i in range(count):
                if span_equal_nocase(fields[i].name, item):
                    fields[i].drop = 1
    return True


cdef int read_request_facts(Field* fields, int count, HeadFacts* facts) noexcept nogil:
    cdef uint8_t minor = facts.http_minor
    cdef int i
    cdef Field* field
    cdef Py_ssize_t at
    cdef Span item
    memset(facts, 0, sizeof(HeadFacts))
    facts.http_minor = minor
    facts.content_length = -1
    facts.max_forwards = -1
    for i in range(count):
        field = &fields[i]
        if field.id == F_OTHER:
            continue
        elif field.id == F_HOST:
            field.drop = 1                      # written anew
            facts.host_count += 1
            facts.host = field.value
        elif field.id == F_CONTENT_LENGTH:
            field.drop = 1
            if facts.content_length >= 0:
                # RFC 9112 6.3 lets equal repeats pass; two are refused all the same: no honest client sends them.
                return R_CONTENT_LENGTH_SYNTAX
            facts.content_length = parse_decimal(field.value)
            if facts.content_length < 0:
                return R_CONTENT_LENGTH_SYNTAX
        elif field.id == F_TRANSFER_ENCODING:
            field.drop = 1
            if facts.has_encoding or not span_is(field.value, b"chunked", 7):
                return R_TRANSFER_ENCODING
            facts.has_encoding = True
        elif field.id == F_CONNECTION:
            field.drop = 1
            if not _read_connection(field.value, fields, count, facts):
                return R_FIELD_SYNTAX
        elif field.id == F_UPGRADE:
            field.drop = 1
            if facts.upgrade.ptr != NULL:
                return R_UPGRADE_SYNTAX
            facts.upgrade = field.value
        elif field.id == F_TE:
            field.drop = 1
            at = 0
            while next_list_item(field.value, &at, &item):
                if span_is(item, b"trailers", 8):
                    facts.te_trailers = True
        elif field.id == F_PROXY_CONNECTION:
            field.drop = 1                      # no standard's, and not for us; but the parser reads it
            facts.proxy_connection = True
        elif field.id in (F_KEEP_ALIVE, F_HTTP2_SETTINGS, F_PROXY_AUTHORIZATION):
            field.drop = 1
        elif field.id == F_EXPECT:
            if minor >= 1:                      # RFC 9110 10.1.1: ignored in HTTP/1.0
                if not span_is(field.value, b"100-continue", 12):
                    return R_EXPECT_UNKNOWN
                facts.expect_continue = True
            else:
                field.drop = 1
        elif field.id == F_USER_AGENT:
            facts.user_agent = field.value
        elif field.id == F_CONTENT_TYPE:
            facts.content_type = field.value
        elif field.id == F_X_FORWARDED_FOR:
            field.drop = 1                      # all four are written anew, from the believed ones
            facts.forwarded_for = field.value
            facts.forwarded_for_count += 1
        elif field.id == F_X_FORWARDED_PROTO:
            field.drop = 1
            facts.forwarded_proto = field.value
        elif field.id == F_X_FORWARDED_HOST:
            field.drop = 1
            facts.forwarded_host = field.value
        elif field.id == F_FORWARDED:
            field.drop = 1
            facts.forwarded = field.value
        elif field.id == F_X_REQUEST_ID:
            field.drop = 1
            facts.request_id = field.value
        elif field.id == F_MAX_FORWARDS:
            facts.max_forwards = parse_decimal(field.value)
            field.drop |= facts.max_forwards >= 0       # a number is written anew, counted down where the method asks for it
    if facts.host_count != 1:
        if facts.host_count > 1:
            return R_HOST_DUPLICATE
        if minor >= 1:
            return R_HOST_MISSING
    if facts.has_encoding:
        if minor == 0:
            return R_ENCODING_HTTP10
        if facts.content_length >= 0:
            return R_LENGTH_AND_ENCODING
        facts.body = BODY_CHUNKED
    elif facts.content_length > 0:
        facts.body = BODY_LENGTH
    else:
        facts.body = BODY_NONE
    if facts.upgrade.ptr != NULL and facts.connection_upgrade:
        # The parser takes whatever follows such a head for the new protocol; a body there is a smuggling path.
        if facts.body != BODY_NONE:
            return R_UPGRADE_WITH_BODY
        if facts.upgrade.len == 0:
            return R_UPGRADE_SYNTAX
    return R_NONE


cdef int read_response_facts(Field* fields, int count, int status, bint head_request,
                             HeadFacts* facts) noexcept nogil:
    cdef uint8_t minor = facts.http_minor
    cdef int i
    cdef Field* field
    memset(facts, 0, sizeof(HeadFacts))
    facts.http_minor = minor
    facts.content_length = -1
    facts.max_forwards = -1
    for i in range(count):
        field = &fields[i]
        if field.id == F_OTHER:
            continue
        elif field.id == F_CONTENT_LENGTH:
            field.drop = 1
            if facts.content_length >= 0:
                return R_UPSTREAM_FRAMING
            facts.content_length = parse_decimal(field.value)
            if facts.content_length < 0:
                return R_UPSTREAM_FRAMING
        elif field.id == F_TRANSFER_ENCODING:
            field.drop = 1
            if facts.has_encoding or not span_is(field.value, b"chunked", 7):
                return R_UPSTREAM_FRAMING
            facts.has_encoding = True
        elif field.id == F_CONNECTION:
            field.drop = 1
            if not _read_connection(field.value, fields, count, facts):
                return R_UPSTREAM_SYNTAX
        elif field.id == F_UPGRADE:
            field.drop = 1
            facts.upgrade = field.value
        elif field.id == F_PROXY_CONNECTION:
            field.drop = 1
            facts.proxy_connection = True
        elif field.id in (F_KEEP_ALIVE, F_TE, F_PROXY_AUTHENTICATE):
            field.drop = 1
        elif field.id == F_CONTENT_TYPE:
            facts.content_type = field.value
        elif field.id == F_DATE:
            facts.has_date = True
    if facts.has_encoding and (minor == 0 or facts.content_length >= 0):
        return R_UPSTREAM_FRAMING
    # RFC 9112 6.3, in its order.
    if head_request or status < 200 or status == 204 or status == 304:
        facts.body = BODY_NONE
    elif facts.has_encoding:
        facts.body = BODY_CHUNKED
    elif facts.content_length >= 0:
        facts.body = BODY_LENGTH if facts.content_length > 0 else BODY_NONE
    else:
        facts.body = BODY_EOF
    return R_NONE
