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
    # -- for KEY_PATH: the position of each part's {NAME} among the route's captures; -1: the route has none.
    # part_count entries for each route.
    cdef int16_t* captures
    cdef int routes

    # All parts together. `scope` is hashed before them where it is not negative (one key for each route).
    # `route_index` is the one given to bind_route; -1: no route.
    cdef Hash128 every(self, const RequestView* view, int route_index, int64_t scope) noexcept nogil
    # The first part that the request has, alone. False, and `out` untouched: it has none of them.
    cdef bint first(self, const RequestView* view, int route_index, Hash128* out) noexcept nogil
    cdef Span _value(self, int part, const RequestView* view, int route_index) noexcept nogil
    cdef void _client(self, SipState* state, const RequestView* view) noexcept nogil
