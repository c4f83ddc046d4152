# Places in tables that outlive a configuration: a name keeps its place over every reload.

@cython.final
cdef class Slot:
    # A place. Whoever may still write there holds this object, so that nobody else gets the place meanwhile.
    cdef readonly int index
    cdef object __weakref__

@cython.final
cdef class SlotTable:
    cdef readonly int room
    cdef readonly list names        # by place: who has it, or had it last
    cdef dict places                # name -> place; the name that was wanted longest ago first
    cdef object held                # place -> Slot, as long as somebody holds it
