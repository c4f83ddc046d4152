# Theory of operation. Weighted rendezvous hashing: every arm draws a number from the user's key and its own name, as
# an exponential variable whose rate is its weight, and the smallest wins (Thaler and Ravishankar, "Using Name-Based
# Mappings to Increase Hit Rates", 1998; with weights: Schindelhauer and Schomaker, "Weighted Distributed Hash
# Tables", SPAA 2005, the logarithmic method). An arm with weight w of W gets w / W of the keys. An arm's number
# depends on nothing but the key, its name and its weight: when a weight grows, users move to this arm and to no
# other; when it shrinks, only users of this arm move. There is no secret and no state in it, so that all workers,
# replicas and restarts agree. Two routes whose arms have the same names and weights send a user to the same arms.
#
# Two C libraries may differ in the last bit of a logarithm: replicas on different ones may disagree on about one key
# in 10^15.

import hashlib
from collections.abc import Mapping

from libc.math cimport log


cdef inline uint64_t _split_mix(uint64_t x) noexcept nogil:
    # The finaliser of MurmurHash3 (Appleby): every bit of the input moves half of the output's.
    x ^= x >> 33
    x *= <uint64_t>0xFF51AFD7ED558CCDU
    x ^= x >> 33
    x *= <uint64_t>0xC4CEB9FE1A85EC53U
    return x ^ (x >> 33)


cdef inline double _split_unit(uint64_t bits) noexcept nogil:
    # Above 0 and below 1: with 52 bits and a half nothing is rounded to either.
    return (<double>(bits >> 12) + 0.5) * (1.0 / 4503599627370496.0)


