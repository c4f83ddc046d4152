# Theory of operation. An exchange that needs a connection gets an idle one, or stands in `waiting` while a Connector
# makes one; whoever has a connection to give (a Connector, an exchange that ended) gives it to the first who waits.
# Connections are not bound to the exchange that caused them: an exchange never waits for a connect longer than for the
# first connection that comes free.
#
# A check of the gateway's own asks how the endpoint is, not how busy we are with it: where no connection is idle one is
# made, whatever the caps say, and what is beyond a cap is closed as soon as a response on it is over.

import asyncio
from collections import deque


cdef class Endpoint(Seat):
    """One address of an upstream and its connections. Built by `fastgate.server`; durations in nanoseconds.

    hosts: IP addresses, the later ones for when a connection to those before cannot be made; empty for a Unix socket.
    app: begins calls of an application in this process; then there are no connections, and nobody waits for one.
    """

    def __init__(
        self, Worker worker not None, Upstream upstream not None, *, str address, tuple hosts, int port, unix_path,
        str tls_name="", app=None, SharedTable table not None, int weight=1, int max_requests=0, str region="", str zone="", int max_open,
        int max_idle, int max_waiting, int64_t idle_ns, int64_t queue_ns,
    ):
        Seat.__init__(self, upstream.name, address, table=table, weight=weight, max_requests=max_requests,
                      region=region, zone=zone)
        self.worker = worker
        self.upstream = upstream
        self.tally = worker.counters.endpoint_tally(upstream.name, self)
        self.counts = <EndpointCounts*>self.tally.own(worker.counters.place)
        self.address_bytes = address.encode()
        self.hosts = hosts
        self.port = port
        self.unix_path = unix_path
        self.tls_name = tls_name
        self.app = app
        self.idle = Stack()
        self.waiting = deque()
        self.max_open = max_open
        self.max_idle = max_idle
        self.max_waiting = max_waiting
        self.idle_ns = idle_ns
        self.queue_ns = queue_ns
        if upstream.sticky is not None:
            self.sticky_token = upstream.sticky.token_of(address)

    def retire(self) -> None:
        """Out of use for good: idle connections are closed, the others when their exchange is over."""
        self.retired = True
        self.close_idle()

    def numbers(self) -> dict[str, int]:
        """Of this worker: connections open and idle, requests under way and waiting for a connection."""
        return {"open": self.open - self.connecting, "idle": self.idle.count, "active": self.active,
                "waiting": len(self.waiting)}

    cdef int acquire(self, Exchange x, bint fresh) except -1:
        # `x.attempt` is set when a connection is at hand; else `x` waits. `fresh`: none that was used before.
        cdef Upstream1 connection
        cdef bint peek = not x.replayable       # not to be sent twice: look first whether the endpoint has closed
        if self.app is not None:
            return open_app(self, x)
        while self.idle.count and not fresh:
            connection = <Upstream1>self.idle.pop()
            if connection.state == U_IDLE and not (peek and connection.closed_by_peer()):
                x.attempt = connection
                return R_NONE
            connection.abandon()
        if x.pinned:
            # In front: whoever waits behind it gets the next one.
            self.waiting.appendleft(x)
            if self.upstream.load.enter_connection():
                self.counted += 1
            return self._connect()
        if not self.upstream.load.enter_pending():
            x.detail = "max_pending"
            return R_BREAKER_LIMIT
        x.holds |= HOLDS_PENDING
        self.waiting.append(x)
        self._connect_more()
        if len(self.waiting) - self.connecting > self.max_waiting:
            # No connection is being made for it: the pool has all that it may, or the breaker's cap is reached.
            self.waiting.pop()
            leave_pending(x)
            if self.open >= self.max_open:
                return R_QUEUE_FULL
            x.detail = "max_connections"
            return R_BREAKER_LIMIT
        return R_NONE

    cdef int64_t wait_ns(self) noexcept:
        # The connect's own deadline is the Connector's affair; ours must not come before it.
        return max(self.queue_ns, self.upstream.connect_ns + (2 << TICK_SHIFT)) if self.connecting else self.queue_ns

    cdef int why_late(self) noexcept:
        if self.connecting:
            return R_CONNECT_TIMEOUT
        # There was room in the pool: only the breaker's cap has kept a connection from being made.
        return R_QUEUE_TIMEOUT if self.open >= self.max_open else R_BREAKER_LIMIT

    cdef int leave_queue(self, Exchange x) except -1:
        try:
            self.waiting.remove(x)
        except ValueError:
            pass                                # it was just given a connection
        return 0

    cdef int release(self, Upstream1 connection, int64_t now) except -1:
        # A connection that is ready for a request.
        cdef bint surplus = self.open > self.max_open or self.open > max(1, self.counted)
        if self.waiting and (not surplus or (<Exchange>self.waiting[0]).pinned):
            (<Exchange>self.waiting.popleft()).connected(connection, not connection.reused, now)
        elif not surplus and self.idle.count < self.max_idle and not self.worker.draining and not self.retired:
            self.idle.push(connection)
            self.worker.arm(connection, now + self.idle_ns)
        else:
            connection.abandon()
        return 0

    cdef int connection_closed(self, Upstream1 connection) except -1:
        # Its place is free: if somebody waits for one, a new connection is made.
        self._count_out()
        self.idle.remove(connection)            # not there if it was busy
        return self._connect_more()

    cdef int _connect(self) except -1:
        cdef Connector connector = Connector()
        connector.endpoint = self
        self.open += 1
        self.connecting += 1
        self.worker.connecting += 1
        self.worker.arm(connector, now_ns() + self.upstream.connect_ns)
        self.worker.connectors.add(connector)
        connector.task = self.worker.loop.create_task(connector.run())
        return 0

    cdef int connect_ended(self, Upstream1 connection, int reason, str detail) except -1:
        self.connecting -= 1
        self.worker.connecting -= 1
        if connection is not None and connection.state == U_NEW:
            connection.state = U_IDLE
            self.worker.counters.upstream_add(self.upstream.slot, UPSTREAM_CONNECTIONS_MADE, 1)
            return self.release(connection, now_ns())
        self._count_out()
        if connection is not None:
            reason = R_UPSTREAM_RESET
            detail = "closed as soon as it was made"
        # Somebody hears of it, unless there are connects under way for all who wait.
        if len(self.waiting) > self.connecting:
            (<Exchange>self.waiting.popleft()).attempt_failed(reason, detail, False)
        self._connect_more()
        self.worker.left()
        return 0

    cdef int _connect_more(self) except -1:
        # An endpoint without any connection may have one, whatever the breaker's cap says (as Envoy does): else its
        # waiters would wait for nothing.
        if self.connecting < len(self.waiting) and self.open < self.max_open:
            if self.upstream.load.enter_connection():
                self.counted += 1
                self._connect()
            elif self.open == 0:
                self._connect()
        return 0

    cdef int _count_out(self) except -1:
        self.open -= 1
        if self.counted > self.open:
            self.counted -= 1
            self.upstream.load.leave_connection()
        return 0

    cdef int close_idle(self) except -1:
        while self.idle.count:
            (<Upstream1>self.idle.pop()).abandon()
        return 0


