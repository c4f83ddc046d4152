# What a request is counted, hashed or split by: a hash of some of its parts.

cdef enum:
    KEY_PARTS_MAX = 16

cdef enum KeyPart:
    # What a key is made of, in the order of the configuration.
    KEY_CLIENT_IP
    KEY_CONSUMER
    KEY_HEADER
    KEY_COOKIE
    KEY_PATH
    KEY_QUERY
    KEY_GLOBAL

@cython.final
cdef class RequestKey:
    # -- the parts: kinds, and the name of each (bytes, b"" where it has none)
    cdef int part_count
    cdef int[KEY_PARTS_MAX] part_kind
    cdef tuple part_name
    cdef Span[KEY_PARTS_MAX] part_span  # into part_name
    cdef int ipv6_prefix
    cdef uint64_t[2] seed

    # All parts together. `scope` is hashed before them where it is not 0 (a Route's id: one key for each route).
    cdef Hash128 every(self, const RequestView* view, uint64_t scope) noexcept nogil
    # The first part that the request has, alone. False, and `out` untouched: it has none of them.
    cdef bint first(self, const RequestView* view, Hash128* out) noexcept nogil
    cdef Span _value(self, int part, const RequestView* view) noexcept nogil
    cdef void _client(self, SipState* state, const RequestView* view) noexcept nogil

# The value of the first cookie of that name (RFC 6265 5.4), quotes kept; ptr NULL: there is none.
cdef Span request_cookie(const RequestView* view, Span name) noexcept nogil
# The value of the first query parameter of that name, not decoded; ptr NULL: there is none.
cdef Span request_parameter(const RequestView* view, Span name) noexcept nogil
# What stands for a route in keys and records that outlive a configuration: a hash of its name, never 0.
cdef uint64_t route_id(str name) except 0
