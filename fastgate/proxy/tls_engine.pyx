# Two engines, for one reason: a third of what a handshake cost beyond OpenSSL's own work was the way through Python's
# ssl module. But a Python that has OpenSSL built in does not show its functions; and verifying endpoints, their names
# and sessions is too much to be done twice, for connections that are kept.
#
# A memory BIO never gives memory back; who gives and takes sees to it that none grows (see tls.pyx).

from cpython.buffer cimport PyBUF_WRITE
from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.ref cimport Py_DECREF

import logging

cdef object MemoryBIO = ssl.MemoryBIO
cdef object WantRead = ssl.SSLWantReadError

cdef extern from "Python.h":
    # Whatever it raises is the caller's to look at: what is expected costs no traceback.
    PyObject* call_raw "PyObject_CallNoArgs"(object function)

cdef enum:
    TLS_RECORD = 16384          # plaintext of a record, at most (RFC 8446 5.1)
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_ZERO_RETURN = 6
    SSL_MODES = 1 | 2 | 4           # ENABLE_PARTIAL_WRITE, ACCEPT_MOVING_WRITE_BUFFER, AUTO_RETRY: as Python has it
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_ALERT_FATAL = 2
    ALERT_INTERNAL_ERROR = 80       # RFC 8446 6
    ALERT_UNRECOGNIZED_NAME = 112


cdef class TlsEngine:
    cdef int give(self, bytes owner, const char* data, Py_ssize_t length) except -1:
        raise NotImplementedError

    cdef bytes take(self):
        raise NotImplementedError

    cdef int handshake(self) except -1:
        raise NotImplementedError

    cdef int read(self, char* room, Py_ssize_t* size) except -1:
        raise NotImplementedError

    cdef int write(self, const char* data, Py_ssize_t length, Py_ssize_t* done) except -1:
        raise NotImplementedError

    cdef int shutdown(self) except -1:
        raise NotImplementedError

    cdef bint resumed(self) except -1:
        raise NotImplementedError

    cdef bytes version(self):
        raise NotImplementedError

    cdef bytes cipher(self):
        raise NotImplementedError

    cdef bytes certificate(self):
        raise NotImplementedError

    cdef object get_context(self):
        raise NotImplementedError

    cdef int set_context(self, context) except -1:
        raise NotImplementedError


cdef TlsEngine server_engine(TlsLayer layer, context):
    # layer: whom the context's SNI callback is given; it owns the engine.
    return direct_engine(layer, context) if openssl_found else python_engine(layer, context, True, None, None)


# -- by Python's ssl module


cdef PythonEngine python_engine(TlsLayer layer, context, bint server, str name, session):
    # name: of the server, for a client. ValueError: no certificate can have that name.
    cdef PythonEngine engine = PythonEngine()
    cdef object outgoing = MemoryBIO(), inner
    engine.incoming = MemoryBIO()
    # What its wrap_bio does, without an SSLObject: the layer stands in its place before the SNI callback.
    engine.socket = inner = context._wrap_bio(
        engine.incoming, outgoing, server, name.encode("idna").decode() if name else None, owner=layer, session=session)
    engine.take_in = engine.incoming.write
    engine.take_out = outgoing.read
    engine.read_into = inner.read
    engine.encrypt = inner.write
    engine.do_handshake = inner.do_handshake
    return engine


