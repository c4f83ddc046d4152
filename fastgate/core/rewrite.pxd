# The path that is forwarded, and the Location of a redirect; compiled per route, no Python object per request.

cdef enum PathChange:
    PATH_KEEP
    PATH_PREFIX             # the matched prefix is replaced (strip_prefix: by nothing)
    PATH_TEMPLATE           # the whole path is replaced

cdef struct PathPiece:
    # Of a template: a literal, or the value of a {name} (capture >= 0).
    int capture
    Span text

@cython.final
cdef class PathRewrite:
    # What is written begins with "/" (or is "*" for OPTIONS *), and has no "//" and no dot segment: it is made of normal paths,
    # whole segments and a replacement that was brought into normal form when it was compiled.
    cdef readonly uint8_t change
    cdef Py_ssize_t _cut            # PATH_PREFIX: length of the matched prefix, without trailing slash
    cdef Span _replacement          # PATH_PREFIX: what stands there instead; "" or "/..." without trailing slash
    cdef PathPiece* _pieces         # PATH_TEMPLATE
    cdef int _count
    cdef list _kept                 # bytes that the Spans point into

    cdef int _compile_template(self, object match, object pattern) except -1
    cdef Span _keep(self, bytes text)
    # Of a request that the route matched (captures set).
    cdef void write_path(self, const RequestView* view, Out* out) noexcept nogil
    # The path and, when there is one, "?" and the query: what stands on the upstream's request line.
    cdef void write_target(self, const RequestView* view, Out* out) noexcept nogil

@cython.final
cdef class Redirector:
    cdef readonly int status
    cdef PathRewrite _path
    cdef Span _scheme               # ptr NULL: the request's
    cdef Span _host                 # ptr NULL: the request's
    cdef int _port                  # -1: not given
    cdef list _kept

    # `scheme`: the request's, "http" or "https"; `port`: of its authority, ptr NULL when it named none (Target.port).
    # Without any host (HTTP/1.0 without Host) only the path is written, a relative reference (RFC 9110 10.2.2).
    cdef void write_location(
        self, const RequestView* view, Span scheme, Span port, Out* out
    ) noexcept nogil
