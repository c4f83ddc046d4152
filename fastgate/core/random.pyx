# See random.pxd for the contract.

import os

from libc.math cimport llrint


cdef int random_seed(RandomState* state) except -1:
    cdef bytes seed = os.urandom(sizeof(RandomState))
    memcpy(state.words, PyBytes_AS_STRING(seed), sizeof(RandomState))
    state.words[0] |= 1
    return 0


cdef uint64_t random_share(double percent) except? 0:
    if not 0 <= percent <= 100:
        raise ValueError("a percentage is 0 to 100")
    return <uint64_t>llrint(percent * (<double>(<int64_t>1 << 32) / 100))


cdef class RandomSource:
    """The generator of the compiled core, for tests and for Python code that decides by chance; not for secrets.

    words: its state, four 64-bit numbers of which one is not 0; by default from os.urandom. Raises ValueError.
    """

    def __init__(self, words: tuple[int, int, int, int] | None = None) -> None:
        cdef int i
        if words is None:
            random_seed(&self.state)
            return
        if len(words) != 4 or not any(words):
            raise ValueError("a state is four numbers, not all 0")
        for i in range(4):
            self.state.words[i] = words[i]

    def bits(self) -> int:
        """64 random bits."""
        return random64(&self.state)

    def below(self, limit: int) -> int:
        """A number in [0, limit), each as likely as the others; limit is 1 .. 2^64 - 1 (ValueError)."""
        if limit < 1:
            raise ValueError("nothing is below 0")
        return random_below(&self.state, limit)
