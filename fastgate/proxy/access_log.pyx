# The access log's lines.
#
# A JSON line is written by straight code into room that was reserved once for the worst case (every byte as
# \u00XX), so that nothing is checked on the way; text without anything to escape is copied eight bytes at a
# time. A template is a list of pieces. In both, everything that a client or an upstream chose is escaped as
# inside a JSON string (`out_json`): a line has one line end, at its end, whatever was sent.

from libc.string cimport strlen

ACCESS_LOG_FIELDS: tuple[str, ...] = (
    "time", "request_id", "listener", "client", "client_port", "method", "path", "query", "host", "protocol",
    "route", "upstream", "endpoint", "attempts", "status", "reason", "detail", "bytes_in", "bytes_out",
    "time_queue", "time_connect", "time_upstream_head", "time_total", "tls", "tls_cipher", "sni", "user_agent",
    "consumer", "trace_id", "headers",
)

cdef Span[128] _LOG_REASONS
cdef list _LOG_REASON_BYTES = [info.code.encode() for info in REASONS]


cdef int _log_init() except -1:
    cdef int i
    cdef bytes code
    if len(ACCESS_LOG_FIELDS) != LOG_LITERAL or len(REASONS) > 128:
        raise ImportError("proxy/access_log.pxd and .pyx name different fields")
    for i in range(len(_LOG_REASON_BYTES)):
        code = _LOG_REASON_BYTES[i]
        _LOG_REASONS[i] = span_of(code, len(code))
    return 0


_log_init()


def parse_log_format(format: str) -> list[tuple[str, str]]:
    """The pieces of an access-log template as ("literal", text) and ("field", name). $name or ${name} is a
    field, $$ a dollar sign. ValueError, with the position and what is known, for anything else behind a $,
    for control characters, and for a template without any field."""
    pieces: list[tuple[str, str]] = []
    literal = ""
    at = 0
    while at < len(format):
        char = format[at]
        if ord(char) < 32 or ord(char) == 127:
            raise ValueError(f"a control character at position {at}: a line of the log is one line")
        if char != "$":
            literal += char
            at += 1
            continue
        if format[at + 1 : at + 2] == "$":
            literal += "$"
            at += 2
            continue
        braced = format[at + 1 : at + 2] == "{"
        start = end = at + 1 + braced
        while end < len(format) and (format[end].isascii() and (format[end].isalnum() or format[end] == "_")):
            end += 1
        name = format[start:end]
        if braced and format[end : end + 1] != "}":
            raise ValueError(f"no closing brace for the one at position {at + 1}")
        if name not in ACCESS_LOG_FIELDS:
            raise ValueError(f"no field ${name} (at position {at}); known are {', '.join(ACCESS_LOG_FIELDS)}")
        if literal:
            pieces.append(("literal", literal))
            literal = ""
        pieces.append(("field", name))
        at = end + braced
    if literal:
        pieces.append(("literal", literal))
    if not any(kind == "field" for kind, _ in pieces):
        raise ValueError("a template names no field")
    return pieces


cdef inline char* _log_put(char* at, const char* text) noexcept nogil:
    # For literals: the compiler knows their length.
    cdef size_t length = strlen(text)
    memcpy(at, text, length)
    return at + length


cdef inline char* _log_span(char* at, Span text) noexcept nogil:
    memcpy(at, text.ptr, <size_t>text.len)
    return at + text.len


cdef inline char* _log_two(char* at, uint64_t value) noexcept nogil:
    memcpy(at, &_ADDR_DIGITS[2 * value], 2)
    return at + 2


cdef char* _log_number(char* at, int64_t value) noexcept nogil:
    cdef char[24] digits
    cdef int start = 24
    cdef uint64_t rest = <uint64_t>value
    if 0 <= value < 10:
        at[0] = <char>(48 + value)
        return at + 1
    if value < 0:
        at[0] = 45
        at += 1
        rest = 0 - rest
    while rest >= 10:
        start -= 2
        memcpy(&digits[start], &_ADDR_DIGITS[2 * (rest % 100)], 2)
        rest = rest // 100
    if rest:
        start -= 1
        digits[start] = <char>(48 + rest)
    if digits[start] == 48:
        start += 1
    memcpy(at, &digits[start], <size_t>(24 - start))
    return at + 24 - start


