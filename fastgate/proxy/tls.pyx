# Theory of operation. The loop knows nothing of TLS: it has a plain transport, and a TlsShell as its protocol. The shell
# gives what comes to OpenSSL (a TlsEngine, over two memory BIOs), and the plaintext to the protocol inside, which is the
# same Downstream1 or Upstream1 as without TLS. That writes to its Wire, and the Wire encrypts and sends straight to
# the socket as it does without. One write into a BIO, one read, one write, one read out of a BIO for a request and its
# answer: no queue, no task, no callback.
#
#   TLS_HELLO -> TLS_HANDSHAKE -> TLS_OPEN -> TLS_ENDED;  any -> TLS_BROKEN
#
# Bounds. A memory BIO never gives memory back, so none may grow: a record is put into `incoming` when the one before it
# has been read, and one record at a time is taken out of `outgoing`. What one read of the socket has brought beyond that
# waits in `held`; while the wire is paused it stays there. Plaintext is handed on in pieces of up to TLS_SCRATCH bytes.
#
# A FIN without close_notify (RFC 8446 6.1: a truncation attack looks like this) reaches the protocol inside as a lost
# connection, never as the end of a message.

from cpython.bytearray cimport PyByteArray_AS_STRING

cdef enum:
    TLS_SCRATCH = 65536
    TLS_HELLO_SIZE = 8192       # of a ClientHello that is awaited whole
    TLS_BATCH = 4               # records that go with one system call

cdef int64_t SESSION_NS = 3600 * 1000000000     # after that an endpoint has to prove anew who it is


cdef class TlsInfo:
    """What a client's handshake has agreed on."""

    def __repr__(self):
        return f"<TlsInfo {self.version} {self.cipher}>"


