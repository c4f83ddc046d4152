# The objects that plugins work with: see plugin_views.pxd, and fastgate/plugins/api.py for what they promise.

from urllib.parse import parse_qsl


cdef class Request:
    """The request as it will be forwarded; changes hold for later plugins and for the upstream."""

    cdef Exchange _live(self):
        if self.x is None:
            raise RuntimeError(_OVER)
        return self.x

    cdef int _let_go(self, bint keep) except -1:
        if self.x is None:
            return 0
        if keep:
            # Whoever goes on behind the end may still read what the getters gave.
            self.method, self.path, self.raw_query, self.target, self.host, self.authority, self.headers, self.cookies
        if self.head is not None:
            self.head._let_go(keep)
        self.x = None
        self.run = None
        return 0

    cdef int commit(self) except -1:
        cdef Exchange x = self.x
        cdef Headers head = self.head
        cdef bytes block
        cdef const char* at
        cdef Field* field
        cdef int i = 0
        if head is None or not head.changed:
            return 0
        block = head._lines()
        x.make_room(len(head.own))
        at = PyBytes_AS_STRING(block)
        for each in head.own:
            field = &x.fields[i]
            field.name = span_of(at, len(each[1]))
            field.value = span_of(at + field.name.len + 2, len(each[2]))
            field.id = field_id(field.name)
            field.drop = each[3] or (field.id == F_TRACEPARENT and x.traced & TRACED_WRITE)
            field.whole = 1
            at += field.name.len + field.value.len + 4
            i += 1
        x.view.fields = x.fields
        x.view.field_count = i
        x.changed_head = block
        head.changed = False
        self.cookie_values = None
        return 0

    @property
    def method(self):
        if self.method_text is None:
            self.method_text = span_text(self._live().view.method)
        return self.method_text

    @method.setter
    def method(self, str method not None):
        cdef Exchange x = self._live()
        cdef bytes raw = method.encode("ascii", "replace")
        cdef uint8_t known = method_of(bytes_span(raw))
        if not is_token(bytes_span(raw)) or known == METHOD_CONNECT or known == METHOD_TRACE:
            raise ValueError(f"{method!r} is no method that is forwarded")
        if (known == METHOD_HEAD) != (x.view.method_id == METHOD_HEAD):
            raise ValueError("HEAD stays HEAD: the client waits for an answer without a body")
        if x.target.form == TARGET_ASTERISK and known != METHOD_OPTIONS:
            raise ValueError('"*" is asked of OPTIONS alone (RFC 9112 3.2.4)')
        self.run.may_change()
        x.changed_method = raw
        x.view.method = bytes_span(raw)
        x.view.method_id = known
        self.method_text = method

    @property
    def path(self):
        if self.path_text is None:
            self.path_text = span_text(self._live().view.path)
        return self.path_text

    @path.setter
    def path(self, str path not None):
        self._retarget(path, self.raw_query if self._live().view.query.ptr != NULL else None)

    @property
    def raw_query(self):
        if self.query_text is None:
            self.query_text = span_text(self._live().view.query)
        return self.query_text

    @raw_query.setter
    def raw_query(self, str query not None):
        self._retarget(None, query or None)

    def _retarget(self, path, query):
        # path None: as it is; then only the query changes, and a rewrite of the route still holds.
        cdef Exchange x = self._live()
        cdef Target target
        cdef Out scratch
        cdef int reason
        cdef bytes raw
        text = self.path if path is None else path
        if x.target.form == TARGET_ASTERISK:
            raise ValueError('"*" has no path and no query (RFC 9112 3.2.4)')
        if not text.startswith("/") or "?" in text:
            raise ValueError(f'{text!r} is no path: it begins with "/" and holds no "?"')
        self.run.may_change()
        try:
            raw = (text if query is None else f"{text}?{query}").encode("ascii")
        except UnicodeEncodeError:
            raise ValueError("a path and a query are percent-encoded (RFC 3986 2.1)") from None
        memset(&target, 0, sizeof(target))
        memset(&scratch, 0, sizeof(scratch))
        try:
            reason = normalise_target(METHOD_GET, bytes_span(raw), span_of(NULL, 0), &target, &scratch)
            if reason != R_NONE:
                raise ValueError(f"{text!r} can't be forwarded: {REASONS[reason].code}")
            if target.encoded_slash and not x.route.keep_encoded_slash:
                raise ValueError(f"{text!r} holds an encoded slash, which the route refuses")
            x.changed_path = span_bytes(target.path)
            x.changed_query = None if target.query.ptr == NULL else span_bytes(target.query)
        finally:
            out_free(&scratch)
        x.view.path = bytes_span(x.changed_path)
        x.view.query = span_of(NULL, 0) if x.changed_query is None else bytes_span(x.changed_query)
        if path is not None:
            x.path_set = True
        self.path_text = None
        self.query_text = None

    @property
    def query(self):
        return parse_qsl(self.raw_query, keep_blank_values=True, max_num_fields=1000)

    @property
    def target(self):
        if self.target_text is None:
            self.target_text = span_text(self._live().raw_target)
        return self.target_text

    @property
    def host(self):
        if self.host_text is None:
            self.host_text = span_text(self._live().view.host)
        return self.host_text

    @property
    def authority(self):
        if self.authority_text is None:
            self.authority_text = span_text(self._live().target.authority)
        return self.authority_text

    @property
    def scheme(self):
        cdef Exchange x = self._live()
        if x.client_trusted and x.facts.forwarded_proto.ptr != NULL:
            return "https" if span_is(x.facts.forwarded_proto, b"https", 5) else "http"
        return "https" if x.client.secure else "http"

    @property
    def http_version(self):
        return "1.1" if self._live().facts.http_minor else "1.0"

    @property
    def headers(self):
        cdef Exchange x
        if self.head is None:
            x = self._live()
            self.head = _borrowed_headers(x.view.fields, x.view.field_count, x.head)
            self.head.guard = self.run
        return self.head

    @property
    def cookies(self):
        # RFC 6265 5.4 sends one Cookie field; of several (HTTP/2 may split it) all are read.
        cdef dict found
        if self.cookie_values is None:
            found = {}
            for field in self.headers.get_all("cookie"):
                for pair in field.split(";"):
                    name, equals, value = pair.strip(" \t").partition("=")
                    if equals:
                        found.setdefault(name, value)
            self.cookie_values = found
        return self.cookie_values

    @property
    def content_type(self):
        value = self.headers.get("content-type")
        return "" if value is None else value.partition(";")[0].strip(" \t").lower()

    @property
    def has_body(self):
        return self._live().facts.body != BODY_NONE

    @property
    def content_length(self):
        cdef Exchange x = self._live()
        if x.facts.body == BODY_NONE:
            return 0
        return None if x.facts.content_length < 0 else x.facts.content_length

    async def read(self, int64_t limit=-1):
        """The whole body, which is held from then on."""
        if self.whole is None:
            self._live()
            run = self.run
            future = run.gather(limit)
            if future is not None:
                try:
                    await future
                finally:
                    run.gather_over()
            if self.whole is None:
                raise RuntimeError(_OVER)
        return self.whole

    async def json(self):
        """The body, by orjson. ValueError where it is no JSON."""
        return orjson.loads(await self.read())

    @property
    def body(self):
        if self.whole is None:
            if self.has_body:
                raise RuntimeError("the body was not read: `await request.read()` comes first")
            return b""
        return self.whole

    @body.setter
    def body(self, bytes body not None):
        cdef Exchange x = self._live()
        if self.whole is None and x.facts.body != BODY_NONE:
            raise RuntimeError("the body was not read: `await request.read()` comes first")
        if x.upgrading:
            raise RuntimeError("a request for another protocol has no body")    # what reads on there might take it for that
        self.run.may_change()
        x.facts.body = BODY_LENGTH
        x.facts.content_length = len(body)
        self.whole = body
        self.run.body = body


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


