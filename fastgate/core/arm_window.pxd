# What an arm of a split did lately, as all workers saw it.

cdef enum:
    ROLLBACK_SLICES = 10    # of a window: the present one, which fills, and the nine before

cdef struct ArmSlice:
    uint64_t stamp          # twice its number (time / length + 1); + 1 while it is being cleared; 0: never used
    uint32_t failures
    uint32_t[HISTOGRAM_BUCKETS] latency     # of all requests, failed ones too; their sum is the number of requests

cdef struct ArmWindow:
    # Of an arm and a length of window: a rule whose window is changed begins with an empty one.
    SharedKey key
    ArmSlice[ROLLBACK_SLICES] slices

cdef struct WindowSum:
    uint64_t samples
    uint64_t failures
    uint64_t[HISTOGRAM_BUCKETS] latency

cdef struct WatchedWindow:
    ArmWindow* window
    int64_t slice_ns

cdef void window_add(const WatchedWindow* watched, bint failed, int64_t latency_ns, int64_t now) noexcept nogil
cdef void window_sum(const WatchedWindow* watched, int64_t now, WindowSum* total) noexcept nogil
cdef void window_forget(const WatchedWindow* watched) noexcept nogil
# The histogram bucket of the smallest value that 99 % do not exceed; 0 without samples.
cdef int window_p99(const WindowSum* total) noexcept nogil
# A bucket's lower bound in nanoseconds; behind the last bucket more than any.
cdef double bucket_from(int bucket) noexcept nogil
# Its middle in milliseconds: off by 12.5 % at most. Of the last, which has none, its lower bound.
cdef double bucket_ms(int bucket) noexcept nogil
