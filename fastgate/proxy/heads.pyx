# Heads on their way out: what is forwarded, what is written anew.

cdef inline char* _copy(char* at, const char* text, size_t length) noexcept nogil:
    # With a length that the compiler knows this is a few moves. The caller has reserved the room.
    memcpy(at, text, length)
    return at + length


cdef inline char* _copy_span(char* at, Span text) noexcept nogil:
    if text.len:                    # an absent span's pointer is NULL, which memcpy must not be given
        memcpy(at, text.ptr, <size_t>text.len)
    return at + text.len


cdef inline char* _copy_field(char* at, Span name, Span value) noexcept nogil:
    at = _copy(_copy_span(at, name), b": ", 2)
    return _copy(_copy_span(at, value), b"\r\n", 2)


cdef char* copy_fields(char* at, Field* fields, int count, HeaderRules rules) noexcept:
    # Those that are forwarded, in the order in which they came (RFC 9110 5.3). Needs the length of all of them,
    # with 4 bytes more for each. Lines that stand one behind the other in memory are copied as one.
    cdef const char* run = NULL
    cdef const char* run_end = NULL
    cdef Field* field
    cdef int i
    for i in range(count):
        field = &fields[i]
        if field.drop or (rules is not None and rules.drops(field.name)):
            continue
        if field.whole and field.name.ptr == run_end:
            run_end = field.value.ptr + field.value.len + 2
            continue
        if run != NULL:
            at = _copy(at, run, <size_t>(run_end - run))
            run = NULL
            run_end = NULL
        if field.whole:
            run = field.name.ptr
            run_end = field.value.ptr + field.value.len + 2
        else:
            at = _copy_field(at, field.name, field.value)
    if run != NULL:
        at = _copy(at, run, <size_t>(run_end - run))
    return at


cdef size_t fields_size(const Field* fields, int count) noexcept nogil:
    # What copy_fields may need at the most.
    cdef size_t size = 0
    cdef int i
    for i in range(count):
        size += <size_t>(fields[i].name.len + fields[i].value.len + 4)
    return size


cdef enum:
    ADDRESS_ROOM = 48       # an IPv6 address in brackets and quotes
    HEAD_ROOM = 640         # the fixed words of a head, its numbers and addresses


cdef char* _copy_peer(char* at, const Address* address, bint quoted) noexcept nogil:
    # RFC 7239 6: an IPv6 address stands in brackets and quotes; a Unix socket's peer is "unknown".
    if address.family == 0:
        return _copy(at, b"unknown", 7)
    if quoted and address.family == 6:
        return _copy(put_address(_copy(at, b"\"[", 2), address), b"]\"", 2)
    return put_address(at, address)


cdef char* _copy_list(char* at, Exchange x, int field) noexcept nogil:
    # Several lines of one name are one list (RFC 9110 5.3); what we add comes last.
    cdef int i
    for i in range(x.view.field_count):
        if x.view.fields[i].id == field and x.view.fields[i].value.len:
            at = _copy(_copy_span(at, x.view.fields[i].value), b", ", 2)
    return at


cdef char* _copy_forwarded(char* at, Exchange x, const Address* peer) noexcept:
    # Who the client is, for the upstream: what a trusted proxy said of it, and the peer that we see ourselves.
    cdef HeadFacts* facts = &x.facts
    cdef bint believed = x.client_trusted
    if x.listener.send_x_forwarded:
        at = _copy(at, b"X-Forwarded-For: ", 17)
        if believed and facts.forwarded_for_count:
            at = _copy_list(at, x, F_X_FORWARDED_FOR)
        at = _copy_peer(at, peer, False)
        at = _copy(at, b"\r\nX-Forwarded-Proto: ", 21)
        if believed and facts.forwarded_proto.ptr != NULL:
            at = _copy_span(at, facts.forwarded_proto)
        elif x.client.secure:
            at = _copy(at, b"https", 5)
        else:
            at = _copy(at, b"http", 4)
        if believed and facts.forwarded_host.ptr != NULL:
            at = _copy_span(_copy(at, b"\r\nX-Forwarded-Host: ", 20), facts.forwarded_host)
        elif x.target.authority.len:
            at = _copy_span(_copy(at, b"\r\nX-Forwarded-Host: ", 20), x.target.authority)
        at = _copy(at, b"\r\n", 2)
    if x.listener.send_forwarded:
        at = _copy(at, b"Forwarded: ", 11)
        if believed:
            at = _copy_list(at, x, F_FORWARDED)
        at = _copy_peer(_copy(at, b"for=", 4), peer, True)
        if x.target.authority.len:
            # An authority that passed the Host grammar holds no quote and no backslash.
            at = _copy_span(_copy(at, b";host=\"", 7), x.target.authority)
            at = _copy(at, b"\"", 1)
        at = _copy(at, b";proto=https\r\n", 14) if x.client.secure else _copy(at, b";proto=http\r\n", 13)
    return at


