# A request as plugins see and change it; see plugin_views.pxd.

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