cdef class PythonEngine(TlsEngine):
    cdef int give(self, bytes owner, const char* data, Py_ssize_t length) except -1:
        self.take_in(part_of(owner, data, length))
        return 0

    cdef bytes take(self):
        return self.take_out()

    cdef int handshake(self) except -1:
        cdef PyObject* done = call_raw(self.do_handshake)
        if done != NULL:
            Py_DECREF(<object>done)
            self.do_handshake = None
            return STEP_DONE
        if PyErr_ExceptionMatches(WantRead):
            PyErr_Clear()
            return STEP_WANTS
        try:
            raised()
        except ssl.SSLCertVerificationError as error:
            self.failure = error.verify_message
            self.certificate_refused = True
        except (ssl.SSLError, ssl.CertificateError, OSError, ValueError) as error:
            self.failure = _words(error)
        return STEP_FAILED

    cdef int read(self, char* room, Py_ssize_t* size) except -1:
        try:
            size[0] = self.read_into(TLS_RECORD, PyMemoryView_FromMemory(room, TLS_RECORD, PyBUF_WRITE))
        except ssl.SSLWantReadError:
            return STEP_WANTS
        except ssl.SSLZeroReturnError:
            return STEP_ENDED
        except ssl.SSLError as error:
            self.failure = _words(error)
            return STEP_FAILED
        return STEP_DONE if size[0] else STEP_ENDED

    cdef int write(self, const char* data, Py_ssize_t length, Py_ssize_t* done) except -1:
        try:
            done[0] = self.encrypt(PyMemoryView_FromMemory(<char*>data, length, PyBUF_READ))
        except ssl.SSLError as error:
            self.failure = _words(error)
            return STEP_FAILED
        return STEP_DONE

    cdef int shutdown(self) except -1:
        try:
            self.socket.shutdown()
        except ssl.SSLError:
            return STEP_WANTS               # it waits for the peer's
        return STEP_DONE

    cdef bint resumed(self) except -1:
        return self.socket.session_reused

    cdef bytes version(self):
        return self.socket.version().encode()

    cdef bytes cipher(self):
        return self.socket.cipher()[0].encode()

    cdef bytes certificate(self):
        return self.socket.getpeercert(True) or b""

    cdef object get_context(self):
        return self.socket.context

    cdef int set_context(self, context) except -1:
        self.socket.context = context
        return 0


cdef int raised() except -1:
    # Goes on with the exception that is set.
    return -1


cdef str _words(error):
    # "certificate required", not "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)".
    cdef object reason = getattr(error, "reason", None)
    return str(error) if reason is None else reason.replace("_", " ").lower()


# -- by OpenSSL itself


cdef void* _ready(object context) except NULL:
    # The structure of a context that a connection of ours begins with, or is given later. Python's own callback, which it
    # sets together with a context's `sni_callback`, would look for Python's connection and find NULL. It is called for
    # each ClientHello, by the context that is there then: again behind a HelloRetryRequest (RFC 8446 4.1.4).
    cdef void* inside = context_of(context)
    openssl.context_callback(inside, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, <void (*)() noexcept>_name_asked)
    return inside


cdef DirectEngine direct_engine(TlsLayer layer, context):
    cdef DirectEngine engine = DirectEngine()
    engine.context = context
    engine.connection = openssl.new(_ready(context))
    engine.incoming = openssl.new_bio(openssl.memory_method())
    engine.outgoing = openssl.new_bio(openssl.memory_method())
    if engine.connection == NULL or engine.incoming == NULL or engine.outgoing == NULL \
            or openssl.set_ex_data(engine.connection, openssl_index, <void*>layer) != 1:
        openssl.free_bio(engine.incoming)
        openssl.free_bio(engine.outgoing)
        raise MemoryError("OpenSSL has no room for a connection")
    openssl.set_bio(engine.connection, engine.incoming, engine.outgoing)
    openssl.control(engine.connection, SSL_CTRL_MODE, SSL_MODES, NULL)
    openssl.set_accept_state(engine.connection)
    return engine


cdef int _name_asked(void* connection, int* alert, void* argument) noexcept:
    # Within a handshake, with the GIL: the context's `sni_callback`, as Python would call it (SSLContext.sni_callback).
    # Without one the name counts as used, which is said in the answer (RFC 6066 3).
    cdef void* layer = openssl.get_ex_data(connection, openssl_index)
    cdef const char* name
    cdef object callback = None, context, verdict
    if layer == NULL or (<TlsLayer>layer).settled:
        return SSL_TLSEXT_ERR_OK            # NULL: a connection of Python's, of the same context
    try:
        context = (<TlsLayer>layer).engine.get_context()
        callback = context.sni_callback
        if callback is None:
            return SSL_TLSEXT_ERR_OK
        name = openssl.get_servername(connection, 0)
        verdict = callback(<TlsLayer>layer, None if name == NULL else (<bytes>name).decode("ascii"), context)
        if verdict is None:
            return SSL_TLSEXT_ERR_OK
        alert[0] = verdict
    except UnicodeDecodeError:
        alert[0] = ALERT_UNRECOGNIZED_NAME  # host names are ASCII (RFC 6066 3)
    except BaseException as error:
        # There is nobody to raise it to, and whatever it was, nobody is let in by it.
        logging.getLogger("fastgate.tls").error("the choice of a certificate failed", exc_info=error)
        alert[0] = ALERT_INTERNAL_ERROR
    return SSL_TLSEXT_ERR_ALERT_FATAL


