# OpenSSL's side of one connection: ciphertext goes in and comes out by memory BIOs, and plaintext stands between.

cdef enum TlsStep:
    STEP_DONE               # what was asked for
    STEP_WANTS              # more ciphertext first: what there was had nothing for whom it is not about
    STEP_ENDED              # the peer's close_notify has come
    STEP_FAILED             # see `failure`

cdef class TlsEngine:
    cdef str failure                # what OpenSSL said, or the certificate's fault
    cdef bint certificate_refused   # by us: it is the peer's

    # Ciphertext of `owner`. It is copied.
    cdef int give(self, bytes owner, const char* data, Py_ssize_t length) except -1
    cdef bytes take(self)                           # ciphertext to be sent; b"": none
    # Each returns a TlsStep.
    cdef int handshake(self) except -1
    cdef int read(self, char* room, Py_ssize_t* size) except -1                         # a record: up to TLS_RECORD
    cdef int write(self, const char* data, Py_ssize_t length, Py_ssize_t* done) except -1
    cdef int shutdown(self) except -1               # close_notify; the peer's is not awaited
    # Behind the handshake.
    cdef bint resumed(self) except -1
    cdef bytes version(self)                        # "TLSv1.3"
    cdef bytes cipher(self)
    cdef bytes certificate(self)                    # the peer's in DER; b"": it has none
    # For a context's SNI callback.
    cdef object get_context(self)
    cdef int set_context(self, context) except -1

@cython.final
cdef class PythonEngine(TlsEngine):
    # By Python's ssl module: with endpoints always, with clients where OpenSSL itself is out of reach.
    cdef object socket              # _ssl._SSLSocket: what is inside an ssl.SSLObject
    cdef object incoming            # ssl.MemoryBIO
    cdef object take_in             # bound methods, looked up once: incoming.write, outgoing.read,
    cdef object take_out            # and read, write and do_handshake of the connection
    cdef object read_into
    cdef object encrypt
    cdef object do_handshake

@cython.final
cdef class DirectEngine(TlsEngine):
    # With a client, by calls of OpenSSL's functions: no Python object, no exception for what is expected, no release of
    # the GIL, which nobody waits for.
    cdef object context             # ssl.SSLContext
    cdef void* connection           # SSL, and its memory BIOs, which it owns
    cdef void* incoming
    cdef void* outgoing

    cdef int _step(self, int result) except -1      # by the result of a call that did not succeed
