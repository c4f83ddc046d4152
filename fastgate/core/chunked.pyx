# Chunked framing (RFC 9112 7.1).
#
#   chunked-body = *chunk last-chunk trailer-section CRLF
#   chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
#   chunk-ext    = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
#
# One deliberate deviation: BWS ("bad" white space, that no sender may make) is refused. Readers differ on it, and where
# readers differ a request can be smuggled. Extensions are checked and dropped (RFC 9112 7.1.1 asks to ignore them).

cdef enum:
    MAX_SIZE_DIGITS = 16
    MAX_EXT_BYTES = 16384


cdef void chunk_start(ChunkReader* reader, const HeadLimits* limits) noexcept nogil:
    reader.place = AT_SIZE
    reader.digits = 0
    reader.ext_bytes = 0
    reader.trailer_lines = 0
    reader.trailer_limit = limits.bytes
    reader.trailer_count = min(limits.count, <int>TRAILER_ROOM)
    reader.left = 0


cdef inline int _hex_value(unsigned char c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    c |= 0x20
    if 97 <= c <= 102:
        return c - 87
    return -1


cdef int chunk_next(ChunkReader* reader, const char* data, Py_ssize_t length, Py_ssize_t* at, Span* payload,
                    Out* trailers) noexcept nogil:
    cdef Py_ssize_t i = at[0], run
    cdef unsigned char c
    cdef int digit
    while i < length:
        if reader.place == AT_DATA:
            run = length - i
            if run > reader.left:
                run = <Py_ssize_t>reader.left
            payload[0] = span_of(data + i, run)
            reader.left -= run
            if reader.left == 0:
                reader.place = AT_DATA_CR
            at[0] = i + run
            return CHUNK_DATA
        c = <unsigned char>data[i]
        i += 1
        if reader.place == AT_SIZE or reader.place == AT_SIZE_MORE:
            digit = _hex_value(c)
            if digit >= 0:
                reader.digits += 1
                # 16 digits hold every size up to 2^64; the top ones must be zero for the sum to stay below 2^62.
                if reader.digits > MAX_SIZE_DIGITS or reader.left >> 58:
                    return CHUNK_BAD
                reader.left = reader.left << 4 | digit
                reader.place = AT_SIZE_MORE
            elif reader.place == AT_SIZE:
                return CHUNK_BAD
            elif c == 13:
                reader.place = AT_SIZE_LF
            elif c == 59:
                reader.place = AT_EXT_NAME
            else:
                return CHUNK_BAD
        elif AT_EXT_NAME <= reader.place <= AT_EXT_CLOSED:
            reader.ext_bytes += 1
            if reader.ext_bytes > MAX_EXT_BYTES:
                return CHUNK_BAD
            if reader.place == AT_EXT_QUOTED:
                if c == 34:
                    reader.place = AT_EXT_CLOSED
                elif c == 92:
                    reader.place = AT_EXT_ESCAPED
                elif c != 9 and (c < 32 or c == 127):
                    return CHUNK_BAD
            elif reader.place == AT_EXT_ESCAPED:
                if c != 9 and (c < 32 or c == 127):
                    return CHUNK_BAD
                reader.place = AT_EXT_QUOTED
            elif is_token_char(c) and reader.place != AT_EXT_CLOSED:
                if reader.place == AT_EXT_NAME:
                    reader.place = AT_EXT_NAME_MORE
                elif reader.place == AT_EXT_VALUE:
                    reader.place = AT_EXT_TOKEN
            elif reader.place == AT_EXT_VALUE and c == 34:
                reader.place = AT_EXT_QUOTED
            elif reader.place == AT_EXT_NAME or reader.place == AT_EXT_VALUE:
                return CHUNK_BAD                # a bare ";" or "="
            elif c == 61 and reader.place == AT_EXT_NAME_MORE:
                reader.place = AT_EXT_VALUE
            elif c == 59:
                reader.place = AT_EXT_NAME
            elif c == 13:
                reader.place = AT_SIZE_LF
            else:
                return CHUNK_BAD
        elif reader.place == AT_SIZE_LF:
            if c != 10:
                return CHUNK_BAD
            reader.digits = 0
            reader.place = AT_DATA if reader.left else AT_TRAILER
        elif reader.place == AT_DATA_CR:
            if c != 13:
                return CHUNK_BAD
            reader.place = AT_DATA_LF
        elif reader.place == AT_DATA_LF:
            if c != 10:
                return CHUNK_BAD
            reader.place = AT_SIZE
        elif reader.place == AT_TRAILER or reader.place == AT_TRAILER_LINE:
            if c == 13:
                reader.place = AT_END_LF if reader.place == AT_TRAILER else AT_TRAILER_LF
                if reader.place == AT_END_LF:
                    continue
            elif c != 9 and (c < 32 or c == 127):
                return CHUNK_BAD
            else:
                reader.place = AT_TRAILER_LINE
            if <int64_t>trailers.len >= reader.trailer_limit or reader.trailer_lines >= reader.trailer_count:
                return CHUNK_TRAILER_TOO_LARGE
            out_byte(trailers, <char>c)
        elif reader.place == AT_TRAILER_LF:
            if c != 10:
                return CHUNK_BAD
            out_byte(trailers, 10)
            reader.trailer_lines += 1
            reader.place = AT_TRAILER
        elif reader.place == AT_END_LF:
            if c != 10:
                return CHUNK_BAD
            reader.place = AT_DONE
            at[0] = i
            return CHUNK_END
        else:
            return CHUNK_BAD
    at[0] = i
    return CHUNK_MORE


cdef int split_trailers(const Out* trailers, Field* fields, int room) noexcept nogil:
    cdef const char* at = trailers.data
    cdef const char* end = trailers.data + trailers.len
    cdef const char* line_end
    cdef const char* colon
    cdef const char* value
    cdef int count = 0
    while at < end:
        line_end = <const char*>memchr(at, 13, end - at)
        if line_end == NULL:
            return -1                           # memory ran out while it was gathered
        colon = <const char*>memchr(at, 58, line_end - at)
        if colon == NULL or count == room:
            return -1
        fields[count].name = span_of(at, colon - at)
        if not is_token(fields[count].name):
            return -1
        at = line_end + 2
        value = colon + 1
        while value < line_end and (value[0] == 32 or value[0] == 9):
            value += 1
        while line_end > value and ((line_end - 1)[0] == 32 or (line_end - 1)[0] == 9):
            line_end -= 1
        fields[count].value = span_of(value, line_end - value)
        fields[count].id = field_id(fields[count].name)
        fields[count].whole = 0
        # RFC 9110 6.5.1: framing, routing and authentication have no place in a trailer. Every field that the
        # gateway itself reads is one of these.
        fields[count].drop = fields[count].id != F_OTHER
        count += 1
    return count


cdef Py_ssize_t gather_chunks(ChunkReader* reader, const char* data, Py_ssize_t length, Span* body, int* event,
                              Out* gathered, Out* trailers, Field* room, int room_size) noexcept nogil:
    cdef Py_ssize_t at = 0
    cdef Span payload
    body[0] = span_of(data, 0)
    gathered.len = 0
    while True:
        event[0] = chunk_next(reader, data, length, &at, &payload, trailers)
        if event[0] != CHUNK_DATA:
            break
        if body.len == 0:
            body[0] = payload
            continue
        if gathered.len == 0:
            out_span(gathered, body[0])
        out_span(gathered, payload)
        body.len += payload.len
    if gathered.len:
        body[0] = span_of(gathered.data, <Py_ssize_t>gathered.len)
    if event[0] == CHUNK_END and split_trailers(trailers, room, room_size) < 0:
        event[0] = CHUNK_BAD
    return at
