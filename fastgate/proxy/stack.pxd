# A stack of Python objects whose memory does not move with each push and pop, as a list's does.

@cython.final
cdef class Stack:
    cdef list items             # items[count:] are None
    cdef readonly Py_ssize_t count

    cdef int push(self, object item) except -1
    cdef object pop(self)                       # not to be called on an empty one
    cdef bint remove(self, object item) except -1       # False: it is not there. By identity; in linear time