cdef class Splitter:
    """Chooses among the arms of a route.

    route: its name. config: a config Split (attributes `override`: None, or `header` and `cookie`; `to`: SplitTargets
    with name, upstream, weight, rollback). states, windows: of `split_states` and `rollback_windows`, mapped before the
    fork; what an operator set and what was rolled back is found there again, by the names of route and arm. Raises
    ValueError for no arm, two of one name, or weights that are not 0 to 10,000 with one above 0, and as RollbackWatch;
    MemoryError for a full table.
    """

    def __init__(
        self, str route not None, config: Any, *, SharedTable states not None, SharedTable windows not None
    ) -> None:
        cdef bytes text
        cdef int i
        if self.weight != NULL:
            raise TypeError("a Splitter is built once")
        targets = tuple(config.to)
        self.route = route
        self.names = tuple(target.name or target.upstream for target in targets)
        self.upstreams = tuple(target.upstream for target in targets)
        self.count = len(targets)
        if not targets or len(set(self.names)) != self.count:
            raise ValueError("a split has arms, each with a name of its own")
        _check_weights(target.weight for target in targets)
        if not any(target.weight for target in targets):
            raise ValueError("one arm has a weight above 0")
        self.configured = <uint64_t*>calloc(<size_t>self.count, sizeof(uint64_t))
        self.hashes = <uint64_t*>calloc(<size_t>self.count, sizeof(uint64_t))
        self.is_baseline = <uint8_t*>calloc(<size_t>self.count, sizeof(uint8_t))
        self.name_spans = <Span*>calloc(<size_t>self.count, sizeof(Span))
        self.halves = <uint32_t*>calloc(<size_t>self.count, sizeof(uint32_t))
        self.weight = <uint64_t*>calloc(<size_t>self.count, sizeof(uint64_t))
        self.inverse = <double*>calloc(<size_t>self.count, sizeof(double))
        if not (
            self.configured and self.hashes and self.is_baseline and self.name_spans and self.halves
            and self.weight and self.inverse
        ):
            raise MemoryError
        header, cookie = ("", "") if config.override is None else (config.override.header, config.override.cookie)
        self.override_text = (header.encode(), cookie.encode(), *(name.encode() for name in self.names))
        text = self.override_text[0]
        self.override_header = span_of(text, len(text))
        text = self.override_text[1]
        self.override_cookie = span_of(text, len(text))
        for i in range(self.count):
            self.configured[i] = targets[i].weight
            text = self.override_text[2 + i]
            self.name_spans[i] = span_of(text, len(text))
            memcpy(&self.hashes[i], PyBytes_AS_STRING(hashlib.blake2b(text, digest_size=8).digest()), 8)
        self.records = SplitRecords(route, self.names, states)
        if any(target.rollback is not None for target in targets):
            self.rollback = RollbackWatch(self.records, targets, windows)
            for i in range(self.rollback.check_count):
                self.is_baseline[self.rollback.checks[i].baseline] = 1
        self._weigh()
        self.seen = ~fg_load64(&self.records.state.generation)      # any other: `choose` reads the weights first

    def __dealloc__(self):
        free(self.configured)
        free(self.hashes)
        free(self.is_baseline)
        free(self.name_spans)
        free(self.halves)
        free(self.weight)
        free(self.inverse)

    cdef int choose(
        self, const RequestView* view, bint keyed, uint64_t key, uint64_t random
    ) noexcept nogil:
        cdef int i, best
        cdef double drawn, least = 1e300
        cdef uint64_t rest
        if fg_load64(&self.records.state.generation) != self.seen:
            self._refresh()
        best = self._overridden(view)
        if best >= 0:
            return best
        if self.only >= 0:
            return self.only
        if not keyed:
            # Below the total, so the walk ends at an arm.
            rest = (random >> 32) * self.total >> 32
            best = 0
            while rest >= self.weight[best]:
                rest -= self.weight[best]
                best += 1
            return best
        for i in range(self.count):
            if self.weight[i]:
                drawn = -log(_split_unit(_split_mix(key ^ self.hashes[i]))) * self.inverse[i]
                if drawn < least:
                    least = drawn
                    best = i
        return best

    cdef int _overridden(self, const RequestView* view) noexcept nogil:
        cdef int arm = -1
        if self.override_header.len:
            arm = self._named(request_field(view, self.override_header))
        if arm < 0 and self.override_cookie.len:
            arm = self._named(request_cookie(view, self.override_cookie))
        return arm

    cdef int _named(self, Span value) noexcept nogil:
        cdef int i
        for i in range(self.count):
            if value.len and span_equal(value, self.name_spans[i]):
                return i
        return -1

    cdef void _refresh(self) noexcept nogil:
        # Should others change the weights all the time, those from before stay in force until the next request.
        cdef uint64_t generation
        if self.records.read(&generation, self.halves):
            self._weigh()
            self.seen = generation

    cdef void _weigh(self) noexcept nogil:
        # From `halves`: the operator's weight or the configured one, and 0 for what is rolled back. If nothing is
        # left: the configured weights, without what is rolled back. If still nothing: one arm, a baseline if there is
        # one, not rolled back if there is one, the heaviest by configuration, the first.
        cdef uint64_t rank, highest = 0
        cdef int i, last = 0
        self.total = 0
        for i in range(self.count):
            self.weight[i] = self.configured[i]
            if self.halves[i] & HALF_WEIGHT:
                self.weight[i] = (self.halves[i] & HALF_WEIGHT) - 1
            if self.halves[i] & HALF_ROLLED_BACK:
                self.weight[i] = 0
            self.total += self.weight[i]
        if self.total == 0:
            for i in range(self.count):
                if not self.halves[i] & HALF_ROLLED_BACK:
                    self.weight[i] = self.configured[i]
                self.total += self.weight[i]
        if self.total == 0:
            for i in range(self.count):
                rank = (<uint64_t>self.is_baseline[i] << 33) | self.configured[i] | 1
                if not self.halves[i] & HALF_ROLLED_BACK:
                    rank |= <uint64_t>1 << 32
                if rank > highest:
                    highest = rank
                    last = i
            self.weight[last] = 1
            self.total = 1
        self.only = -1
        for i in range(self.count):
            if self.weight[i]:
                self.inverse[i] = 1.0 / <double>self.weight[i]
                if self.weight[i] == self.total:
                    self.only = i

    def choose_for(self, SampleRequest request not None, key: int | None = None, random: int = 0) -> str:
        """`choose` for a request made in Python: the name of its arm. key: 64 bits, None for a request without."""
        cdef int arm = self.choose(&request.view, key is not None, key or 0, random)
        return self.names[arm]

    def weights(self) -> dict[str, int]:
        """The weights in force."""
        cdef int i
        if fg_load64(&self.records.state.generation) != self.seen:
            self._refresh()
        return {self.names[i]: self.weight[i] for i in range(self.count)}

    def set_weights(self, weights: Mapping[str, int | None]) -> None:
        """An operator's weights, 0 to 10,000, in place of the configured ones; None gives an arm its configured one
        back.

        All in one step, for every worker, until the gateway is started anew; arms that are not named keep theirs. What
        is named is no longer rolled back and begins with an empty window. Raises ValueError for an arm that there is
        not, a weight that is none, or weights of 0 alone; TimeoutError if another process keeps changing them.
        """
        wanted = {self.records.index(name): weight for name, weight in weights.items()}
        _check_weights(weight for weight in wanted.values() if weight is not None)
        self._change({arm: 0 if weight is None else weight + 1 for arm, weight in wanted.items()})

    def clear(self, str arm not None) -> bool:
        """Takes an arm's rollback back: its weight counts again, and its window begins empty. False if it was not
        rolled back. Raises ValueError for an arm that there is not, TimeoutError as `set_weights`."""
        cdef int at = self.records.index(arm)
        return (self._change({at: None}) & HALF_ROLLED_BACK) != 0

    cdef uint32_t _change(self, dict wanted) except? 0xFFFFFFFF:
        # wanted: for an arm's index its new HALF_WEIGHT, or None to leave it. Returns all that was set in their
        # halves.
        cdef uint64_t generation
        cdef uint32_t before = 0
        cdef int arm
        cdef bint some = None in wanted.values()        # only a change of weights can leave none
        if not self.records.begin(True):
            raise TimeoutError(f"another process keeps changing the weights of route {self.route!r}")
        self.records.read(&generation, self.halves)     # consistent: nobody else writes now
        for arm, half in wanted.items():
            before |= self.halves[arm]
            self.halves[arm] = self.halves[arm] & HALF_WEIGHT if half is None else half
        for arm in range(self.count):
            # Rolled back or not: a rollback is taken back one day.
            some |= (self.halves[arm] & HALF_WEIGHT) > 1 or (
                self.halves[arm] & HALF_WEIGHT == 0 and self.configured[arm] > 0
            )
        self.seen = ~generation     # `halves` are no longer what was read
        if not some:
            self.records.abandon()
            raise ValueError("one arm has a weight above 0")
        # Before the arm is judged again: whoever judges reads the generation first and the windows behind it.
        if self.rollback is not None:
            for arm in wanted:
                self.rollback.forget(arm)
        self.records.publish(self.halves)
        return before

    def status(self, int64_t now) -> dict[str, Any]:
        """What an operator wants to see. now: monotonic nanoseconds.

        {"route", "generation": changes so far, "arms": [{"name", "upstream", "weight": in force, "configured",
        "operator": weight or None, "rolled_back", "rollback": RollbackWatch.status or None}]}.
        """
        cdef int i
        weights = self.weights()
        return {
            "route": self.route,
            "generation": self.seen,
            "arms": [
                {
                    "name": self.names[i],
                    "upstream": self.upstreams[i],
                    "weight": weights[self.names[i]],
                    "configured": self.configured[i],
                    "operator": (self.halves[i] & HALF_WEIGHT) - 1 if self.halves[i] & HALF_WEIGHT else None,
                    "rolled_back": bool(self.halves[i] & HALF_ROLLED_BACK),
                    "rollback": None if self.rollback is None else self.rollback.status(self.names[i], now),
                }
                for i in range(self.count)
            ],
        }


def _check_weights(weights: Iterable[int]) -> None:
    for weight in weights:
        if type(weight) is not int or not 0 <= weight <= SPLIT_MAX_WEIGHT:
            raise ValueError(f"{weight!r}: a weight is a whole number from 0 to {SPLIT_MAX_WEIGHT}")
