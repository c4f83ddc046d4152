# Theory of operation. The loop knows nothing of TLS: it has a plain transport, and a TlsShell as its protocol. The shell
# gives what comes to OpenSSL (Python's ssl module, over two memory BIOs), and the plaintext to the protocol inside, which
# is the same Downstream1 or Upstream1 as without TLS. That writes to its Wire, and the Wire encrypts and sends straight to
# the socket as it does without. One write into a BIO, one read, one write, one read out of a BIO for a request and its
# answer: no queue, no task, no callback, and nothing is held but what OpenSSL needs for an incomplete record.
#
#   TLS_HELLO -> TLS_HANDSHAKE -> TLS_OPEN -> TLS_ENDED;  any -> TLS_BROKEN
#
# A FIN without close_notify (RFC 8446 6.1: a truncation attack looks like this) reaches the protocol inside as a lost
# connection, never as the end of a message.

from cpython.bytearray cimport PyByteArray_AS_STRING

import ssl

cdef enum:
    TLS_RECORD = 16384          # plaintext of a record, at most (RFC 8446 5.1)
    TLS_SCRATCH = 65536


cdef class TlsLayer:
    """One connection's session. context: ssl.SSLContext; name: of the server, for a client; None: we are the server."""

    def __init__(self, context, str name, session=None):
        cdef object inner
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.socket = context.wrap_bio(
            self.incoming, self.outgoing, server_side=name is None, server_hostname=name or None, session=session)
        inner = self.socket._sslobj             # without a Python function in between
        self.take_in = self.incoming.write
        self.take_out = self.outgoing.read
        self.read = inner.read
        self.write = inner.write
        self.shake = inner.do_handshake

    cdef bint handshake(self) except -1:
        self.state = TLS_HANDSHAKE
        try:
            self.shake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            self.failure = error.verify_message
            self.certificate_refused = True
            self.state = TLS_BROKEN
            return False
        except (ssl.SSLError, ssl.CertificateError, OSError, ValueError) as error:
            self.failure = getattr(error, "reason", None) or str(error)
            self.state = TLS_BROKEN
            return False
        self.state = TLS_OPEN
        return True

    cdef bytes encrypt(self, Span* parts, int count):
        cdef bytes joined
        cdef char* at
        cdef Py_ssize_t total = 0, sent
        cdef int i
        if self.said_goodbye or (self.state != TLS_OPEN and self.state != TLS_ENDED):
            return b""
        for i in range(count):
            total += parts[i].len
        try:
            if total <= TLS_RECORD:
                # One record: head and body are not told apart by their lengths.
                joined = PyBytes_FromStringAndSize(NULL, total)
                at = PyBytes_AS_STRING(joined)
                for i in range(count):
                    memcpy(at, parts[i].ptr, <size_t>parts[i].len)
                    at += parts[i].len
                if total:
                    self.write(joined)
            else:
                for i in range(count):
                    if parts[i].len:
                        sent = self.write(PyMemoryView_FromMemory(<char*>parts[i].ptr, parts[i].len, PyBUF_READ))
                        if sent != parts[i].len:
                            raise ssl.SSLError("a memory BIO takes everything")
        except ssl.SSLError as error:
            self.failure = str(error)
            self.state = TLS_BROKEN
            return b""
        return self.take_out()

    cdef Py_ssize_t decrypt(self, bytearray scratch) except -1:
        cdef Py_ssize_t size
        try:
            size = self.read(TLS_SCRATCH, scratch)
            if size == 0:
                self.state = TLS_ENDED          # that is how it says close_notify
            return size
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLError as error:
            self.failure = getattr(error, "reason", None) or str(error)
            self.state = TLS_BROKEN
            return 0

    cdef bytes goodbye(self):
        if self.said_goodbye or (self.state != TLS_OPEN and self.state != TLS_ENDED):
            return b""
        self.said_goodbye = True
        try:
            self.socket.unwrap()
        except ssl.SSLError:
            pass                        # it waits for the peer's, which we do not
        return self.take_out()

    # -- what is told of it

    def version(self):
        """"TLSv1.3", and so on; None before the handshake is over."""
        return self.socket.version() if self.state >= TLS_OPEN else None


cdef class TlsShell:
    def connection_lost(self, error):
        if self.inner is not None:
            if error is None and (self.cut or self.tls.state == TLS_BROKEN):
                error = ConnectionResetError(self.tls.failure or "closed without close_notify (TLS)")
            self.inner.connection_lost(error)
        self.transport = None

    def data_received(self, bytes data not None):
        self._feed(data)

    def eof_received(self):
        # Behind a close_notify the protocol inside knows already, and decides when to close.
        if self.tls.state == TLS_ENDED:
            return not self.wire.finished
        self.cut = True
        self.wire.abort()
        return False

    def pause_writing(self):
        self.inner.pause_writing()

    def resume_writing(self):
        self.inner.resume_writing()

    cdef int _feed(self, bytes data) except -1:
        cdef TlsLayer tls = self.tls
        cdef bytearray scratch
        cdef Py_ssize_t size
        tls.take_in(data)
        if tls.state <= TLS_HANDSHAKE:
            if not tls.handshake():
                self._flush()
                return self._failed() if tls.state == TLS_BROKEN else 0
            self._flush()
            self._opened()
        scratch = self.worker.tls_scratch
        while tls.state == TLS_OPEN and self.transport is not None and tls.incoming.pending + tls.socket.pending() > 0:
            size = tls.decrypt(scratch)
            if size <= 0:
                break
            self.inner.data_received(PyBytes_FromStringAndSize(PyByteArray_AS_STRING(scratch), size))
        if tls.outgoing.pending:
            self._flush()                   # a key update's answer, or an alert
        if self.transport is None:
            return 0
        if tls.state == TLS_ENDED:
            if not self.inner.eof_received():
                self.wire.close()
        elif tls.state == TLS_BROKEN:
            self.wire.abort()
        return 0

    cdef int _flush(self) except -1:
        cdef bytes data = self.tls.take_out()
        if data and self.transport is not None and not self.transport.is_closing():
            self.wire.send_plain(data)
        return 0

    cdef int _opened(self) except -1:
        return 0

    cdef int _failed(self) except -1:
        return 0


