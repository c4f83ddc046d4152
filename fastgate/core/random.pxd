# Random bits for decisions: which endpoint, how long to back off, whether to inject a fault. Cheap and well spread, but
# whoever sees some of them can tell the next: never for a key, a token or a cookie (those come from os.urandom).

cdef extern from * nogil:
    """
    #include <stdint.h>
    static inline uint64_t fg_scale64(uint64_t random, uint64_t below) {
        return (uint64_t)(((unsigned __int128)random * below) >> 64);
    }
    """
    # 64 random bits as a number in [0, below); `below` at least 1. A number comes up too often by at most below / 2^64.
    uint64_t fg_scale64(uint64_t random, uint64_t below) noexcept

cdef struct RandomState:
    uint64_t[4] words       # never all zero

# From the system's source. Each process seeds its own: behind a fork both would go on with the same numbers.
cdef int random_seed(RandomState* state) except -1

cdef inline uint64_t _random_rotl(uint64_t x, int by) noexcept nogil:
    return (x << by) | (x >> (64 - by))

cdef inline uint64_t random64(RandomState* state) noexcept nogil:
    # xoshiro256++ 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021): period 2^256 - 1,
    # all 64 bits usable.
    cdef uint64_t* s = state.words
    cdef uint64_t result = _random_rotl(s[0] + s[3], 23) + s[0]
    cdef uint64_t t = s[1] << 17
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = _random_rotl(s[3], 45)
    return result

cdef inline uint64_t random_below(RandomState* state, uint64_t below) noexcept nogil:
    return fg_scale64(random64(state), below)

# A percentage as a share of 2^32: `<uint32_t>bits < share` holds for that part of all 32-bit numbers, for 100 always and
# for 0 never. ValueError outside 0..100.
cdef uint64_t random_share(double percent) except? 0

@cython.final
cdef class RandomSource:
    cdef RandomState state
