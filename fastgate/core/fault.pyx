# As Envoy's fault filter: delay and abort are decided each for itself, and the delay comes first.


cdef class FaultRule:
    """A delay, an abort, or both.

    delay_ns: 0 for none. abort_status: 200 .. 599, 0 for none. The percentages are 0 .. 100. header: only requests that
    carry a field of this name (with any value) are concerned; "" for all. Raises ValueError.
    """

    def __init__(
        self, *, int64_t delay_ns=0, double delay_percent=100, int abort_status=0, double abort_percent=100,
        str header not None="",
    ):
        if delay_ns < 0:
            raise ValueError("a delay is not negative")
        if abort_status and not 200 <= abort_status <= 599:
            raise ValueError(f"{abort_status} is no status of a final response")
        self.delay_ns = delay_ns
        self.abort_status = abort_status
        self.delay_share = random_share(delay_percent)
        self.abort_share = random_share(abort_percent)
        self.header = header.lower().encode()
        self.header_span = span_of(self.header, len(self.header)) if self.header else span_of(NULL, 0)

    cdef bint _concerns(self, const RequestView* view) noexcept nogil:
        return self.header_span.ptr == NULL or request_field(view, self.header_span).ptr != NULL

    cdef int64_t delay(self, const RequestView* view, uint64_t random) noexcept nogil:
        if self.delay_ns == 0 or <uint32_t>random >= self.delay_share or not self._concerns(view):
            return 0
        return self.delay_ns

    cdef int abort(self, const RequestView* view, uint64_t random) noexcept nogil:
        if self.abort_status == 0 or (random >> 32) >= self.abort_share or not self._concerns(view):
            return 0
        return self.abort_status

    def decide(self, request: SampleRequest, random: int) -> tuple[int, int]:
        """(`delay`, `abort`) for a request made in Python; random: 64 bits."""
        cdef const RequestView* view = &(<SampleRequest?>request).view
        cdef uint64_t bits = random
        return self.delay(view, bits), self.abort(view, bits)