cdef class TlsLayer:
    """One connection's session."""

    @property
    def context(self):
        """The ssl.SSLContext: another one may be put in its place by its SNI callback."""
        if self.engine is None:
            raise AttributeError("the handshake has not begun")
        return self.engine.get_context()

    @context.setter
    def context(self, other):
        if self.engine is None:
            raise AttributeError("the handshake has not begun")
        self.engine.set_context(other)

    cdef int open(self, TlsEngine engine) except -1:
        self.engine = engine
        self.state = TLS_HANDSHAKE
        return 0

    cdef bint handshake(self) except -1:
        cdef int step
        self.whole = False
        step = self.engine.handshake()
        if step == STEP_WANTS:
            self.may_wait = True
        elif step == STEP_DONE:
            self.state = TLS_OPEN
            self.version = self.engine.version()
            self.cipher = self.engine.cipher()
            return True
        else:
            self._broken()
        return False

    cdef int _broken(self) except -1:
        self.state = TLS_BROKEN
        self.failure = self.engine.failure if self.engine.failure is not None else "closed in the handshake"
        return 0

    cdef int hold(self, bytes data) except -1:
        if self.held is not None:
            data = self.held[self.held_at:] + data
        self.held = data if data else None
        self.held_at = 0
        return 0

    cdef int feed(self) except -1:
        cdef const char* at = PyBytes_AS_STRING(self.held) + self.held_at
        cdef Py_ssize_t length = len(self.held) - self.held_at, used = 0, part
        cdef bytes owner = self.held
        while self.header_size < 5 and used < length:
            self.header[self.header_size] = <unsigned char>at[used]
            self.header_size += 1
            used += 1
            if self.header_size == 5:
                self.left = (self.header[3] << 8) | self.header[4]
        if self.header_size == 5:
            part = min(self.left, length - used)
            used += part
            self.left -= part
            if self.left == 0:
                self.header_size = 0
                # change_cipher_spec (RFC 8446 D.4) has nothing to say: it is read with what follows it.
                self.whole = not self.may_wait or self.header[0] != 20 or self.header[3] or self.header[4] != 1
                self.may_wait = False
        if self.header_size and not 20 <= self.header[0] <= 24:
            # No record (RFC 8446 5.1): OpenSSL finds the words for it.
            used = min(length, TLS_RECORD)
            self.whole = True
        self.held_at += used
        if used == length:
            self.held = None
        return self.engine.give(owner, at, used)

    cdef Py_ssize_t decrypt(self, char* room) except -1:
        cdef Py_ssize_t size = 0
        cdef int step
        self.whole = False
        step = self.engine.read(room, &size)
        if step == STEP_DONE:
            return size
        if step == STEP_ENDED:
            self.state = TLS_ENDED
        elif step == STEP_FAILED:
            self._broken()
        return 0                            # STEP_WANTS: it was a ticket or a key update

    cdef int send(self, Wire wire, Span* parts, int count, char* room) except -1:
        cdef Span[TLS_BATCH] sealed
        cdef list kept = None
        cdef bytes one
        cdef const char* data
        cdef Py_ssize_t filled, piece, at = 0
        cdef int i = 0, batch = 0, result = SENT_ALL
        cdef bint begun = False                 # something of it was sent
        if self.said_goodbye or (self.state != TLS_OPEN and self.state != TLS_ENDED):
            return SENT_BROKEN
        while True:
            while i < count and at >= parts[i].len:
                i += 1
                at = 0
            if i == count:
                break
            # A record's worth: of one part, or of several, joined (then head and body are not told apart by lengths).
            data = parts[i].ptr + at
            filled = min(parts[i].len - at, TLS_RECORD)
            at += filled
            if filled < TLS_RECORD and i + 1 < count:
                memcpy(room, data, <size_t>filled)
                data = room
                i += 1
                at = 0
                while i < count:
                    piece = min(parts[i].len - at, TLS_RECORD - filled)
                    if piece:
                        memcpy(room + filled, parts[i].ptr + at, <size_t>piece)
                    filled += piece
                    at += piece
                    if at < parts[i].len:
                        break
                    i += 1
                    at = 0
            one = self._encrypt(data, filled)
            if one is None:
                return SENT_QUEUED if begun else SENT_BROKEN
            sealed[batch] = bytes_span(one)
            batch += 1
            if batch == 1:
                if i == count or (i + 1 == count and at == parts[i].len):
                    break                   # the usual case: one record, which `one` keeps alive
                kept = []
            kept.append(one)
            if batch == TLS_BATCH:
                result = wire.send_plain(sealed, batch)
                if result == SENT_BROKEN:
                    # That would say that nothing was taken, and the request could be sent a second time.
                    return SENT_QUEUED if begun else SENT_BROKEN
                begun = True
                batch = 0
        if batch:
            result = wire.send_plain(sealed, batch)
        return SENT_QUEUED if begun and result == SENT_BROKEN else result

    cdef bytes _encrypt(self, const char* data, Py_ssize_t length):
        # A peer may have asked for smaller records (RFC 6066 4): then this is several of them.
        cdef Py_ssize_t done = 0, written
        while done < length:
            written = 0
            if self.engine.write(data + done, length - done, &written) != STEP_DONE:
                self._broken()
                return None
            done += written
        return self.engine.take()

    cdef TlsInfo info(self):
        cdef TlsInfo seen
        if self.seen is None:
            seen = TlsInfo.__new__(TlsInfo)
            seen.version = self.version.decode()
            seen.cipher = self.cipher.decode()
            seen.server_name = self.asked_for or ""
            seen.certificate = self.engine.certificate()
            self.seen = seen
        return self.seen

    cdef bytes goodbye(self):
        if self.said_goodbye or (self.state != TLS_OPEN and self.state != TLS_ENDED):
            return b""
        self.said_goodbye = True
        self.engine.shutdown()
        return self.engine.take()


