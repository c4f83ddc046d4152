# The fields of a head as plugins see and set them; see plugin_views.pxd.

cdef str _OVER = "the exchange is over"
cdef str _SENT = "the answer's head is on its way already"

# Fields by which the gateway itself speaks to the next hop, or tells it who the client is: a plugin reads them, and sets none.
# RFC 9110 7.6.1 and 8.6, RFC 9112 6, RFC 7239.
cdef frozenset _OURS = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length",
    b"host", b"expect", b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id",
    b"max-forwards", b"http2-settings",
))


cdef bytes _field_name(object name):
    # As bytes, in the case in which it was given.
    cdef bytes raw
    if not isinstance(name, str):
        raise TypeError(f"a header's name is a str, not {type(name).__name__}")
    try:
        raw = (<str>name).encode("ascii")
    except UnicodeEncodeError:
        raise ValueError(f"{name!r} is no header name (RFC 9110 5.1)") from None
    if not is_token(bytes_span(raw)):
        raise ValueError(f"{name!r} is no header name (RFC 9110 5.1)")
    return raw


cdef bytes _field_value(object value):
    cdef bytes raw
    cdef unsigned char c
    if not isinstance(value, str):
        raise TypeError(f"a header's value is a str, not {type(value).__name__}")
    try:
        raw = (<str>value).strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"a header's value is latin-1, and {value!r} is not") from None
    for c in raw:
        if (c < 32 and c != 9) or c == 127:
            raise ValueError("a header's value holds no control characters (RFC 9110 5.5)")
    return raw


cdef bytes _settable_name(object name):
    cdef bytes raw = _field_name(name)
    if raw.lower() in _OURS:
        raise ValueError(f"{name} is set by the gateway itself")
    return raw


cdef class Headers:
    """Fields of one head, in their order, names in any case. Values are str (latin-1).

    Setting raises ValueError for a name or value that is none (RFC 9110 5.1, 5.5), and for fields by which the gateway
    itself speaks to the next hop.
    """

    def __init__(self, fields=()):
        self.own = []
        self.count = 0
        for name, value in fields.items() if hasattr(fields, "items") else fields:
            self.add(name, value)

    cdef int _materialise(self) except -1:
        cdef int i
        cdef bytes name
        if self.own is not None:
            return 0
        if self.gone:
            raise RuntimeError(_OVER)
        own = []
        for i in range(self.count):
            name = span_bytes(self.fields[i].name)
            own.append((name.lower(), name, span_bytes(self.fields[i].value), self.fields[i].drop))
        self.own = own
        self.fields = NULL
        self.owner = None
        return 0

    cdef int _may_change(self) except -1:
        if self.sent:
            raise RuntimeError(_SENT)
        if self.guard is not None:
            self.guard.may_change()
        return 0

    cdef int _let_go(self, bint keep) except -1:
        self.guard = None
        if keep:
            self._materialise()
        elif self.own is None:
            self.gone = True
            self.count = 0
            self.fields = NULL
            self.owner = None
        return 0

    cdef bytes _lines(self):
        return b"".join([b"%b: %b\r\n" % (each[1], each[2]) for each in self.own])

    cdef bint has_name(self, bytes lower) except -1:
        cdef Span wanted = bytes_span(lower)
        cdef int i
        if self.own is not None:
            for each in self.own:
                if each[0] == lower:
                    return True
            return False
        for i in range(self.count):
            if span_is(self.fields[i].name, wanted.ptr, wanted.len):
                return True
        return False

    def get(self, name, default=None):
        """The first of that name, or ``default``."""
        cdef bytes wanted
        cdef Span span
        cdef int i
        if not isinstance(name, str):
            return default
        wanted = (<str>name).lower().encode("latin-1", "replace")
        if self.own is None:
            if self.gone:
                raise RuntimeError(_OVER)
            span = bytes_span(wanted)
            for i in range(self.count):
                if span_is(self.fields[i].name, span.ptr, span.len):
                    return span_text(self.fields[i].value)
            return default
        for each in self.own:
            if each[0] == wanted:
                return (<bytes>each[2]).decode("latin-1")
        return default

    def get_all(self, str name not None):
        """The values of every field of that name."""
        cdef bytes wanted = name.lower().encode("latin-1", "replace")
        cdef Span span = bytes_span(wanted)
        cdef int i
        if self.own is None:
            if self.gone:
                raise RuntimeError(_OVER)
            return [span_text(self.fields[i].value) for i in range(self.count)
                    if span_is(self.fields[i].name, span.ptr, span.len)]
        return [(<bytes>each[2]).decode("latin-1") for each in self.own if each[0] == wanted]

    def add(self, name, value):
        """One more field beside those of that name."""
        cdef bytes raw = _settable_name(name)
        cdef bytes text = _field_value(value)
        self._may_change()
        self._materialise()
        self.own.append((raw.lower(), raw, text, 0))
        self.changed = True

    def items(self):
        """Every field, names in lower case."""
        cdef int i
        if self.own is None:
            if self.gone:
                raise RuntimeError(_OVER)
            return [(span_text(self.fields[i].name).lower(), span_text(self.fields[i].value)) for i in range(self.count)]
        return [((<bytes>each[0]).decode("ascii"), (<bytes>each[2]).decode("latin-1")) for each in self.own]

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name, value):
        cdef bytes raw = _settable_name(name)
        cdef bytes lower = raw.lower()
        cdef bytes text = _field_value(value)
        cdef list kept = []
        cdef bint placed = False
        self._may_change()
        self._materialise()
        for each in self.own:
            if each[0] != lower:
                kept.append(each)
            elif not placed:
                kept.append((lower, raw, text, 0))
                placed = True
        if not placed:
            kept.append((lower, raw, text, 0))
        self.own = kept
        self.changed = True

    def __delitem__(self, name):
        cdef bytes lower = _settable_name(name).lower()
        self._may_change()
        if self.own is None and not self.gone and not self.has_name(lower):
            return
        self._materialise()
        kept = [each for each in self.own if each[0] != lower]
        if len(kept) != len(self.own):
            self.own = kept
            self.changed = True

    def __contains__(self, name):
        return self.get(name) is not None

    def __iter__(self):
        return iter(dict(self.items()))

    def __len__(self):
        return self.count if self.own is None else len(self.own)

    def __repr__(self):
        return f"<Headers, {len(self)} fields>"         # values may be credentials


cdef Headers _borrowed_headers(const Field* fields, int count, object owner):
    cdef Headers headers = Headers.__new__(Headers)
    headers.fields = fields
    headers.count = count
    headers.owner = owner
    return headers


cdef Headers _copied_headers(Headers given):
    # Its own from now on; what it borrows it goes on to borrow.
    cdef Headers headers = _borrowed_headers(given.fields, given.count, given.owner)
    if given.own is not None:
        headers.own = list(given.own)
    return headers
