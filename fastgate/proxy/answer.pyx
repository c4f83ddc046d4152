# What the gateway answers itself: problem+json (RFC 9457), or plain text for a client that takes nothing else.

import http
import orjson

cdef dict PHRASES = {status.value: status.phrase.encode() for status in http.HTTPStatus}
PHRASES[499] = b"Client Closed Request"

cdef tuple PROXY_STATUS = tuple([
    b"" if not info.proxy_error else
    f'Proxy-Status: fastgate; error={info.proxy_error}; details="{info.code}"\r\n'.encode()
    for info in REASONS
])
cdef int[R_COUNT] REASON_STATUS
cdef bint[R_COUNT] REASON_OF_UPSTREAM       # it is an endpoint that has failed
for _reason_index, _reason_info in enumerate(REASONS):
    REASON_STATUS[_reason_index] = _reason_info.status
    REASON_OF_UPSTREAM[_reason_index] = _reason_info.source == "upstream"


cdef Span phrase_of(int status) noexcept:
    # Lives as long as the module does.
    cdef bytes phrase = PHRASES.get(status, b"")
    return bytes_span(phrase)


cdef bint _wants_text(const RequestView* view) noexcept:
    # True when Accept takes text/plain and no kind of JSON (RFC 9110 12.5.1; weights are not looked at: this
    # only chooses the dress of an error).
    cdef bytes accept
    cdef int i
    for i in range(view.field_count):
        if view.fields[i].id == F_ACCEPT:
            accept = span_bytes(view.fields[i].value).lower()
            return b"text/plain" in accept and b"json" not in accept and b"*/*" not in accept \
                and b"application/*" not in accept
    return False


cdef int send_answer(Exchange x, int status, bytes lines, bytes body) except -1:
    # A whole answer of the gateway's own.
    cdef ResponseHead head
    cdef bytes extra
    memset(&head, 0, sizeof(head))
    head.status = status
    head.phrase = phrase_of(status)
    head.lines = bytes_span(lines)
    head.content_length = len(body)
    head.body = BODY_LENGTH if body else BODY_NONE
    if x.view.method_id == METHOD_HEAD:
        head.body = BODY_NONE
        body = b""
    if status == 204 or status == 304:
        head.body = BODY_NONE
        body = b""
        head.content_length = -1
    x.status = status
    x.bytes_out += len(body)
    return x.client.send_head(x, &head, PyBytes_AS_STRING(body), <size_t>len(body), True)


cdef int answer(Exchange x, int status, bytes lines, bytes body) except -1:
    # An answer of the gateway's own, past the plugins; the exchange is over behind it.
    if x.run is not None and x.run.chain.has_response:
        return x.run.own_answer(_own_response(status, lines, body, "gateway", x.reason))
    send_answer(x, status, lines, body)
    return x._finish(now_ns())


cdef int problem_status(Exchange x, int reason) noexcept:
    return REASON_STATUS[reason] if x.own_problem is None else <int>x.own_problem[0]


cdef int send_problem(Exchange x, int reason) except -1:
    cdef int status = problem_status(x, reason)
    cdef tuple parts = problem_parts(x, reason, status, None)
    return send_answer(x, status, parts[0], parts[1])


cdef tuple problem_parts(Exchange x, int reason, int status, str code):
    # Field lines and body. code: in place of the reason's, from a plugin; None: the reason's.
    cdef object info = REASONS[reason]
    cdef bytes phrase = PHRASES.get(status, b"")
    cdef str request_id = PyUnicode_DecodeLatin1(x.request_id, x.request_id_length, NULL)
    cdef bytes body, kind, proxy_status = PROXY_STATUS[reason]
    if code is None:
        code = info.code
    elif code != info.code:
        proxy_status = f'Proxy-Status: fastgate; error={info.proxy_error}; details="{code}"\r\n'.encode("ascii")
    if _wants_text(&x.view):
        kind = b"text/plain; charset=utf-8"
        body = f"{status} {phrase.decode()}\n{code}: {info.cause}\nrequest id: {request_id}\n".encode()
    else:
        kind = b"application/problem+json"
        body = orjson.dumps({
            "type": "about:blank",
            "title": phrase.decode(),
            "status": status,
            "detail": info.cause,
            "code": code,
            "request_id": request_id,
            **({} if x.own_problem is None else x.own_problem[1]),
        })
    lines = [b"Content-Type: ", kind, b"\r\nCache-Control: no-store\r\nX-Request-ID: ", request_id.encode("latin-1"),
             b"\r\n", proxy_status]
    if status == 503:
        lines.append(b"Retry-After: 1\r\n")
    return b"".join(lines), body


cdef int send_continue(Exchange x) except -1:
    # RFC 9110 10.1.1: whoever wants the body now says so, and the next server need not.
    cdef ResponseHead head
    cdef int i
    memset(&head, 0, sizeof(head))
    head.status = 100
    head.phrase = phrase_of(100)
    for i in range(x.view.field_count):
        if x.view.fields[i].id == F_EXPECT:
            x.view.fields[i].drop = 1
    x.facts.expect_continue = False
    return x.client.send_interim(x, &head)
