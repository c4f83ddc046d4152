# TLS on a connection: between the loop's plain transport and the protocol that speaks HTTP.

cdef enum TlsState:
    TLS_HELLO               # nothing has come yet
    TLS_HANDSHAKE
    TLS_OPEN
    TLS_ENDED               # the peer has sent close_notify: it writes no more
    TLS_BROKEN              # an alert was sent or received, or what came makes no sense

@cython.final
cdef class TlsLayer:
    # -- OpenSSL's side, as Python's ssl module has it
    cdef object socket              # ssl.SSLObject: kept for its context's SNI callback, which is given it
    cdef object incoming            # ssl.MemoryBIO: ciphertext from the peer
    cdef object outgoing            # ssl.MemoryBIO: ciphertext to it
    cdef object take_in             # bound methods of these, looked up once: incoming.write, outgoing.read,
    cdef object take_out            # and read and write of the connection
    cdef object read
    cdef object write
    cdef object shake
    # -- where it stands
    cdef int state                  # TlsState
    cdef bint said_goodbye          # close_notify was sent
    cdef str failure                # what OpenSSL said, or the certificate's fault
    cdef bint certificate_refused   # by us: it is the peer's

    # R_NONE: go on; the answer to the peer may lie in `outgoing`. Else the state is TLS_BROKEN.
    cdef bint handshake(self) except -1             # True: it is over, and well
    # What these parts are on the wire; b"" where nothing may be sent (any more).
    cdef bytes encrypt(self, Span* parts, int count)
    # The next piece of plaintext, borrowed from `scratch`, until 0: there is no more for now.
    cdef Py_ssize_t decrypt(self, bytearray scratch) except -1
    cdef bytes goodbye(self)                        # close_notify, once

cdef class TlsShell:
    # The protocol that the loop sees. `inner` sees plaintext, and writes through its Wire, which encrypts.
    cdef Worker worker
    cdef TlsLayer tls
    cdef Wire wire                  # of `inner`
    cdef object inner               # Downstream1 or Upstream1
    cdef object transport
    cdef bint cut                   # the connection ended without close_notify

    cdef int _feed(self, bytes data) except -1
    cdef int _opened(self) except -1                # the handshake is over
    cdef int _failed(self) except -1                # it never will be
    cdef int _flush(self) except -1

@cython.final
cdef class TlsServer(TlsShell):
    cdef ListenerSlot slot
    cdef bytes first                # what came before a whole PROXY header was there

    # False: what has come is no ClientHello, or not yet; it has been dealt with.
    cdef bint _begin(self, bytes data) except -1

@cython.final
cdef class TlsClient(TlsShell):
    cdef Endpoint endpoint
    cdef object done                # Future of the Upstream1, for the Connector