cdef class SubResponse:
    """What an upstream answered to a request of the gateway's own. truncated: the body was longer than the limit."""

    def __init__(self, int status, headers, bytes body not None, bint truncated=False):
        self.status = status
        self.headers = _read_only_headers(headers)
        self.body = body
        self.truncated = truncated

    def json(self):
        """The body, by orjson. ValueError where it is no JSON."""
        return orjson.loads(self.body)

    def __repr__(self):
        return f"<SubResponse {self.status}, {len(self.body)} bytes>"


cdef Headers _read_only_headers(fields):
    # Of (name, value) as they came: no rule for what may be set applies.
    cdef Headers headers = Headers.__new__(Headers)
    cdef bytes name
    headers.own = []
    for text, value in fields:
        name = text.encode("latin-1")
        headers.own.append((name.lower(), name, value.encode("latin-1"), 0))
    return headers


cdef class GatewayError:
    """Why the gateway answers itself. code: see docs/reasons.md; detail: for logs alone."""

    def __repr__(self):
        return f"<GatewayError {self.code}>"


cdef GatewayError _gateway_error(int reason, int status, str detail):
    cdef GatewayError error = GatewayError.__new__(GatewayError)
    info = REASONS[reason]
    error.code = info.code
    error.status = status
    error.source = info.source
    error.retryable = info.retryable
    error.detail = detail or ""
    return error


