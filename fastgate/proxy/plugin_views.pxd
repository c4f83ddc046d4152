# What plugins in Python see of an exchange. A view reads the exchange itself as long as it runs, and copies only what is
# asked for; when the exchange is over it is let go of (`x` is None), unless a hook that still runs keeps what it read.

@cython.final
cdef class Headers:
    # -- the fields of a head, as long as nothing was changed: borrowed from `owner`; NULL: they are in `own`
    cdef const Field* fields
    cdef int count
    cdef object owner
    # -- or a copy: (name in lower case, name, value, drop) each
    cdef list own
    cdef bint changed
    cdef bint sent                      # the head is on its way: too late to change it
    cdef PluginRun guard                # says whether a request's head may be changed; None: it is none
    cdef bint gone                      # the exchange is over, and nobody kept a copy

    cdef int _materialise(self) except -1
    cdef int _may_change(self) except -1                # RuntimeError
    cdef bint has_name(self, bytes lower) except -1
    # Lets go of what is borrowed; `keep`: behind a copy.
    cdef int _let_go(self, bint keep) except -1
    # The fields as lines, and as Field structs that point into them.
    cdef bytes _lines(self)

@cython.final
cdef class Request:
    cdef Exchange x                     # None once it is over
    cdef PluginRun run
    # -- what was asked for already; None: not yet
    cdef Headers head
    cdef str method_text
    cdef str path_text
    cdef str query_text
    cdef str target_text
    cdef str host_text
    cdef str authority_text
    cdef dict cookie_values
    cdef bytes whole                    # the body, once it was read or set

    cdef Exchange _live(self)
    cdef int _let_go(self, bint keep) except -1
    # Puts changed headers in force for what comes behind this plugin.
    cdef int commit(self) except -1

@cython.final
cdef class Response:
    cdef int code_status
    cdef Headers head
    cdef str made_by                    # "upstream", "plugin" or "gateway"
    cdef str reason_code
    cdef int reason                     # a Reason; R_NONE: of an upstream
    cdef str detail                     # for the log
    cdef bytes phrase                   # as the upstream said it
    cdef bytes whole                    # the body; None: it streams
    cdef bint replaced                  # the body was set by a plugin
    # -- what the head said of its body
    cdef int body_kind                  # BodyKind
    cdef int64_t content_length
    # -- memory of its fields: Field structs, and the lines that they point into
    cdef bytes room
    cdef bytes block

    cdef int _fill(self, bytes lines) except -1
    cdef int to_head(self, ResponseHead* head) except -1
    cdef int _may_change(self) except -1                # RuntimeError

@cython.final
cdef class SubResponse:
    cdef readonly int status
    cdef readonly Headers headers
    cdef readonly bytes body
    cdef readonly bint truncated

@cython.final
cdef class GatewayError:
    cdef readonly str code
    cdef readonly int status
    cdef readonly str source
    cdef readonly bint retryable
    cdef readonly str detail

@cython.final
cdef class ExchangeView:
    cdef Exchange x                     # None once it is over
    cdef PluginRun run
    cdef Request seen
    cdef readonly Response response
    cdef dict notes
    cdef object who                     # the Consumer
    # -- kept for a hook that outlives the exchange
    cdef dict kept

    cdef Exchange _live(self)
    cdef int _let_go(self, bint keep) except -1
