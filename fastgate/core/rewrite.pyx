# The path that is forwarded, and the Location of a redirect.


cdef class PathRewrite:
    """How a route changes the path.

    match: the route's Match. path: a template with the {name}s of match.path; prefix: stands for the matched prefix, "/" strips
    it. Neither: the path is kept. Raises ValueError for a change that the match cannot give.
    """

    def __init__(self, match: Any, path: str | None = None, prefix: str | None = None) -> None:
        if self._kept is not None:
            raise TypeError("a PathRewrite is immutable")
        self._kept = []
        if path is not None and prefix is not None:
            raise ValueError("path and prefix exclude each other")
        if path is not None:
            self.change = PATH_TEMPLATE
            self._compile_template(match, parse_path_pattern(path))
        elif prefix is not None:
            if match.prefix is None:
                raise ValueError("only a match by prefix has a prefix to replace")
            self.change = PATH_PREFIX
            self._cut = len(parse_prefix(match.prefix))
            self._replacement = self._keep(parse_prefix(prefix))

    def __dealloc__(self) -> None:
        free(self._pieces)

    cdef int _compile_template(self, object match, object pattern) except -1:
        cdef int at = 0
        names = parse_path_pattern(match.path).names if match.path is not None else ()
        literal = b""
        wanted = iter(pattern.names)
        pieces = []
        for segment in pattern.segments:
            literal += b"/"
            if segment is not None:
                literal += segment
                continue
            name = next(wanted)
            if name not in names:
                raise ValueError(f"{{{name}}} is not in match.path")
            pieces += [(-1, literal), (names.index(name), b"")]
            literal = b""
        if literal:
            pieces.append((-1, literal))
        self._pieces = <PathPiece*>_table_array(len(pieces), sizeof(PathPiece))
        self._count = len(pieces)
        for at, (capture, literal) in enumerate(pieces):
            self._pieces[at] = PathPiece(capture, self._keep(literal))
        return 0

    cdef Span _keep(self, bytes text):
        self._kept.append(text)
        return _kept_span(text)

    cdef void write_path(self, const RequestView* view, Out* out) noexcept nogil:
        cdef int i
        if self.change == PATH_KEEP or view.path.len == 0 or view.path.ptr[0] != 47:
            out_span(out, view.path)
        elif self.change == PATH_PREFIX:
            out_span(out, self._replacement)
            if view.path.len > self._cut:
                out_put(out, view.path.ptr + self._cut, <size_t>(view.path.len - self._cut))
            elif self._replacement.len == 0:
                out_byte(out, 47)
        else:
            for i in range(self._count):
                if self._pieces[i].capture < 0:
                    out_span(out, self._pieces[i].text)
                else:
                    out_span(out, view.captures[self._pieces[i].capture])

    cdef void write_target(self, const RequestView* view, Out* out) noexcept nogil:
        self.write_path(view, out)
        if view.query.ptr != NULL:
            out_byte(out, 63)
            out_span(out, view.query)

    def apply(self, bytes path, bytes query=None, captures=()) -> bytes:
        """The forwarded target for a matched path in normal form; for explain and the tests."""
        cdef RequestView view
        cdef Out out = Out(NULL, 0, 0, False)
        _fill_view(&view, b"", path, query, captures)
        try:
            self.write_target(&view, &out)
            return PyBytes_FromStringAndSize(out.data, <Py_ssize_t>out.len)
        finally:
            out_free(&out)


cdef class Redirector:
    """The answer of a route with `redirect`.

    match, redirect: of the route. Raises ValueError for what cannot be compiled. The port of Location: the one given; none when a
    scheme is given; otherwise the request's. A scheme's own port (80, 443) is not written.
    """

    def __init__(self, match: Any, redirect: Any) -> None:
        if self._kept is not None:
            raise TypeError("a Redirector is immutable")
        if redirect.status not in (301, 302, 303, 307, 308):
            raise ValueError(f"{redirect.status} is no redirect status")
        if redirect.scheme not in (None, "http", "https"):
            raise ValueError(f'{redirect.scheme!r} is neither "http" nor "https"')
        if redirect.port is not None and not 1 <= redirect.port <= 65535:
            raise ValueError(f"{redirect.port} is no port")
        self._kept = []
        self.status = redirect.status
        self._path = PathRewrite(match, redirect.path, redirect.prefix)
        self._port = -1 if redirect.port is None else redirect.port
        if redirect.scheme is not None:
            self._kept.append(redirect.scheme.encode())
            self._scheme = _kept_span(self._kept[0])
        if redirect.host is not None:
            wildcard, host = parse_host_pattern(redirect.host)
            if wildcard:
                raise ValueError("a redirect goes to one host")
            self._kept.append(host)
            self._host = _kept_span(host)

    cdef void write_location(
        self, const RequestView* view, Span scheme, Span port, Out* out
    ) noexcept nogil:
        cdef Span host = self._host if self._host.ptr != NULL else view.host
        cdef int64_t number = self._port
        if self._scheme.ptr != NULL:
            scheme = self._scheme
        elif number < 0 and port.ptr != NULL:
            number = parse_decimal(port)
        if host.len:
            out_span(out, scheme)
            out_put(out, b"://", 3)
            out_span(out, host)
            if number >= 0 and number != (443 if scheme.len == 5 else 80):
                out_byte(out, 58)
                out_decimal(out, number)
        if view.path.len == 0 or view.path.ptr[0] != 47:
            out_byte(out, 47)
        else:
            self._path.write_target(view, out)

    def location(
        self, bytes scheme, bytes host, bytes path, bytes query=None, captures=(), bytes port=None
    ) -> bytes:
        """Location for a matched request; for explain and the tests."""
        cdef RequestView view
        cdef Out out = Out(NULL, 0, 0, False)
        cdef Span port_span = span_of(NULL, 0)
        _fill_view(&view, host, path, query, captures)
        if port is not None:
            port_span = _kept_span(port)
        try:
            self.write_location(&view, _kept_span(scheme), port_span, &out)
            return PyBytes_FromStringAndSize(out.data, <Py_ssize_t>out.len)
        finally:
            out_free(&out)


cdef int _fill_view(RequestView* view, bytes host, bytes path, bytes query, captures) except -1:
    # Borrowed: the caller keeps all of them.
    cdef bytes value
    memset(view, 0, sizeof(RequestView))
    view.host = _kept_span(host)
    view.path = _kept_span(path)
    if query is not None:
        view.query = _kept_span(query)
    if len(captures) > MAX_CAPTURES:
        raise ValueError("too many captures")
    for value in captures:
        view.captures[view.capture_count] = _kept_span(value)
        view.capture_count += 1
    return 0


def path_rewrite_of(route: Any) -> PathRewrite:
    """The PathRewrite of a configured route (its `match` and `rewrite`)."""
    rewrite = route.rewrite
    if rewrite is None:
        return PathRewrite(route.match)
    if rewrite.strip_prefix and (rewrite.prefix is not None or rewrite.path is not None):
        raise ValueError("strip_prefix, prefix and path exclude each other")
    return PathRewrite(route.match, rewrite.path, "/" if rewrite.strip_prefix else rewrite.prefix)
