# Theory of operation. A window is a ring of slices. Whoever first meets a slice whose number is of the past claims it
# by compare-and-swap, clears it and opens it; what others bring in this moment is dropped, as is what comes late by a
# whole window. A process that is killed while it clears costs the arm one slice.
#
# Sums are read while others count: a number may be missing here and there, which no judgement turns on.

cdef enum:
    _P99 = 99       # percent


cdef inline ArmSlice* _window_slice(ArmWindow* window, uint64_t number) noexcept nogil:
    # The slice, open for counting, or NULL.
    cdef ArmSlice* found = &window.slices[number % ROLLBACK_SLICES]
    cdef uint64_t stamp = fg_load64(&found.stamp)
    if stamp == 2 * number:
        return found
    if stamp > 2 * number or not fg_cas64(&found.stamp, stamp, 2 * number + 1):
        return NULL
    found.failures = 0
    memset(found.latency, 0, sizeof(found.latency))
    fg_store64(&found.stamp, 2 * number)
    return found


cdef void window_add(const WatchedWindow* watched, bint failed, int64_t latency_ns, int64_t now) noexcept nogil:
    cdef ArmSlice* into = _window_slice(watched.window, <uint64_t>(now // watched.slice_ns) + 1)
    if into == NULL:
        return
    fg_add32(&into.latency[_histogram_bucket(latency_ns)], 1)
    if failed:
        fg_add32(&into.failures, 1)


cdef void window_sum(const WatchedWindow* watched, int64_t now, WindowSum* total) noexcept nogil:
    cdef uint64_t newest = <uint64_t>(now // watched.slice_ns) + 1
    cdef uint64_t stamp
    cdef const ArmSlice* part
    cdef int i, k
    memset(total, 0, sizeof(WindowSum))
    for i in range(ROLLBACK_SLICES):
        part = &watched.window.slices[i]
        stamp = fg_load64(&part.stamp)
        if stamp & 1 or stamp == 0 or stamp // 2 > newest or stamp // 2 + ROLLBACK_SLICES <= newest:
            continue
        total.failures += part.failures
        for k in range(HISTOGRAM_BUCKETS):
            total.latency[k] += part.latency[k]
    for k in range(HISTOGRAM_BUCKETS):
        total.samples += total.latency[k]
    # A failure is counted behind its request, and may be seen before it.
    total.failures = min(total.failures, total.samples)


cdef void window_forget(const WatchedWindow* watched) noexcept nogil:
    cdef int i
    for i in range(ROLLBACK_SLICES):
        fg_store64(&watched.window.slices[i].stamp, 0)


cdef int window_p99(const WindowSum* total) noexcept nogil:
    cdef uint64_t rank = (_P99 * total.samples + 99) // 100, seen = 0
    cdef int i
    for i in range(HISTOGRAM_BUCKETS):
        seen += total.latency[i]
        if seen >= rank:
            return i
    return HISTOGRAM_BUCKETS - 1


cdef double bucket_from(int bucket) noexcept nogil:
    if bucket == 0:
        return 0
    if bucket >= HISTOGRAM_BUCKETS:
        return 1e300
    return <double>((<int64_t>4 + ((bucket - 1) & 3)) << (HISTOGRAM_OCTAVE + ((bucket - 1) >> 2) - 2))


cdef double bucket_ms(int bucket) noexcept nogil:
    if bucket >= HISTOGRAM_BUCKETS - 1:
        return bucket_from(HISTOGRAM_BUCKETS - 1) / 1e6
    return (bucket_from(bucket) + bucket_from(bucket + 1)) / 2e6


def rollback_windows(capacity: int = 256) -> SharedTable:
    """A table for the windows of rollbacks: one record (4 KiB) for each arm with a rule, and for its baseline."""
    return SharedTable(sizeof(ArmWindow), capacity)
