# Heads on their way out: what is forwarded, what is written anew.

cdef inline void _put(Out* out, bytes text) noexcept:
    out_put(out, PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text))


cdef inline void _field(Out* out, Span name, Span value) noexcept nogil:
    cdef size_t need = <size_t>(name.len + value.len + 4)
    cdef char* at
    if not out_reserve(out, need):
        return
    at = out.data + out.len
    memcpy(at, name.ptr, <size_t>name.len)
    at += name.len
    at[0] = 58
    at[1] = 32
    memcpy(at + 2, value.ptr, <size_t>value.len)
    at += 2 + value.len
    at[0] = 13
    at[1] = 10
    out.len += need


cdef void write_fields(Out* out, Field* fields, int count, HeaderRules rules) noexcept:
    # Those that are forwarded, in the order in which they came (RFC 9110 5.3).
    cdef int i
    for i in range(count):
        if fields[i].drop or (rules is not None and rules.drops(fields[i].name)):
            continue
        _field(out, fields[i].name, fields[i].value)


cdef void _write_address(Out* out, const Address* address, bint quoted) noexcept nogil:
    # RFC 7239 6: an IPv6 address stands in brackets and quotes; a Unix socket's peer is "unknown".
    if address.family == 0:
        out_put(out, b"unknown", 7)
    elif quoted and address.family == 6:
        out_put(out, b"\"[", 2)
        out_address(out, address)
        out_put(out, b"]\"", 2)
    else:
        out_address(out, address)


cdef void _write_forwarded(Out* out, Exchange x, const Address* peer) noexcept:
    cdef Listener listener = x.listener
    cdef HeadFacts* facts = &x.facts
    cdef bint believed = x.client_trusted
    cdef int i
    if listener.send_x_forwarded:
        out_put(out, b"X-Forwarded-For: ", 17)
        if believed and facts.forwarded_for_count:
            # Several lines of one name are one list (RFC 9110 5.3).
            for i in range(x.view.field_count):
                if x.view.fields[i].id == F_X_FORWARDED_FOR and x.view.fields[i].value.len:
                    out_span(out, x.view.fields[i].value)
                    out_put(out, b", ", 2)
        _write_address(out, peer, False)
        out_put(out, b"\r\nX-Forwarded-Proto: ", 21)
        if believed and facts.forwarded_proto.ptr != NULL:
            out_span(out, facts.forwarded_proto)
        else:
            out_put(out, b"http", 4)
        if (believed and facts.forwarded_host.ptr != NULL) or x.target.authority.len:
            out_put(out, b"\r\nX-Forwarded-Host: ", 20)
            if believed and facts.forwarded_host.ptr != NULL:
                out_span(out, facts.forwarded_host)
            else:
                out_span(out, x.target.authority)
        out_put(out, b"\r\n", 2)
    if listener.send_forwarded:
        out_put(out, b"Forwarded: ", 11)
        if believed:
            for i in range(x.view.field_count):
                if x.view.fields[i].id == F_FORWARDED and x.view.fields[i].value.len:
                    out_span(out, x.view.fields[i].value)
                    out_put(out, b", ", 2)
        out_put(out, b"for=", 4)
        _write_address(out, peer, True)
        if x.target.authority.len:
            # An authority that passed the Host grammar holds no quote and no backslash.
            out_put(out, b";host=\"", 7)
            out_span(out, x.target.authority)
            out_byte(out, 34)
        out_put(out, b";proto=http\r\n", 13)


cdef void _write_host(Out* out, Exchange x, Endpoint endpoint) noexcept:
    out_put(out, b"Host: ", 6)
    if x.route.rewrite_host is not None:
        _put(out, x.route.rewrite_host)
    elif endpoint.upstream.host_mode == HOST_LITERAL:
        _put(out, endpoint.upstream.host_literal)
    elif endpoint.upstream.host_mode == HOST_CLIENT and x.target.authority.len:
        out_span(out, x.target.authority)
    elif endpoint.unix_path is not None:
        out_put(out, b"localhost", 9)
    else:
        _put(out, endpoint.address_bytes)
    out_put(out, b"\r\n", 2)


cdef void write_request_head(Out* out, Exchange x, Endpoint endpoint, const Address* peer) noexcept:
    cdef HeadFacts* facts = &x.facts
    cdef Span chosen
    out_span(out, x.view.method)
    out_byte(out, 32)
    if x.route.rewrite is None or x.target.form == TARGET_ASTERISK:
        out_span(out, x.view.path)
        if x.view.query.ptr != NULL:
            out_byte(out, 63)
            out_span(out, x.view.query)
    else:
        x.route.rewrite.write_target(&x.view, out)
    out_put(out, b" HTTP/1.1\r\n", 11)
    _write_host(out, x, endpoint)
    write_fields(out, x.view.fields, x.view.field_count, x.route.request_rules)
    _write_forwarded(out, x, peer)
    # RFC 9110 7.6.3: a gateway MUST send Via on requests; a line of its own goes behind those that came.
    if facts.http_minor:
        out_put(out, b"Via: 1.1 fastgate\r\nX-Request-ID: ", 33)
    else:
        out_put(out, b"Via: 1.0 fastgate\r\nX-Request-ID: ", 33)
    out_put(out, x.request_id, <size_t>x.request_id_length)
    out_put(out, b"\r\n", 2)
    if facts.body == BODY_LENGTH:
        out_put(out, b"Content-Length: ", 16)
        out_decimal(out, facts.content_length)
        out_put(out, b"\r\n", 2)
    elif facts.body == BODY_CHUNKED:
        out_put(out, b"Transfer-Encoding: chunked\r\n", 28)
    elif facts.content_length == 0:
        out_put(out, b"Content-Length: 0\r\n", 19)
    if facts.max_forwards > 0 and x.view.method_id == METHOD_OPTIONS:
        out_put(out, b"Max-Forwards: ", 14)
        out_decimal(out, facts.max_forwards - 1)
        out_put(out, b"\r\n", 2)
    if x.upgrading:
        chosen = x.chosen_upgrade()
        out_put(out, b"Connection: upgrade\r\nUpgrade: ", 30)
        out_span(out, chosen)
        out_put(out, b"\r\n", 2)
    elif facts.te_trailers:
        out_put(out, b"TE: trailers\r\nConnection: TE\r\n", 30)
    if x.route.request_rules is not None:
        _put(out, x.route.request_rules.lines)
    out_put(out, b"\r\n", 2)


cdef void write_status_line(Out* out, int status, Span phrase) noexcept nogil:
    out_put(out, b"HTTP/1.1 ", 9)
    out_decimal(out, status)
    out_byte(out, 32)
    out_span(out, phrase)
    out_put(out, b"\r\n", 2)


cdef bint write_trailers(Out* out, const Out* trailers, Field* room, int room_size) noexcept nogil:
    # The trailer section that goes on, its last empty line included; False when a line is no field line.
    cdef int i, count = split_trailers(trailers, room, room_size)
    if count < 0:
        return False
    for i in range(count):
        if not room[i].drop:
            _field(out, room[i].name, room[i].value)
    out_put(out, b"\r\n", 2)
    return True