cdef inline int _forget_errors() noexcept:
    # Others use the library too, and may have left some behind.
    if openssl.peek_error():
        openssl.clear_error()
    return 0


cdef class DirectEngine(TlsEngine):
    def __dealloc__(self):
        if self.connection != NULL:
            openssl.free(self.connection)

    cdef int give(self, bytes owner, const char* data, Py_ssize_t length) except -1:
        if length and openssl.bio_write(self.incoming, data, <int>length) != length:
            raise MemoryError("OpenSSL has no room for what has come")
        return 0

    cdef bytes take(self):
        cdef Py_ssize_t size = <Py_ssize_t>openssl.bio_pending(self.outgoing)
        cdef bytes data
        if size == 0:
            return b""
        data = PyBytes_FromStringAndSize(NULL, size)
        if openssl.bio_read(self.outgoing, PyBytes_AS_STRING(data), <int>size) != size:
            raise MemoryError("OpenSSL gives less than it has")   # what was never written must not be sent
        return data

    cdef int handshake(self) except -1:
        cdef int result
        _forget_errors()
        result = openssl.do_handshake(self.connection)
        return STEP_DONE if result == 1 else self._step(result)

    cdef int read(self, char* room, Py_ssize_t* size) except -1:
        cdef size_t got = 0
        cdef int result
        _forget_errors()
        result = openssl.read_ex(self.connection, room, TLS_RECORD, &got)
        size[0] = <Py_ssize_t>got
        return STEP_DONE if result == 1 else self._step(result)

    cdef int write(self, const char* data, Py_ssize_t length, Py_ssize_t* done) except -1:
        cdef size_t written = 0
        cdef int result
        _forget_errors()
        result = openssl.write_ex(self.connection, data, <size_t>length, &written)
        done[0] = <Py_ssize_t>written
        return STEP_DONE if result == 1 else self._step(result)

    cdef int shutdown(self) except -1:
        cdef int result
        _forget_errors()
        result = openssl.shutdown(self.connection)
        return STEP_DONE if result >= 0 else self._step(result)

    cdef int _step(self, int result) except -1:
        cdef int error = openssl.get_error(self.connection, result)
        cdef unsigned long last
        cdef const char* words
        cdef long verified
        if error == SSL_ERROR_WANT_READ:
            return STEP_WANTS
        if error == SSL_ERROR_ZERO_RETURN:
            return STEP_ENDED
        last = openssl.peek_last_error()
        verified = openssl.get_verify_result(self.connection)
        self.certificate_refused = verified != 0
        words = openssl.verify_words(verified) if verified != 0 else openssl.reason_words(last)
        self.failure = f"OpenSSL's error {error} ({last:x})" if words == NULL else (<bytes>words).decode()
        openssl.clear_error()
        return STEP_FAILED

    cdef bint resumed(self) except -1:
        return openssl.session_reused(self.connection) == 1

    cdef bytes version(self):
        return openssl.get_version(self.connection)

    cdef bytes cipher(self):
        return openssl.cipher_name(openssl.get_current_cipher(self.connection))

    cdef bytes certificate(self):
        cdef void* found = openssl.get_peer_certificate(self.connection)
        cdef unsigned char* out = NULL
        cdef bytes der = b""
        cdef int size
        if found == NULL:
            return der
        size = openssl.certificate_der(found, NULL)
        if size > 0:
            der = PyBytes_FromStringAndSize(NULL, size)
            out = <unsigned char*>PyBytes_AS_STRING(der)
            openssl.certificate_der(found, &out)
        openssl.free_certificate(found)
        return der

    cdef object get_context(self):
        return self.context

    cdef int set_context(self, context) except -1:
        if openssl.set_context(self.connection, _ready(context)) == NULL:
            raise MemoryError("OpenSSL has no room for another context")
        self.context = context
        return 0
