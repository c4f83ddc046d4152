# The request target and Host, read once into the one normal form that is matched and forwarded (docs/routing.md).

cdef enum TargetForm:
    TARGET_ORIGIN           # "/path?query" (RFC 9112 3.2.1)
    TARGET_ABSOLUTE         # "http://host/path?query" (3.2.2): its authority replaces Host
    TARGET_ASTERISK         # "*" (3.2.4), or OPTIONS with an absolute-form that has neither path nor query

cdef enum TargetScheme:
    SCHEME_NONE             # the target names none: the connection decides
    SCHEME_HTTP
    SCHEME_HTTPS

cdef struct Target:
    # Every Span points into the request line, the Host field, static memory or the scratch buffer: valid as long as the head
    # is kept and the scratch is not written to.
    # -- the line
    uint8_t form
    uint8_t scheme
    uint8_t encoded_slash   # the path holds %2F or %5C: the route decides (encoded_slashes)
    uint8_t copied          # the path was not normal and stands in the scratch buffer
    Span path               # normal form, begins with "/"; "*" for TARGET_ASTERISK
    Span query              # without "?", as it came; ptr NULL when there was no "?"
    # -- the authority; all empty when there is none (HTTP/1.0 without Host, or an empty Host)
    Span authority          # host[:port] as it came: what a kept Host and X-Forwarded-Host say
    Span host               # lower case, no port, no trailing dot, IPv6 in brackets: what routes match
    Span port               # its digits; ptr NULL when there was none
    # -- set when the target is refused: which rule, in static memory, for the log
    Span detail

# Reads both. `host` is the Host field's value, ptr NULL when there is none (whether that is allowed is the caller's to say:
# RFC 9112 3.2). CONNECT's authority-form is refused. Appends to `scratch` what had to be rewritten, so anything that
# pointed into it before may have moved. Returns a Reason: R_NONE, R_TARGET_SYNTAX, R_HOST_SYNTAX, or R_INTERNAL without memory.
cdef int normalise_target(uint8_t method_id, Span target, Span host, Target* result, Out* scratch) noexcept nogil
