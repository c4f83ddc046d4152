# set / add / remove of header fields, compiled from the configuration.

@cython.final
cdef class HeaderRules:
    cdef readonly bytes lines           # "Name: value\r\n" of every set and add
    cdef tuple dropped                  # lower-case names of set and remove
    cdef bint drops(self, Span name) noexcept
