# See seat.pxd for the contract.

import hashlib


cdef class Seat:
    """An endpoint without its connections.

    upstream: the name of its upstream. weight: from 1. max_requests: 0 for any number. table: of EndpointState records.
    """

    def __init__(
        self, str upstream not None, str address not None, *, SharedTable table not None, int weight=1,
        int max_requests=0, str region="", str zone="",
    ):
        cdef bytes digest = hashlib.blake2b(address.encode(), digest_size=8).digest()
        if weight < 1:
            raise ValueError("a weight is 1 or more")
        self.address = address
        memcpy(&self.id, PyBytes_AS_STRING(digest), 8)
        self.weight = weight
        self.max_requests = max_requests
        self.region = region
        self.zone = zone
        self.record = table.hold(("endpoint", upstream, address))
        self.state = <EndpointState*>self.record.at

    def hold(self) -> None:
        """One attempt more is under way here; for tests, as the next two."""
        self.active += 1

    def release(self) -> None:
        self.active -= 1

    def observe(self, int64_t latency_ns, int64_t now) -> None:
        """Tells how long a response's head took."""
        ewma_observe(self, latency_ns, now)


def endpoint_states(capacity: int = 4096) -> SharedTable:
    """A table for the states of endpoints."""
    return SharedTable(sizeof(EndpointState), capacity)


def upstream_states(capacity: int = 1024) -> SharedTable:
    """A table for the states of upstreams."""
    return SharedTable(sizeof(UpstreamState), capacity)