cdef class TlsShell:
    def data_received(self, bytes data not None):
        self.tls.hold(data)
        self._read()

    def eof_received(self):
        if self.tls.held is not None and self.tls.state != TLS_ENDED:
            self.fin = True             # what came before it is read first, when there is room
            return True
        self._end()
        return self.keeps

    def connection_lost(self, error):
        cdef object inner = self.inner
        if inner is not None:
            inner.connection_lost(self.cause if error is None else error)
            self.wire.tls = self.wire.shell = None      # they hold each other
        self.inner = self.receive = self.wire = None

    def pause_writing(self):
        self.inner.pause_writing()

    def resume_writing(self):
        self.inner.resume_writing()

    cdef int _read(self) except -1:
        cdef TlsLayer tls = self.tls
        if self.reading:
            return 0
        self.reading = True
        try:
            while tls.held is not None and not self.wire.paused and tls.state != TLS_ENDED and tls.state != TLS_BROKEN:
                if self.wire.transport is None or (self.wire.finished and self.wire.transport.is_closing()):
                    tls.held = None
                    break
                tls.feed()
                if not tls.whole:
                    continue
                if tls.state == TLS_OPEN:
                    self._decrypt()
                elif tls.handshake():
                    # With TLS 1.3 a server has nothing more to say but its ticket, which goes with its first answer.
                    if not self.late_ticket or tls.version != b"TLSv1.3":
                        self._flush()
                    self._opened()
                else:
                    self._flush()
                    if tls.state == TLS_BROKEN:
                        self.cause = ConnectionResetError(tls.failure)
                        self._failed()
                if self.wire is None:
                    return 0
        finally:
            self.reading = False
        if tls.state == TLS_ENDED or tls.state == TLS_BROKEN:
            tls.held = None             # nobody's
        if self.fin and tls.held is None:
            self.fin = False
            self._end()
            if not self.keeps:
                self.wire.close()
        return 0

    cdef int _decrypt(self) except -1:
        # One record and those whole ones behind it, as far as the room goes.
        cdef TlsLayer tls = self.tls
        cdef char* room = PyByteArray_AS_STRING(self.worker.tls_scratch)
        cdef Py_ssize_t filled = 0, size
        while True:
            size = tls.decrypt(room + filled)
            filled += size
            if size == 0:
                if tls.state != TLS_OPEN:
                    break
                self._told()
                if self._flush() and self.wire.congested:
                    self._give_up(ConnectionResetError("TLS messages to be answered, and the answers not read"))
                    break
            if tls.held is None or filled > TLS_SCRATCH - TLS_RECORD:
                break
            tls.feed()
            if not tls.whole:
                break
        if filled and self.wire.transport is not None:
            self.receive(PyBytes_FromStringAndSize(room, filled))
        if self.wire is None or self.wire.transport is None:
            return 0
        if tls.state == TLS_ENDED:
            self.keeps = self.inner.eof_received()
            if not self.keeps:
                # Deliberately not by RFC 8446 6.1, which wants close_notify of each side: whoever has sent it and FIN,
                # and has all that it was owed, does not read, and would answer with RST. nginx does the same.
                tls.said_goodbye = tls.said_goodbye or (self.wire.at_fin() and self.wire.unsent() == 0)
                self.wire.close()
        elif tls.state == TLS_BROKEN:
            self._flush()
            self._give_up(TlsError(tls.failure))
        return 0

    cdef int _end(self) except -1:
        if self.tls.state == TLS_ENDED:
            self.keeps = self.keeps and not self.wire.finished
        elif self.tls.state == TLS_HANDSHAKE:
            self.tls.state = TLS_BROKEN
            self.tls.failure = "closed in the handshake"
            self._failed()
        else:
            self.keeps = False
            self._give_up(ConnectionResetError("closed without close_notify (TLS)"))
        return 0

    cdef int _give_up(self, cause) except -1:
        self.cause = cause
        self.tls.state = TLS_BROKEN
        return self.wire.abort()

    cdef int resumed(self) except -1:
        if (self.tls.held is not None or self.fin) and not self.reading:
            # Not from within whatever has just made room: it is not done yet.
            self.worker.loop.call_soon(self._read_on)
        return 0

    def _read_on(self):
        if self.wire is not None and self.wire.transport is not None:
            self._read()

    cdef bint _flush(self) except -1:
        cdef bytes data = self.tls.engine.take()
        cdef Span part
        if not data or self.wire.transport is None or self.wire.transport.is_closing():
            return False
        part = bytes_span(data)
        self.wire.send_plain(&part, 1)
        return True

    cdef int _opened(self) except -1:
        return 0

    cdef int _failed(self) except -1:
        return 0

    cdef int _told(self) except -1:
        return 0


