# A response as plugins see, change and make it; see plugin_views.pxd.

cdef class Response:
    """An answer on its way to the client."""

    def __cinit__(self):
        self.content_length = -1

    def __init__(self, int status=200, *, headers=(), body=b"", json=..., str content_type=""):
        if not 200 <= status <= 599:
            raise ValueError(f"{status} is no final status code")
        self.code_status = status
        self.made_by = "plugin"
        self.reason_code = "plugin-answered"
        self.reason = R_PLUGIN_ANSWER
        self.head = Headers(headers)
        if json is not ...:
            body = orjson.dumps(json)
            content_type = content_type or "application/json"
        elif isinstance(body, str):
            body = (<str>body).encode()
            content_type = content_type or "text/plain; charset=utf-8"
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes or str, not {type(body).__name__}")
        self.whole = body
        if content_type and "content-type" not in self.head:
            self.head["content-type"] = content_type
        self.body_kind = BODY_LENGTH

    cdef int _fill(self, bytes lines) except -1:
        # Its fields are these lines, each "name: value" CRLF; all were checked before.
        # Memory that headers may go on to borrow without this object, which has them: no circle for the collector to find.
        cdef int count = lines.count(b"\n")
        cdef bytes room = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(<size_t>count * sizeof(Field)))
        cdef Field* fields = <Field*>PyBytes_AS_STRING(room)
        count = split_lines(PyBytes_AS_STRING(lines), len(lines), fields, count)
        if count < 0:
            raise ValueError("not field lines")
        self.block = lines
        self.room = room
        self.head = _borrowed_headers(fields, count, (lines, room))
        return 0

    cdef int to_head(self, ResponseHead* head) except -1:
        # What it says now, for the client's side. Borrowed from this object, which is not to be changed any more.
        memset(head, 0, sizeof(ResponseHead))
        if self.head.own is not None:
            self._fill(self.head._lines())
        self.head.sent = True
        head.status = self.code_status
        head.phrase = phrase_of(self.code_status) if self.phrase is None else bytes_span(self.phrase)
        head.fields = <Field*>PyBytes_AS_STRING(self.room)
        head.field_count = self.head.count
        head.body = self.body_kind
        head.content_length = self.content_length
        head.has_date = self.head.has_name(b"date")
        return 0

    cdef int _may_change(self) except -1:
        if self.head.sent:
            raise RuntimeError(_SENT)
        return 0

    @property
    def status(self):
        return self.code_status

    @status.setter
    def status(self, int status):
        if not 200 <= status <= 599:
            raise ValueError(f"{status} is no final status code")
        if (status in (204, 304)) != (self.code_status in (204, 304)) and self.made_by == "upstream" and not self.replaced:
            raise ValueError("204 and 304 have no body, all others may have one: set `body` first")
        self._may_change()
        self.code_status = status
        self.phrase = None

    @property
    def headers(self):
        return self.head

    @property
    def source(self):
        return self.made_by

    @property
    def code(self):
        return self.reason_code

    @property
    def body(self):
        if self.whole is None:
            raise RuntimeError("the body streams from the upstream: on_response_body sees it")
        return self.whole

    @body.setter
    def body(self, bytes body not None):
        self._may_change()
        self.whole = body
        self.replaced = True
        self.body_kind = BODY_LENGTH
        for name in ("content-encoding", "etag", "digest", "content-digest", "repr-digest"):
            del self.head[name]             # they spoke of the other body

    def __repr__(self):
        return f"<Response {self.code_status} from {self.made_by}>"


cdef Response _response_of(ResponseHead* head):
    # Of an upstream: everything is copied, since a hook may wait while the connection reads on.
    cdef Response response = Response.__new__(Response)
    cdef bytes lines = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>fields_size(head.fields, head.field_count))
    cdef char* start = PyBytes_AS_STRING(lines)
    cdef Py_ssize_t length = copy_fields(start, head.fields, head.field_count, None) - start
    response.code_status = head.status
    response.made_by = "upstream"
    response.reason_code = ""
    response.phrase = span_bytes(head.phrase)
    response.body_kind = head.body
    response.content_length = head.content_length
    response._fill(lines[:length] + span_bytes(head.lines))
    return response


cdef Response _own_response(int status, bytes lines, bytes body, str maker, int reason):
    cdef Response response = Response.__new__(Response)
    response.code_status = status
    response.made_by = maker
    response.reason = reason
    response.reason_code = REASONS[reason].code if reason != R_NONE else ""
    response.whole = body
    response.body_kind = BODY_LENGTH
    response._fill(lines)
    return response


cdef Response _taken(Response given):
    # What a plugin answers. It may give one object to many exchanges, and each changes its own.
    cdef Response response = Response.__new__(Response)
    if given.head is None:
        raise TypeError("a Response that was never initialised")
    if given.whole is None:
        raise TypeError("an upstream's answer, whose body streams, is no answer of a plugin: give it a body first")
    response.code_status = given.code_status
    response.made_by = given.made_by
    response.reason_code = given.reason_code
    response.reason = given.reason
    response.detail = given.detail
    response.phrase = given.phrase
    response.whole = given.whole
    response.body_kind = BODY_LENGTH
    response.room = given.room
    response.block = given.block
    response.head = _copied_headers(given.head)
    return response