cdef Span _host_for(Exchange x, Endpoint endpoint) noexcept:
    if x.pinned:
        return x.target.authority           # the gateway knew what it asked for
    if x.route.rewrite_host is not None:
        return bytes_span(x.route.rewrite_host)
    if endpoint.upstream.host_mode == HOST_LITERAL:
        return bytes_span(endpoint.upstream.host_literal)
    if endpoint.upstream.host_mode == HOST_CLIENT and x.target.authority.len:
        return x.target.authority
    return span_of(b"localhost", 9) if endpoint.port == 0 else bytes_span(endpoint.address_bytes)


cdef void write_request_head(Out* out, Exchange x, Endpoint endpoint, const Address* peer) noexcept:
    cdef HeadFacts* facts = &x.facts
    cdef Span host = _host_for(x, endpoint)
    cdef HeaderRules rules = x.route.request_rules
    cdef Span chosen
    cdef char* at
    # The forwarded lists are copies of fields too, and the authority is written up to three times.
    cdef size_t room = HEAD_ROOM + 2 * fields_size(x.view.fields, x.view.field_count) + <size_t>(
        x.view.method.len + x.view.path.len + x.view.query.len + host.len + 2 * x.target.authority.len)
    if rules is not None:
        room += <size_t>len(rules.lines)
    if not out_reserve(out, room):
        return
    at = _copy(_copy_span(out.data + out.len, x.view.method), b" ", 1)
    if x.route.rewrite is None or x.path_set or x.target.form == TARGET_ASTERISK:
        at = _copy_span(at, x.view.path)
        if x.view.query.ptr != NULL:
            at = _copy_span(_copy(at, b"?", 1), x.view.query)
    else:
        out.len = <size_t>(at - out.data)
        x.route.rewrite.write_target(&x.view, out)
        if not out_reserve(out, room):
            return
        at = out.data + out.len
    at = _copy_span(_copy(at, b" HTTP/1.1\r\nHost: ", 17), host)
    at = copy_fields(_copy(at, b"\r\n", 2), x.view.fields, x.view.field_count, rules)
    at = _copy_forwarded(at, x, peer)
    # RFC 9110 7.6.3: a gateway MUST send Via on requests; a line of its own goes behind those that came.
    at = _copy(at, b"Via: 1.1 fastgate\r\nX-Request-ID: " if facts.http_minor else
               b"Via: 1.0 fastgate\r\nX-Request-ID: ", 33)
    at = _copy(at, x.request_id, <size_t>x.request_id_length)
    at = _copy(at, b"\r\n", 2)
    if x.traced & TRACED_WRITE:
        at = copy_trace(at, x, rules)
    if facts.body == BODY_CHUNKED:
        at = _copy(at, b"Transfer-Encoding: chunked\r\n", 28)
    elif facts.content_length >= 0:
        at = put_decimal(_copy(at, b"Content-Length: ", 16), facts.content_length)
        at = _copy(at, b"\r\n", 2)
    if facts.max_forwards >= 0:
        # RFC 9110 7.6.2: counted down for OPTIONS (0 was answered by ourselves, unless a plugin made it one), kept for others.
        at = put_decimal(_copy(at, b"Max-Forwards: ", 14),
                         facts.max_forwards - (x.view.method_id == METHOD_OPTIONS and facts.max_forwards > 0))
        at = _copy(at, b"\r\n", 2)
    if x.upgrading:
        chosen = x.chosen_upgrade()
        at = _copy_span(_copy(at, b"Connection: upgrade\r\nUpgrade: ", 30), chosen)
        at = _copy(at, b"\r\n", 2)
    elif facts.te_trailers:
        at = _copy(at, b"TE: trailers\r\nConnection: TE\r\n", 30)
    if rules is not None:
        at = _copy_span(at, bytes_span(rules.lines))
    out.len = <size_t>(_copy(at, b"\r\n", 2) - out.data)