cdef Py_ssize_t _hello_size(bytes data):
    # Of the record that begins with this, as far as it is awaited.
    if len(data) < 5:
        return 5
    return min(TLS_HELLO_SIZE, 5 + ((<unsigned char>data[3] << 8) | <unsigned char>data[4]))


cdef class TlsServer(TlsShell):
    """A client's connection to a listener with TLS, from its first byte."""

    def __cinit__(self, Worker worker not None, ListenerSlot slot not None):
        self.worker = worker
        self.slot = slot
        self.late_ticket = True

    def connection_made(self, transport):
        cdef Downstream1 inner = Downstream1(self.worker, self.slot)
        self.inner = inner
        self.receive = inner.data_received
        self.wire = inner.wire
        inner.secure = True
        self.tls = self.wire.tls = inner.tls = TlsLayer()
        self.wire.shell = self
        if inner.state != D_PROXY:
            inner.state = D_HANDSHAKE
        inner.connection_made(transport)

    def data_received(self, bytes data not None):
        if self.tls.state == TLS_HELLO:
            data = self._begin(data)
            if data is None:
                return
        elif self.tls.engine is None:
            self.receive(data)          # without TLS, and told so: it may still be sending
            return
        self.tls.hold(data)
        self._read()

    def eof_received(self):
        if self.tls.engine is None:
            if self.first is not None and (<Downstream1>self.inner).state == D_HANDSHAKE:
                self._failed()
            return self.inner.eof_received()
        return TlsShell.eof_received(self)

    cdef bytes _begin(self, bytes data):
        # What must not be taken for a ClientHello: a PROXY header, which comes first, and HTTP without TLS.
        cdef Downstream1 inner = self.inner
        cdef Listener listener = self.slot.current
        cdef ProxyHeader header
        cdef Py_ssize_t size
        cdef unsigned char byte
        if inner.state == D_PROXY:
            self.first = data if self.first is None else self.first + data
            data = self.first
            size = read_proxy_header(PyBytes_AS_STRING(data), len(data), &header)
            if size == 0 and len(data) < 4096:
                return None
            if size > 0:
                inner.data_received(data[:size])
                data = data[size:]
            if size <= 0 or inner.state != D_IDLE:
                # Bad, or of somebody who may not send one: nobody is there who could read the reason.
                self.tls.state = TLS_BROKEN
                self.wire.abort()
                return None
            self.first = None
            inner.state = D_HANDSHAKE
            self.worker.arm(inner, now_ns() + listener.handshake_ns)
        if not data or inner.state == D_CLOSED:
            return None
        if self.first is not None:
            data = self.first + data
        byte = <unsigned char>data[0]
        if c'A' <= byte <= c'Z' or listener.certificates is None:
            # A handshake record begins with 22 (RFC 8446 5.1): this is a request. It is told so, as it speaks.
            self.tls.state = TLS_BROKEN
            self.wire.tls = inner.tls = None
            inner.secure = False
            inner.close_after = True
            inner.state = D_HEAD
            inner._new_exchange(now_ns()).refuse(R_PLAIN_HTTP, None)
            return None
        # Its ticket, which stands last (RFC 8446 4.2.11), and its ALPN are looked for: the record is awaited.
        self.first = data if byte == 22 and len(data) < _hello_size(data) else None
        if self.first is not None:
            return None
        if not self.worker.take_handshake(listener):
            self.worker.counters.gauge_add(GAUGE_TLS_REFUSED, 1)
            self.tls.state = TLS_BROKEN
            self.wire.abort()
            return None
        self.tls.open(server_engine(self.tls, listener.certificates.begin(self.tls, data, server_name(data))))
        return data

    cdef int _opened(self) except -1:
        cdef Downstream1 inner = self.inner
        if self.tls.asked_for is not None:
            self.tls.sni = self.tls.asked_for.encode()
        self.worker.counters.gauge_add(GAUGE_TLS_HANDSHAKES, 1)
        if self.tls.engine.resumed():
            self.worker.counters.gauge_add(GAUGE_TLS_RESUMED, 1)
        inner.state = D_IDLE
        if self.slot.closed or self.worker.draining and now_ns() >= self.worker.grace_until:
            return inner.drain()
        if self.worker.draining:
            return inner.last_chance(self.worker.grace_until)   # it was admitted, and has brought nothing yet
        self.worker.arm(inner, now_ns() + inner.listener.head_ns)
        return 0

    cdef int _failed(self) except -1:
        self.worker.counters.gauge_add(GAUGE_TLS_FAILED, 1)
        (<Downstream1>self.inner).state = D_CLOSED
        return self.wire.close()


