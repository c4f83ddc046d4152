# Pools live by it: each request takes a connection and an exchange and gives them back.

cdef class Stack:
    def __cinit__(self):
        self.items = []

    cdef int push(self, object item) except -1:
        if self.count == len(self.items):
            self.items.append(item)
        else:
            self.items[self.count] = item
        self.count += 1
        return 0

    cdef object pop(self):
        cdef object item
        self.count -= 1
        item = self.items[self.count]
        self.items[self.count] = None
        return item

    cdef bint remove(self, object item) except -1:
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.items[i] is item:
                self.items.pop(i)
                self.count -= 1
                return True
        return False