cdef void write_response_head(Out* out, Exchange x, ResponseHead* head, bint chunked, bint close) noexcept:
    # A head for an HTTP/1 client, whole; with `chunked` the body follows in chunks.
    cdef HeaderRules rules = None if x.route is None else x.route.response_rules
    cdef char* at
    cdef size_t room
    if x.traced & TRACED_ASKED and head.status >= 200:
        write_timing(x)
    room = HEAD_ROOM + fields_size(head.fields, head.field_count) + x.extra.len + <size_t>(
        head.phrase.len + head.lines.len)
    if rules is not None:
        room += <size_t>len(rules.lines)
    elif x.route is None and x.listener.hsts is not None:
        room += <size_t>len(x.listener.hsts)
    if not out_reserve(out, room):
        return
    at = put_decimal(_copy(out.data + out.len, b"HTTP/1.1 ", 9), head.status)
    at = _copy_span(_copy(at, b" ", 1), head.phrase)
    at = copy_fields(_copy(at, b"\r\n", 2), head.fields, head.field_count, rules)
    at = _copy_span(at, head.lines)
    if head.status >= 200:
        if chunked:
            at = _copy(at, b"Transfer-Encoding: chunked\r\n", 28)
        elif head.content_length >= 0:
            at = put_decimal(_copy(at, b"Content-Length: ", 16), head.content_length)
            at = _copy(at, b"\r\n", 2)
        elif head.body == BODY_NONE and head.status != 204 and head.status != 304 \
                and x.view.method_id != METHOD_HEAD:
            at = _copy(at, b"Content-Length: 0\r\n", 19)
        if not head.has_date:
            at = _copy(at, x.worker.date(x.start_ns), 37)
        if x.extra.len:
            at = _copy(at, x.extra.data, x.extra.len)
        if rules is not None:
            at = _copy_span(at, bytes_span(rules.lines))
        elif x.route is None and x.listener.hsts is not None and x.client.secure:
            at = _copy_span(at, bytes_span(x.listener.hsts))        # routes have it among their rules
        if close:
            at = _copy(at, b"Connection: close\r\n", 19)
    out.len = <size_t>(_copy(at, b"\r\n", 2) - out.data)


cdef bint write_trailers(Out* out, const Out* trailers, Field* room, int room_size) noexcept nogil:
    # The trailer section that goes on, its last empty line included; False when a line is no field line.
    cdef int i, count = split_trailers(trailers, room, room_size)
    if count < 0:
        return False
    for i in range(count):
        if not room[i].drop:
            out_span(out, room[i].name)
            out_put(out, b": ", 2)
            out_span(out, room[i].value)
            out_put(out, b"\r\n", 2)
    out_put(out, b"\r\n", 2)
    return True


def measure_heads(bytes head not None, HeaderRules rules, int rounds):
    """For the micro-benchmarks: reads a request head and copies the fields that go on, `rounds` times.

    rules: what is dropped on the way, or None. Returns the length of the copy.
    """
    cdef HeadScan scan
    cdef HeadLimits limits
    cdef HeadFacts facts
    cdef Field[128] fields
    cdef Out out
    cdef int i, count = 0, reason = R_NONE
    cdef Py_ssize_t size, length = 0
    memset(&out, 0, sizeof(out))
    limits.line = limits.bytes = 65536
    limits.count = 100
    try:
        for i in range(rounds):
            memset(&scan, 0, sizeof(scan))
            size = scan_head(PyBytes_AS_STRING(head), len(head), &scan, &limits, &reason)
            if size <= 0:
                raise ValueError("not a whole head")
            facts.http_minor = 1
            count = split_fields(PyBytes_AS_STRING(head), size, fields, 128)
            if count < 0 or read_request_facts(fields, count, &facts) != R_NONE:
                raise ValueError("not a request that is forwarded")
            if not out_reserve(&out, fields_size(fields, count)):
                raise MemoryError()
            length = copy_fields(out.data, fields, count, rules) - out.data
        return length
    finally:
        out_free(&out)
