# A hash table of byte strings that is built once and then only read.

from libc.stdlib cimport calloc, malloc

cdef enum:
    _MAX_ARENA = 0x7FFFFFFF


cdef uint64_t bytes_hash(uint64_t seed, Span text) noexcept nogil:
    # Eight bytes a step; the last step reads the last eight bytes, overlapping what was read before.
    cdef const char* p = text.ptr
    cdef size_t n = <size_t>text.len, i
    cdef uint64_t h = seed ^ (<uint64_t>n * 0x9E3779B97F4A7C15U), word = 0
    cdef uint32_t low, high
    if n > 8:
        i = 0
        while i + 8 < n:
            memcpy(&word, p + i, 8)
            h = fg_fold(h ^ word, 0xD6E8FEB86659FD93U)
            i += 8
        memcpy(&word, p + n - 8, 8)
    elif n >= 4:
        memcpy(&low, p, 4)
        memcpy(&high, p + n - 4, 4)
        word = <uint64_t>low << 32 | high
    elif n:
        word = (
            <uint64_t><unsigned char>p[0] << 16
            | <uint64_t><unsigned char>p[n >> 1] << 8
            | <unsigned char>p[n - 1]
        )
    return fg_fold(h ^ word, 0xA0761D6478BD642FU)


cdef inline uint64_t _owned(uint64_t hashed, uint32_t owner) noexcept nogil:
    return fg_fold(hashed ^ (<uint64_t>owner * 0x9E3779B97F4A7C15U), 0xE7037ED1A0B428DBU)


cdef int32_t key_table_get(
    const KeyTable* table, uint64_t hashed, uint32_t owner, Span text, uint64_t* probes
) noexcept nogil:
    cdef uint64_t h, at
    cdef uint32_t tag
    cdef const TableSlot* slot
    cdef const TableKey* key
    if table.slots == NULL:
        return -1
    h = _owned(hashed, owner)
    tag = <uint32_t>(h >> 32)
    at = h & table.mask
    while True:
        probes[0] += 1
        slot = &table.slots[at]
        if slot.key == 0:
            return -1
        if slot.tag == tag:
            key = &table.keys[slot.key - 1]
            if (
                key.owner == owner
                and key.length == <size_t>text.len
                and memcmp(table.arena + key.at, text.ptr, <size_t>text.len) == 0
            ):
                return key.value
        at = (at + 1) & table.mask


cdef int key_table_build(KeyTable* table, uint64_t seed, dict entries) except -1:
    cdef uint64_t room = 8, h, at
    cdef size_t size = 0, used = 0
    cdef uint32_t count = 0, owner
    cdef bytes text
    if not entries:
        return 0
    while room < 2 * <uint64_t>len(entries):
        room *= 2
    for _, text in entries:
        size += <size_t>len(text)
    if size > _MAX_ARENA or room > _MAX_ARENA:
        raise ValueError("too many or too long names in the route table")
    table.slots = <TableSlot*>calloc(room, sizeof(TableSlot))
    table.keys = <TableKey*>calloc(<size_t>len(entries), sizeof(TableKey))
    table.arena = <char*>malloc(size + 1)
    if table.slots == NULL or table.keys == NULL or table.arena == NULL:
        key_table_free(table)
        raise MemoryError
    table.mask = room - 1
    for (owner, text), value in entries.items():
        memcpy(table.arena + used, <const char*>text, <size_t>len(text))
        table.keys[count] = TableKey(owner, <uint32_t>used, <uint32_t>len(text), value)
        used += <size_t>len(text)
        h = _owned(bytes_hash(seed, span_of(text, len(text))), owner)
        at = h & table.mask
        while table.slots[at].key:
            at = (at + 1) & table.mask
        count += 1
        table.slots[at] = TableSlot(<uint32_t>(h >> 32), count)
    return 0


cdef void key_table_free(KeyTable* table) noexcept nogil:
    free(table.slots)
    free(table.keys)
    free(table.arena)
    table.slots = NULL
    table.keys = NULL
    table.arena = NULL
