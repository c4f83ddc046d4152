# A cookie that leads a client back to its endpoint. The cookie's value is a keyed digest of the endpoint's address
# (HMAC-SHA-256, 128 bits of it): it tells nobody the address, and nobody without the secret can make one. So a request
# only needs a comparison with the digests of the endpoints that there are; a value that fits none was made for one that
# is gone, or by somebody else, and counts for nothing.

import hmac


cdef class Sticky:
    """upstream: its name. secret: signs the cookie's value; the same in all replicas. ttl_ns: 0 for a session cookie."""

    def __init__(
        self, str upstream not None, *, str cookie, bytes secret, int64_t ttl_ns=0, str path="/", str domain="",
        bint secure=False, bint http_only=True, str same_site="lax",
    ):
        if not secret:
            raise ValueError("a sticky cookie is signed: it needs a secret")
        self.upstream = upstream
        self.name = cookie.encode("ascii")
        self.secret = secret
        self.before = b"Set-Cookie: " + self.name + b"="
        parts = [f"; Path={path}"]
        if domain:
            parts.append(f"; Domain={domain}")
        if ttl_ns:
            parts.append(f"; Max-Age={max(1, ttl_ns // SECOND)}")
        if secure:
            parts.append("; Secure")
        if http_only:
            parts.append("; HttpOnly")
        parts.append(f"; SameSite={same_site.capitalize()}\r\n")
        self.behind = "".join(parts).encode("latin-1")

    cdef bytes token_of(self, str address):
        # The zero byte keeps "a" + "bc" and "ab" + "c" apart.
        return hmac.digest(self.secret, f"{self.upstream}\0{address}".encode(), "sha256")[:16].hex().encode()

    cdef int find(self, const RequestView* view, tuple seats, int64_t now) except -2:
        cdef Span value = request_cookie(view, bytes_span(self.name))
        cdef Endpoint endpoint
        cdef int i
        if value.ptr == NULL:
            return -1
        for i in range(len(seats)):
            endpoint = <Endpoint>seats[i]
            if span_equal(value, bytes_span(endpoint.sticky_token)):
                if endpoint_status(endpoint.state, now) != STATUS_READY or (
                        endpoint.max_requests and endpoint.active >= endpoint.max_requests):
                    return -1
                return i
        return -1

    cdef int write_cookie(self, Endpoint endpoint, Out* out) except -1:
        out_span(out, bytes_span(self.before))
        out_span(out, bytes_span(endpoint.sticky_token))
        out_span(out, bytes_span(self.behind))
        if out.failed:
            raise MemoryError()
        return 0