class Refusal(Exception):
    """Raised by a hook in place of the answer that it would return: `answer(exchange)` makes that, a Response."""

    def answer(self, exchange):
        raise NotImplementedError


cdef object _make_gather = None


def gather_with(make not None):
    """`make(exchange, **options)` is what `ExchangeView.gather` gives."""
    global _make_gather
    _make_gather = make


cdef dict _REASON_BY_CODE = {info.code: index for index, info in enumerate(REASONS)}


cdef class ExchangeView:
    """One request and its response through the gateway, as a plugin sees it."""

    cdef Exchange _live(self):
        if self.x is None:
            raise RuntimeError(_OVER)
        return self.x

    cdef int _let_go(self, bint keep) except -1:
        if self.x is None:
            return 0
        if keep:
            self.request
            self.kept = {name: getattr(self, name) for name in (
                "id", "listener", "route", "captures", "upstream", "client_ip", "client_port", "peer_trusted", "tls", "status", "reason",
                "detail", "endpoint", "attempts", "bytes_in", "bytes_out", "duration")}
        if self.seen is not None:
            self.seen._let_go(keep)
        self.x = None
        return 0

    @property
    def request(self):
        cdef Request request
        if self.seen is None:
            request = Request.__new__(Request)
            request.x = self._live()
            request.run = self.run
            self.seen = request
        return self.seen

    @property
    def context(self):
        if self.notes is None:
            self.notes = {}
        return self.notes

    @property
    def consumer(self):
        return self.who

    @consumer.setter
    def consumer(self, consumer):
        cdef Exchange x = self._live()
        cdef str name, plan
        if consumer is None:
            x.consumer_name = None
            x.consumer_plan = None
            x.view.consumer = span_of(NULL, 0)
        else:
            name, plan = consumer.name, consumer.plan
            x.consumer_name = name.encode("utf-8", "surrogateescape")
            x.consumer_plan = plan
            x.view.consumer = bytes_span(x.consumer_name)
        self.who = consumer

    @property
    def id(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["id"]
        x = self._live()
        return PyUnicode_DecodeLatin1(x.request_id, x.request_id_length, NULL)

    @property
    def listener(self):
        return self._live().listener.name if self.kept is None else self.kept["listener"]

    @property
    def route(self):
        return self._live().route.name if self.kept is None else self.kept["route"]

    @property
    def captures(self):
        cdef Exchange x
        cdef int i
        if self.kept is not None:
            return self.kept["captures"]
        x = self._live()
        return {span_text(x.view.capture_names[i]): span_text(x.view.captures[i]) for i in range(x.view.capture_count)}

    @property
    def upstream(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["upstream"]
        x = self._live()
        if x.upstream is not None:
            return x.upstream.name
        return "" if x.route.upstream is None else x.route.upstream.name

    @upstream.setter
    def upstream(self, str name not None):
        cdef Exchange x = self._live()
        self.run.may_change()
        if x.route.action > ACTION_AGGREGATE:
            raise RuntimeError(f"route {x.route.name} asks no upstream")
        x.upstream = <Upstream?>self.run.chain.plugins.upstream(name)

    @property
    def client_ip(self):
        cdef Exchange x
        cdef char[64] text
        cdef char* end
        if self.kept is not None:
            return self.kept["client_ip"]
        x = self._live()
        if x.view.client.family == 0:
            return ""
        end = put_address(text, &x.view.client)
        return text[:end - text].decode("ascii")

    @property
    def client_port(self):
        return self._live().client_port if self.kept is None else self.kept["client_port"]

    @property
    def peer_trusted(self):
        return bool(self._live().client_trusted) if self.kept is None else self.kept["peer_trusted"]

    @property
    def tls(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["tls"]
        x = self._live()
        return None if x.client.tls is None or x.client.tls.version is None else x.client.tls.info()

    @property
    def shared(self):
        # Of the plugin that asks: an on_log that waited may do so while another plugin's hook runs.
        cdef object task = _current_task()
        if self.run is None:
            raise RuntimeError(_OVER)
        return (<_StandIn>task).slot.shared if isinstance(task, _StandIn) else self.run.slot.shared

    def refuse(self, int status, str code not None, str detail="", *, headers=()):
        """An error answer as the gateway's own: problem+json with ``code``, which also stands in log, metric and
        Proxy-Status."""
        cdef Exchange x = self._live()
        cdef int reason = _REASON_BY_CODE.get(code, R_PLUGIN_REFUSED)
        cdef Response response
        cdef tuple parts
        if not 400 <= status <= 599:
            raise ValueError(f"{status} is no status code of a refusal")
        if not is_token(bytes_span(code.encode("ascii", "replace"))):
            raise ValueError(f"{code!r} is no reason code")
        parts = problem_parts(x, reason, status, code)
        response = _own_response(status, parts[0], parts[1], "plugin", reason)
        response.reason_code = code
        response.detail = detail if reason != R_PLUGIN_REFUSED else f"{code}: {detail}" if detail else code
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            if name.lower() == "retry-after":
                response.head[name] = value
            else:
                response.head.add(name, value)
        return response

    async def subrequest(self, str upstream not None, *, str method="GET", str path="/", headers=None, bytes body=b"",
                         double timeout=5.0, int64_t limit=1048576):
        """Asks an upstream of the configuration on the gateway's own pools."""
        return await self._ask(upstream, method, path, headers, body, timeout, limit)

    def _ask(self, str upstream not None, str method not None, str path not None, headers, bytes body not None, double timeout,
             int64_t limit):
        # `subrequest` without a coroutine: a Future, for what asks many.
        cdef Exchange x = self._live()
        return ask_upstream(x.worker, self.run.chain.plugins.upstream(upstream), x, method, path, headers, body, timeout, limit)

    def gather(self, **options):
        """A block of parts that are asked for together: see fastgate/aggregation/gather.py."""
        self._live()
        return _make_gather(self, **options)

    @property
    def time_left(self):
        cdef Exchange x = self._live()
        cdef int64_t now = now_ns()
        cdef int64_t until = now + self.run.slot.timeout_ns
        if self.run.suspended and x.phase_deadline and not self.run.reading:
            until = x.phase_deadline            # the hook's budget runs already
        if x.total_deadline:
            until = min(until, x.total_deadline)
        return max(0, until - now) / 1e9

    # -- at the end ------------------------------------------------------------------------------------------------

    @property
    def status(self):
        return self._live().status if self.kept is None else self.kept["status"]

    @property
    def reason(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["reason"]
        x = self._live()
        return "" if x.reason == R_NONE else REASONS[x.reason].code

    @property
    def detail(self):
        return self._live().detail or "" if self.kept is None else self.kept["detail"]

    @property
    def endpoint(self):
        cdef Exchange x
        if self.kept is not None:
            return self.kept["endpoint"]
        x = self._live()
        return "" if x.endpoint is None else x.endpoint.address

    @property
    def attempts(self):
        return self._live().attempts if self.kept is None else self.kept["attempts"]

    @property
    def bytes_in(self):
        return self._live().bytes_in if self.kept is None else self.kept["bytes_in"]

    @property
    def bytes_out(self):
        return self._live().bytes_out if self.kept is None else self.kept["bytes_out"]

    @property
    def duration(self):
        return (now_ns() - self._live().start_ns) / 1e9 if self.kept is None else self.kept["duration"]