cdef inline char* _log_seconds(char* at, int64_t ns, const char* absent) noexcept nogil:
    # Seconds with six decimals, rounded to the nearest microsecond.
    cdef uint64_t us, fraction
    if ns < 0:
        return _log_put(at, absent)
    us = (<uint64_t>ns + 500) // 1000
    at = _log_number(at, <int64_t>(us // 1000000))
    fraction = us % 1000000
    at[0] = 46
    at = _log_two(at + 1, fraction // 10000)
    at = _log_two(at, fraction // 100 % 100)
    return _log_two(at, fraction % 100)


cdef inline uint64_t _log_special(uint64_t word) noexcept nogil:
    # Not 0 if one of eight bytes is a control, '"', '\\', DEL or not ASCII. (A byte with its high bit set is
    # found by the first term; without one, `x - n` borrows into the high bit only below n.)
    cdef uint64_t ones = <uint64_t>0x0101010101010101U
    cdef uint64_t quote = word ^ (ones * 34), slash = word ^ (ones * 92), delete = word ^ (ones * 127)
    return (
        word
        | ((word - ones * 32) & ~word)
        | ((quote - ones) & ~quote)
        | ((slash - ones) & ~slash)
        | ((delete - ones) & ~delete)
    ) & (ones * 128)


cdef class AccessLog:
    """The access log of a config AccessLog (attributes enabled, path, format, redact_headers, redact_query,
    headers, buffer).

    Opens the file at once (OSError); ValueError for a bad template. Header names are compared without case;
    so are names of query parameters, after percent-decoding, where it is better to hide too much.
    `user_agent` is hidden too if redact_headers names it. dropped: lines lost to a stuck or failing writer.

    previous: the log whose place it takes, or None. If that wrote to the same path its writer goes on: its lines
    stand before those of this one, and no file is opened.
    """

    def __init__(self, config: object, previous: AccessLog | None = None) -> None:
        if self.kept is not None:
            raise TypeError("an AccessLog is built once")
        cdef bytes raw
        cdef list pieces
        cdef int i
        self.kept = []
        self.second = -1
        self.enabled = config.enabled
        self.batch = config.buffer
        redacted = {name.lower() for name in config.redact_headers}
        self.agent_redacted = "user-agent" in redacted
        if len(config.headers) > 64 or len(config.redact_query) > 64:
            raise ValueError("at most 64 headers and 64 query parameters can be named")
        for name in dict.fromkeys(name.lower() for name in config.headers):
            self.header_names[self.header_count] = self._keep(name)
            self.header_redacted[self.header_count] = name in redacted
            self.header_count += 1
            self.header_room += 6 * len(name.encode()) + 32
        for name in config.redact_query:
            self.query_names[self.query_count] = self._keep(name)
            self.query_count += 1
        if config.format != "json":
            pieces = parse_log_format(config.format)
            self.ops = <LogOp*>calloc(<size_t>len(pieces), sizeof(LogOp))
            if self.ops == NULL:
                raise MemoryError
            for i, (kind, text) in enumerate(pieces):
                self.ops[i].field = LOG_LITERAL if kind == "literal" else ACCESS_LOG_FIELDS.index(text)
                if kind == "literal":
                    self.ops[i].text = self._keep(text)
            self.op_count = len(pieces)
        if self.enabled:
            if previous is not None and previous.enabled and previous.writer.path == config.path:
                self.writer = previous.writer
            else:
                self.writer = LogWriter(config.path)

    def __dealloc__(self):
        out_free(&self.out)
        free(self.ops)

    cdef Span _keep(self, str text) except *:
        cdef bytes raw = text.encode()
        self.kept.append(raw)
        return span_of(raw, len(raw))

    cdef void write(self, const ExchangeRecord* record) noexcept nogil:
        if not self.enabled:
            return
        self._line(record)
        if self.out.len >= self.batch:
            self.hand_over()

    cdef void hand_over(self) noexcept nogil:
        if self.out.len:
            self.writer.put(&self.out, self.lines)
            self.lines = 0

    cdef void _line(self, const ExchangeRecord* record) noexcept nogil:
        cdef size_t start = self.out.len
        if self.ops == NULL:
            self._json_line(record)
        else:
            self._template_line(record)
        if self.out.failed:
            # No half line stays; the next one tries again.
            self.out.len = start
            self.out.failed = False
            self.unwritten += 1
            return
        self.lines += 1
        self.written += 1

    cdef char* _time(self, char* at, int64_t unix_ns) noexcept nogil:
        # RFC 3339 in UTC, with milliseconds.
        cdef int64_t second = unix_ns // 1000000000
        cdef int64_t millisecond = unix_ns % 1000000000 // 1000000
        cdef int64_t days, era, year, day_of_era, year_of_era, day_of_year, shifted
        cdef char* text
        if second != self.second:
            # Days to a civil date, with years that begin in March so that the leap day is the last.
            days = second // 86400 + 719468
            era = days // 146097
            day_of_era = days % 146097
            year_of_era = day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
            year_of_era = year_of_era // 365
            day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
            shifted = (5 * day_of_year + 2) // 153
            year = year_of_era + era * 400 + (1 if shifted >= 10 else 0)
            text = _log_two(self.second_text, year // 100)
            text = _log_two(text, year % 100)
            text[0] = 45
            text = _log_two(text + 1, shifted + 3 if shifted < 10 else shifted - 9)
            text[0] = 45
            text = _log_two(text + 1, day_of_year - (153 * shifted + 2) // 5 + 1)
            text[0] = 84
            text = _log_two(text + 1, second // 3600 % 24)
            text[0] = 58
            text = _log_two(text + 1, second // 60 % 60)
            text[0] = 58
            text = _log_two(text + 1, second % 60)
            text[0] = 46
            self.second = second
        memcpy(at, self.second_text, 20)
        at[20] = <char>(48 + millisecond // 100)
        at = _log_two(at + 21, millisecond % 100)
        at[0] = 90
        return at + 1

    cdef char* _text(self, char* at, Span text) noexcept nogil:
        # Needs room for six times the text.
        cdef uint64_t word
        cdef Py_ssize_t i = 0
        while i + 8 <= text.len:
            memcpy(&word, text.ptr + i, 8)
            if _log_special(word):
                break
            memcpy(at + i, &word, 8)
            i += 8
        while i < text.len and not CHAR_CLASS[<unsigned char>text.ptr[i]] & 6:
            at[i] = text.ptr[i]
            i += 1
        if i == text.len:
            return at + i
        self.out.len = <size_t>(at + i - self.out.data)
        out_json(&self.out, span_of(text.ptr + i, text.len - i))
        return self.out.data + self.out.len

    cdef inline char* _quoted(self, char* at, const char* name, Span text) noexcept nogil:
        at = _log_put(at, name)
        if text.ptr == NULL:
            return _log_put(at, b"null")
        at[0] = 34
        at = self._text(at + 1, text)
        at[0] = 34
        return at + 1

    cdef bint _query_redacted(self, Span name) noexcept nogil:
        # RFC 3986 2.1 and the form encoding's "+"; a bad escape stands for itself.
        cdef Py_ssize_t at, k
        cdef int i, c, upper_digit, lower_digit
        cdef Span wanted
        for i in range(self.query_count):
            wanted = self.query_names[i]
            at = 0
            k = 0
            while at < name.len and k < wanted.len:
                c = <unsigned char>name.ptr[at]
                if c == 37 and at + 2 < name.len:
                    upper_digit = _addr_hex(name.ptr[at + 1])
                    lower_digit = _addr_hex(name.ptr[at + 2])
                    if upper_digit >= 0 and lower_digit >= 0:
                        c = upper_digit * 16 + lower_digit
                        at += 2
                elif c == 43:
                    c = 32
                if lower(<unsigned char>c) != lower(<unsigned char>wanted.ptr[k]):
                    break
                at += 1
                k += 1
            if at == name.len and k == wanted.len:
                return True
        return False

    cdef char* _query(self, char* at, Span query) noexcept nogil:
        cdef Py_ssize_t start = 0, end, equals
        if self.query_count == 0:
            return self._text(at, query)
        while start <= query.len:
            # ";" separated parameters once, and some services still read it so.
            end = start
            equals = -1
            while end < query.len and query.ptr[end] != 38 and query.ptr[end] != 59:
                if query.ptr[end] == 61 and equals < 0:
                    equals = end
                end += 1
            if equals >= 0 and self._query_redacted(span_of(query.ptr + start, equals - start)):
                at = self._text(at, span_of(query.ptr + start, equals + 1 - start))
                at = _log_put(at, b"[redacted]")
            else:
                at = self._text(at, span_of(query.ptr + start, end - start))
            if end < query.len:
                at[0] = query.ptr[end]
                at += 1
            start = end + 1
        return at

    cdef char* _headers(self, char* at, const ExchangeRecord* record) noexcept nogil:
        # A JSON object; fields of one name are joined (RFC 9110 5.3), one that was not sent is null.
        cdef int i, k
        cdef bint found
        at[0] = 123
        at += 1
        for i in range(self.header_count):
            if i:
                at[0] = 44
                at += 1
            at[0] = 34
            at = self._text(at + 1, self.header_names[i])
            at = _log_put(at, b'":')
            found = False
            for k in range(record.field_count):
                if not span_equal_nocase(record.fields[k].name, self.header_names[i]):
                    continue
                at = _log_put(at, b", ") if found else _log_put(at, b'"')
                found = True
                if self.header_redacted[i]:
                    at = _log_put(at, b"[redacted]")
                    break
                at = self._text(at, record.fields[k].value)
            at = _log_put(at, b'"') if found else _log_put(at, b"null")
        at[0] = 125
        return at + 1

    cdef void _json_line(self, const ExchangeRecord* record) noexcept nogil:
        cdef Span path = record.target, query = span_of(NULL, 0), agent = record.user_agent
        cdef const char* mark = NULL
        cdef char* at
        cdef size_t text
        cdef int i
        # The fixed part takes up to some 900 bytes, numbers included; a redacted parameter up to 8 for one of
        # its own.
        text = <size_t>(record.request_id.len + record.listener.len + record.route.len + record.upstream.len
                        + record.endpoint.len + record.method.len + record.target.len + record.host.len
                        + record.user_agent.len + record.tls.len + record.tls_cipher.len + record.sni.len
                        + record.detail.len + record.consumer.len)
        if self.header_count:
            for i in range(record.field_count):
                text += <size_t>record.fields[i].value.len + 4
        if not out_reserve(&self.out, 1536 + 8 * text + self.header_room):
            self.out.failed = True
            return
        if path.ptr != NULL:
            mark = <const char*>memchr(path.ptr, 63, <size_t>path.len)
        if mark != NULL:
            query = span_of(mark + 1, path.len - (mark + 1 - path.ptr))
            path.len = mark - path.ptr
        if self.agent_redacted and agent.ptr != NULL:
            agent = span_of(b"[redacted]", 10)
        at = self.out.data + self.out.len
        at = self._time(_log_put(at, b'{"time":"'), record.start_unix_ns)
        at = self._quoted(at, b'","request_id":', record.request_id)
        at = self._quoted(at, b',"listener":', record.listener)
        if record.client.family:
            at = put_address(_log_put(at, b',"client":"'), &record.client)
            at = _log_number(_log_put(at, b'","client_port":'), record.client_port)
        else:
            at = _log_put(at, b',"client":null,"client_port":null')
        at = self._quoted(at, b',"method":', record.method)
        at = self._quoted(at, b',"path":', path)
        if query.ptr == NULL:
            at = _log_put(at, b',"query":null')
        else:
            at = self._query(_log_put(at, b',"query":"'), query)
            at[0] = 34
            at += 1
        at = self._quoted(at, b',"host":', record.host)
        at = _log_put(at, b',"protocol":"HTTP/1.')
        at[0] = <char>(48 + record.http_minor)
        at = self._quoted(at + 1, b'","route":', record.route)
        at = self._quoted(at, b',"upstream":', record.upstream)
        at = self._quoted(at, b',"endpoint":', record.endpoint)
        at = _log_number(_log_put(at, b',"attempts":'), record.attempts)
        at = _log_number(_log_put(at, b',"status":'), record.status)
        if record.reason:
            at = _log_span(_log_put(at, b',"reason":"'), _LOG_REASONS[record.reason])
            at[0] = 34
            at += 1
        else:
            at = _log_put(at, b',"reason":null')
        at = self._quoted(at, b',"detail":', record.detail)
        at = _log_number(_log_put(at, b',"bytes_in":'), record.bytes_in)
        at = _log_number(_log_put(at, b',"bytes_out":'), record.bytes_out)
        at = _log_seconds(_log_put(at, b',"time_queue":'), record.queue_ns, b"null")
        at = _log_seconds(_log_put(at, b',"time_connect":'), record.connect_ns, b"null")
        at = _log_seconds(_log_put(at, b',"time_upstream_head":'), record.upstream_head_ns, b"null")
        at = _log_seconds(_log_put(at, b',"time_total":'), record.total_ns, b"null")
        at = self._quoted(at, b',"tls":', record.tls)
        at = self._quoted(at, b',"tls_cipher":', record.tls_cipher)
        at = self._quoted(at, b',"sni":', record.sni)
        at = self._quoted(at, b',"user_agent":', agent)
        at = self._quoted(at, b',"consumer":', record.consumer)
        if record.trace_id.ptr != NULL:
            at = self._quoted(at, b',"trace_id":', record.trace_id)
        if self.header_count:
            at = self._headers(_log_put(at, b',"headers":'), record)
        at = _log_put(at, b"}\n")
        self.out.len = <size_t>(at - self.out.data)

    cdef char* _value(self, char* at, int field, const ExchangeRecord* record) noexcept nogil:
        # A template's field; "-" for what is absent.
        cdef Span text = span_of(NULL, 0)
        cdef const char* mark = NULL
        if field == LOG_TIME:
            return self._time(at, record.start_unix_ns)
        if field == LOG_CLIENT:
            return put_address(at, &record.client) if record.client.family else _log_put(at, b"-")
        if field == LOG_CLIENT_PORT:
            return _log_number(at, record.client_port) if record.client.family else _log_put(at, b"-")
        if field == LOG_PROTOCOL:
            at = _log_put(at, b"HTTP/1.")
            return _log_number(at, record.http_minor)
        if field == LOG_ATTEMPTS:
            return _log_number(at, record.attempts)
        if field == LOG_STATUS:
            return _log_number(at, record.status)
        if field == LOG_BYTES_IN:
            return _log_number(at, record.bytes_in)
        if field == LOG_BYTES_OUT:
            return _log_number(at, record.bytes_out)
        if field == LOG_TIME_QUEUE:
            return _log_seconds(at, record.queue_ns, b"-")
        if field == LOG_TIME_CONNECT:
            return _log_seconds(at, record.connect_ns, b"-")
        if field == LOG_TIME_UPSTREAM_HEAD:
            return _log_seconds(at, record.upstream_head_ns, b"-")
        if field == LOG_TIME_TOTAL:
            return _log_seconds(at, record.total_ns, b"-")
        if field == LOG_HEADERS:
            return self._headers(at, record)
        if field == LOG_PATH or field == LOG_QUERY:
            text = record.target
            if text.ptr != NULL:
                mark = <const char*>memchr(text.ptr, 63, <size_t>text.len)
            if field == LOG_QUERY:
                if mark == NULL:
                    return _log_put(at, b"-")
                return self._query(at, span_of(mark + 1, text.len - (mark + 1 - text.ptr)))
            if mark != NULL:
                text.len = mark - text.ptr
        elif field == LOG_REQUEST_ID:
            text = record.request_id
        elif field == LOG_LISTENER:
            text = record.listener
        elif field == LOG_METHOD:
            text = record.method
        elif field == LOG_HOST:
            text = record.host
        elif field == LOG_ROUTE:
            text = record.route
        elif field == LOG_UPSTREAM:
            text = record.upstream
        elif field == LOG_ENDPOINT:
            text = record.endpoint
        elif field == LOG_REASON:
            if record.reason:
                text = _LOG_REASONS[record.reason]
        elif field == LOG_DETAIL:
            text = record.detail
        elif field == LOG_CONSUMER:
            text = record.consumer
        elif field == LOG_TRACE_ID:
            text = record.trace_id
        elif field == LOG_TLS:
            text = record.tls
        elif field == LOG_TLS_CIPHER:
            text = record.tls_cipher
        elif field == LOG_SNI:
            text = record.sni
        elif field == LOG_USER_AGENT:
            text = record.user_agent
            if self.agent_redacted and text.ptr != NULL:
                text = span_of(b"[redacted]", 10)
        if text.ptr == NULL:
            return _log_put(at, b"-")
        return self._text(at, text)

    cdef void _template_line(self, const ExchangeRecord* record) noexcept nogil:
        cdef size_t longest = <size_t>max(
            max(max(record.request_id.len, record.listener.len), max(record.route.len, record.upstream.len)),
            max(max(record.endpoint.len, record.method.len), max(record.target.len, record.host.len)),
        )
        cdef size_t fields = 64 + self.header_room
        cdef char* at
        cdef int i
        longest = max(longest, <size_t>record.trace_id.len)
        longest = max(longest, <size_t>max(max(record.user_agent.len, record.consumer.len), max(record.sni.len, record.detail.len)))
        if self.header_count:
            for i in range(record.field_count):
                fields += 8 * (<size_t>record.fields[i].value.len + 4)
        for i in range(self.op_count):
            if self.ops[i].field == LOG_LITERAL:
                out_span(&self.out, self.ops[i].text)
            elif out_reserve(&self.out, 64 + 8 * longest):
                if self.ops[i].field == LOG_HEADERS and not out_reserve(&self.out, fields):
                    break
                at = self._value(self.out.data + self.out.len, self.ops[i].field, record)
                self.out.len = <size_t>(at - self.out.data)
        out_byte(&self.out, 10)

    def log(self, exchange: SampleExchange) -> None:
        """`write` for an exchange made in Python."""
        self.write(&(<SampleExchange?>exchange).record)

    def line(self, exchange: SampleExchange) -> bytes:
        """The line that `log` would write, with its line end; nothing is written."""
        cdef size_t start = self.out.len
        cdef bytes line
        self._line(&(<SampleExchange?>exchange).record)
        line = self.out.data[start : self.out.len]
        self.out.len = start
        self.lines -= 1
        self.written -= 1
        return line

    def flush(self) -> None:
        """Hands the lines written so far to the writer thread; does not wait for it."""
        self.hand_over()

    def reopen(self) -> None:
        """Flushes to the old file, then opens `path` anew (log rotation, SIGUSR1). Does not wait."""
        if self.enabled:
            self.hand_over()
            self.writer.reopen()

    def close(self, timeout: float) -> bool:
        """Flushes and waits for the writer for at most `timeout` seconds; False if it was stuck. Lines logged
        later are dropped and counted."""
        if not self.enabled:
            return True
        self.hand_over()
        return self.writer.close(timeout)

    @property
    def dropped(self) -> int:
        """Lines lost: queue full, file not to be written, writer stuck at the end, no memory."""
        return self.unwritten + (self.writer.dropped if self.enabled else 0)

    @property
    def waiting(self) -> int:
        """Lines handed over to the writer and not written yet."""
        return self.writer.waiting if self.enabled else 0

    @property
    def errors(self) -> int:
        """Failed writes and reopenings."""
        return self.writer.errors if self.enabled else 0