cdef class Connector(Timed):
    async def run(self):
        cdef Endpoint endpoint = self.endpoint
        cdef Upstream1 connection = None
        cdef int reason = R_CONNECT_FAILED
        cdef str detail = None
        loop = endpoint.worker.loop
        self.begun = True
        try:
            if self.dropped:
                raise asyncio.CancelledError
            if endpoint.upstream.tls is not None:
                done = loop.create_future()
                # It is not looked at if the connection itself fails.
                done.add_done_callback(lambda future: future.cancelled() or future.exception())
                await self.connect(lambda: TlsClient(endpoint, endpoint.tls_name, done))
                connection = await done
                if not connection.wire.is_whole():
                    # With TLS 1.3 the endpoint judges our certificate when our side of the handshake is over already.
                    failure = connection.wire.tls.failure if connection.wire.tls is not None else None
                    connection = None
                    raise TlsError(failure or "closed in the handshake")
            else:
                connection = await self.connect(lambda: Upstream1(endpoint))
        except TlsError as error:
            reason = R_TLS_CERTIFICATE if error.certificate else R_TLS_HANDSHAKE
            detail = str(error)
        except ConnectionRefusedError as error:
            reason = R_CONNECT_REFUSED
            detail = str(error)
        except OSError as error:
            detail = str(error)
        except asyncio.CancelledError:
            reason = R_CONNECT_TIMEOUT if self.timed_out else R_DRAIN_CUT
        except Exception as error:
            reason = R_INTERNAL
            detail = repr(error)
            report_defect("connect", error)
        finally:
            self.task = None
            endpoint.worker.connectors.discard(self)
            forget_timer(endpoint.worker.wheel, self)
            endpoint.connect_ended(connection, reason, detail)

    async def connect(self, protocol):
        cdef Endpoint endpoint = self.endpoint
        loop = endpoint.worker.loop
        if endpoint.unix_path is not None:
            return (await loop.create_unix_connection(protocol, endpoint.unix_path))[1]
        failed = None
        for host in endpoint.hosts:
            try:
                return (await loop.create_connection(protocol, host, endpoint.port))[1]
            except OSError as error:
                failed = error
        raise failed

    cdef int on_deadline(self, int64_t now) except -1:
        self.timed_out = True
        return self.drop()

    cdef int drop(self) except -1:
        self.dropped = True
        if self.begun and self.task is not None:
            self.task.cancel()
        return 0
