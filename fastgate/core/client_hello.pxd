# What a TLS ClientHello says before anybody has read it for good: the name of the server that is asked for.

cdef enum:
    HELLO_UNREAD = -1       # not whole in this record, or not plain enough: OpenSSL judges it
    HELLO_NAMELESS = 0

# The name's length, 1 to 255, and the name in `name`, which lives as long as `data`; or one of the above.
cdef Py_ssize_t read_server_name(const unsigned char* data, Py_ssize_t length, Span* name) noexcept nogil