cdef class TlsClient(TlsShell):
    """Our connection to an endpoint that speaks TLS. The Connector awaits `done`."""

    def __cinit__(self, Endpoint endpoint not None, str name, done):
        self.worker = endpoint.worker
        self.endpoint = endpoint
        self.name = name
        self.done = done

    def connection_made(self, transport):
        cdef Upstream1 inner = Upstream1(self.endpoint)
        self.inner = inner
        self.receive = inner.data_received
        self.wire = inner.wire
        self.tls = self.wire.tls = TlsLayer()
        self.wire.shell = self
        inner.connection_made(transport)
        if self.done.done():
            self.wire.abort()               # who wanted it has gone
            return
        if now_ns() >= self.endpoint.session_until:
            self.endpoint.session = None
        try:
            self.tls.open(python_engine(self.tls, self.endpoint.upstream.tls, False, self.name, self.endpoint.session))
        except ValueError as error:
            self.tls.state = TLS_BROKEN
            self.tls.failure = str(error)
            self._failed()
            return
        self.tls.handshake()
        self._flush()

    def connection_lost(self, error):
        if not self.done.done():
            self.endpoint.session = None    # it may be to blame
            self.done.set_exception(TlsError("closed in the handshake" if error is None else str(error)))
        TlsShell.connection_lost(self, error)

    cdef int _opened(self) except -1:
        self.kept = self.tls.engine.resumed()
        if self.tls.version != b"TLSv1.3":
            self._told()
        if self.done.done():
            return self.wire.abort()
        self.done.set_result(self.inner)
        return 0

    cdef int _told(self) except -1:
        # The first of it is a ticket, if any. One of a full handshake is used until it is refused, though RFC 8446 C.4
        # wants each used once, lest connections be linked: ours come from one address. To copy a session (130 us) costs
        # half of what it saves.
        cdef object session
        if not self.kept:
            self.kept = True
            session = (<PythonEngine>self.tls.engine).socket.session
            if session is not None and (session.has_ticket or self.tls.version != b"TLSv1.3"):
                self.endpoint.session = session
                self.endpoint.session_until = now_ns() + SESSION_NS
        return 0

    cdef int _failed(self) except -1:
        self.endpoint.session = None
        if not self.done.done():
            self.done.set_exception(TlsError(self.tls.failure, self.tls.engine.certificate_refused))
        return self.wire.abort()


class TlsError(OSError):
    """TLS with an endpoint failed. ``str()``: what OpenSSL says, or what is wrong with the certificate. certificate: it
    is the endpoint's; ours: the endpoint does not take ours."""

    def __init__(self, message, certificate=False):
        super().__init__(message)
        self.certificate = certificate
        self.ours = "alert" in message and ("certificate" in message or "unknown ca" in message)


def accepted(Worker worker not None, ListenerSlot slot not None):
    """The protocol of a connection that a listener has just accepted."""
    if slot.current.certificates is not None:
        return TlsServer(worker, slot)
    return Downstream1(worker, slot)
