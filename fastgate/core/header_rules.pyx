# Header rules: what is dropped from a head, and the lines that are written behind the rest.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE


cdef inline Span bytes_span(bytes value) noexcept:
    # Lives as long as the bytes object does.
    return span_of(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef class HeaderRules:
    """`set` replaces a field, `add` appends one, `remove` drops one; names in any case, values latin-1."""

    def __init__(self, set: dict[str, str], add: dict[str, str], remove: tuple[str, ...]):
        lines = []
        for name, value in [*set.items(), *add.items()]:
            line = f"{name}: {value}\r\n".encode("latin-1")
            if line.count(b"\n") != 1 or line.count(b"\r") != 1 or b"\0" in line:
                raise ValueError(f"header {name!r} holds a line break")
            lines.append(line)
        self.lines = b"".join(lines)
        self.dropped = tuple(name.lower().encode("latin-1") for name in [*set, *remove])

    cdef bint drops(self, Span name) noexcept:
        cdef bytes each
        for each in self.dropped:
            if span_is(name, PyBytes_AS_STRING(each), PyBytes_GET_SIZE(each)):
                return True
        return False
