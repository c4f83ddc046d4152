# The PROXY protocol's header (versions 1 and 2, as HAProxy's specification of 2020 defines them).

cdef struct ProxyHeader:
    Address source          # family 0: LOCAL or UNKNOWN, the connection's own address stands
    uint16_t port

# The header's length when it is whole, 0 when more is needed, -1 when this is no PROXY header.
cdef Py_ssize_t read_proxy_header(const char* data, Py_ssize_t length, ProxyHeader* header) noexcept nogil
