# Chunked framing, read to the letter of RFC 9112 7.1, byte by byte where a byte decides.

cdef enum ChunkEvent:
    CHUNK_MORE              # the input is used up
    CHUNK_DATA              # `payload` is a run of body bytes, borrowed from the input
    CHUNK_END               # the body and its trailer section are over
    CHUNK_BAD               # the grammar is broken
    CHUNK_TRAILER_TOO_LARGE

cdef enum ChunkPlace:
    # Where the decoder stands; the names follow the grammar's.
    AT_SIZE                 # chunk-size, first digit still missing
    AT_SIZE_MORE            # chunk-size, one digit or more seen
    AT_EXT_NAME             # behind ";"
    AT_EXT_NAME_MORE
    AT_EXT_VALUE            # behind "="
    AT_EXT_TOKEN
    AT_EXT_QUOTED
    AT_EXT_ESCAPED          # behind "\" in a quoted string
    AT_EXT_CLOSED           # behind the closing quote
    AT_SIZE_LF
    AT_DATA
    AT_DATA_CR
    AT_DATA_LF
    AT_TRAILER              # at the start of a trailer line
    AT_TRAILER_LINE
    AT_TRAILER_LF
    AT_END_LF
    AT_DONE

cdef enum:
    TRAILER_ROOM = 128      # trailer fields of one message

cdef struct ChunkReader:
    uint8_t place           # ChunkPlace
    uint8_t digits          # of the size in hand
    uint32_t ext_bytes      # extensions of the whole body: bounded, since nobody needs them
    uint16_t trailer_lines
    int64_t trailer_limit   # bytes of the trailer section
    int trailer_count       # its lines
    int64_t left            # of the chunk in hand

# Trailers are held to the limits of a head, and to TRAILER_ROOM lines.
cdef void chunk_start(ChunkReader* reader, const HeadLimits* limits) noexcept nogil
# Reads on from data[at[0]]; moves `at` behind what it has used. Trailer lines (with their CRLF) are gathered in
# `trailers`, to be read by `split_trailers` at CHUNK_END.
cdef int chunk_next(ChunkReader* reader, const char* data, Py_ssize_t length, Py_ssize_t* at, Span* payload,
                    Out* trailers) noexcept nogil
# Field lines of a trailer section into `fields`; marks those that may not stand there (RFC 9110 6.5.1) with `drop`.
# Their number, or -1 when a line is not a field line.
cdef int split_trailers(const Out* trailers, Field* fields, int room) noexcept nogil

# Reads all of `data` (or up to the body's end) at once. `body` is the run of body bytes: where it lies, or joined in
# `gathered` when there were several, so that they go on as one chunk. `event` is CHUNK_MORE, CHUNK_END or why not; the
# trailers have been checked at CHUNK_END. Returns the number of bytes used.
cdef Py_ssize_t gather_chunks(ChunkReader* reader, const char* data, Py_ssize_t length, Span* body, int* event,
                              Out* gathered, Out* trailers, Field* room, int room_size) noexcept nogil