cdef class TlsServer(TlsShell):
    """A client's connection to a listener with TLS, from its first byte."""

    def __cinit__(self, Worker worker not None, ListenerSlot slot not None):
        self.worker = worker
        self.slot = slot

    def connection_made(self, transport):
        cdef Downstream1 inner = Downstream1(self.worker, self.slot)
        self.transport = transport
        self.inner = inner
        self.wire = inner.wire
        inner.secure = True
        self.tls = self.wire.tls = TlsLayer(self.slot.current.tls, None)
        inner.connection_made(transport)
        if inner.state != D_CLOSED:
            if not self.worker.take_handshake(self.slot.current):
                self.worker.counters.gauge_add(GAUGE_TLS_REFUSED, 1)
                self.wire.abort()
                return
            self.worker.arm(inner, now_ns() + self.slot.current.handshake_ns)

    def data_received(self, bytes data not None):
        if self.tls.state == TLS_HELLO and not self._begin(data):
            return
        self._feed(data if self.first is None else self.first)

    cdef bint _begin(self, bytes data) except -1:
        # What must not be taken for a ClientHello: a PROXY header, which comes first, and HTTP without TLS.
        cdef Downstream1 inner = self.inner
        cdef ProxyHeader header
        cdef Py_ssize_t size
        cdef unsigned char byte
        if inner.state == D_PROXY:
            self.first = data if self.first is None else self.first + data
            data = self.first
            size = read_proxy_header(PyBytes_AS_STRING(data), len(data), &header)
            if size == 0 and len(data) < 4096:
                return False
            if size > 0:
                inner.data_received(data[:size])
                self.first = data = data[size:]
            else:
                inner.state = D_CLOSED
            if inner.state == D_CLOSED:
                self.wire.abort()
                return False
            if not data:
                return False
        byte = <unsigned char>data[0]
        if c'A' <= byte <= c'Z':
            # A handshake record begins with 22 (RFC 8446 5.1): this is a request. It is told so, as it speaks.
            self.wire.tls = None
            inner.secure = False
            inner.close_after = True
            inner._new_exchange(now_ns()).refuse(R_PLAIN_HTTP, None)
            return False
        return True

    cdef int _opened(self) except -1:
        cdef Downstream1 inner = self.inner
        self.first = None
        inner.tls_version = self.tls.socket._sslobj.version().encode()
        self.worker.counters.gauge_add(GAUGE_TLS_HANDSHAKES, 1)
        if self.tls.socket._sslobj.session_reused:
            self.worker.counters.gauge_add(GAUGE_TLS_RESUMED, 1)
        if inner.state == D_IDLE:
            self.worker.arm(inner, now_ns() + inner.listener.head_ns)
        return 0

    cdef int _failed(self) except -1:
        self.worker.counters.gauge_add(GAUGE_TLS_FAILED, 1)
        self.wire.close()
        return 0


cdef class TlsClient(TlsShell):
    """Our connection to an endpoint that speaks TLS. The Connector awaits `made`."""

    def __cinit__(self, Endpoint endpoint not None, str name, done):
        self.worker = endpoint.worker
        self.endpoint = endpoint
        self.tls = TlsLayer(endpoint.upstream.tls, name)
        self.done = done

    def connection_made(self, transport):
        cdef Upstream1 inner = Upstream1(self.endpoint)
        self.transport = transport
        self.inner = inner
        self.wire = inner.wire
        self.wire.tls = self.tls
        inner.connection_made(transport)
        self.tls.handshake()
        self._flush()

    def connection_lost(self, error):
        if not self.done.done():
            self.done.set_exception(TlsError(str(error) if error is not None else "closed in the handshake"))
        TlsShell.connection_lost(self, error)

    cdef int _opened(self) except -1:
        if not self.done.done():
            self.done.set_result(self.inner)
        return 0

    cdef int _failed(self) except -1:
        if not self.done.done():
            self.done.set_exception(TlsError(self.tls.failure, self.tls.certificate_refused))
        self.wire.abort()
        return 0


class TlsError(OSError):
    """A handshake with an endpoint failed. ``str()``: what OpenSSL says, or what is wrong with the certificate."""

    def __init__(self, message, certificate=False):
        super().__init__(message)
        self.certificate = certificate


def accepted(Worker worker not None, ListenerSlot slot not None):
    """The protocol of a connection that a listener has just accepted."""
    if slot.current.tls is not None:
        return TlsServer(worker, slot)
    return Downstream1(worker, slot)
