# TLS on a connection: between the loop's plain transport and the protocol that speaks HTTP.

cdef enum TlsState:
    TLS_HELLO               # nothing has come yet
    TLS_HANDSHAKE
    TLS_OPEN
    TLS_ENDED               # the peer has sent close_notify: it writes no more
    TLS_BROKEN              # an alert was sent or received, or what came makes no sense

@cython.final
cdef class TlsInfo:
    # What plugins see; it outlives the connection.
    cdef readonly str version
    cdef readonly str cipher
    cdef readonly str server_name
    cdef readonly bytes certificate

@cython.final
cdef class TlsLayer:
    cdef object __weakref__
    cdef TlsEngine engine           # None before it has begun
    # -- of the ClientHello; whoever chooses the context sets it: at the beginning, or as a context's SNI callback
    cdef public str asked_for       # the name that the client has asked for; None: none
    cdef public bint wants_challenge    # its ClientHello seems to be an ACME authority's
    cdef public bint settled        # the context is the name's: its SNI callback has nothing to say
    # -- records on their way in: what the engine has not been given yet waits in `held`
    cdef bytes held
    cdef Py_ssize_t held_at
    cdef unsigned char[5] header    # of the record that is coming, as far as it is here
    cdef int header_size
    cdef Py_ssize_t left            # bytes of it that have not come yet
    cdef bint may_wait              # the next record, if it is a change_cipher_spec
    cdef bint whole                 # the engine has a whole record, or something that is none
    # -- where it stands
    cdef int state                  # TlsState
    cdef bint said_goodbye          # close_notify was sent
    cdef str failure                # what OpenSSL said, or the certificate's fault
    # -- what the handshake has agreed on
    cdef bytes version              # "TLSv1.3"
    cdef bytes cipher
    cdef bytes sni                  # `asked_for`, for the log
    cdef TlsInfo seen               # the same for plugins, made for the first that asks

    cdef int open(self, TlsEngine engine) except -1
    cdef bint handshake(self) except -1             # True: it is over, and well
    cdef int _broken(self) except -1                # as the engine says
    # Puts these bytes behind those that are held.
    cdef int hold(self, bytes data) except -1
    # From `held` into the engine, up to the end of the record that is coming; then `whole` is set.
    cdef int feed(self) except -1
    # The plaintext of the record that it was given, up to TLS_RECORD bytes; 0: there is none in it, see `state`.
    cdef Py_ssize_t decrypt(self, char* room) except -1
    # Encrypts and sends; a `Sent`. room: TLS_RECORD bytes, in which short parts are joined.
    cdef int send(self, Wire wire, Span* parts, int count, char* room) except -1
    cdef bytes _encrypt(self, const char* data, Py_ssize_t length)     # None: the state is TLS_BROKEN
    cdef TlsInfo info(self)
    cdef bytes goodbye(self)                        # close_notify, once; b"" where it may not be sent

cdef class TlsShell:
    # The protocol that the loop sees. `inner` sees plaintext, and writes through its Wire, which encrypts.
    cdef Worker worker
    cdef TlsLayer tls
    cdef Wire wire                  # of `inner`; None when the connection is over
    cdef object inner               # Downstream1 or Upstream1
    cdef object receive             # its data_received
    cdef bint reading               # inside `_read`
    cdef bint late_ticket           # what the end of a handshake has to say may wait for the next bytes that are sent
    cdef bint fin                   # FIN has come, and what is held is to be read first
    cdef bint keeps                 # `inner` goes on writing behind the peer's close_notify
    cdef object cause               # why the connection was given up; None: it was not

    cdef int resumed(self) except -1                # the wire is not paused any more
    cdef int _read(self) except -1
    cdef int _decrypt(self) except -1
    cdef int _end(self) except -1                   # FIN
    cdef int _give_up(self, cause) except -1
    cdef bint _flush(self) except -1                # whether the session had anything to say itself
    cdef int _opened(self) except -1                # the handshake is over
    cdef int _failed(self) except -1                # it never will be
    cdef int _told(self) except -1                  # the peer has said something that is no data

@cython.final
cdef class TlsServer(TlsShell):
    cdef ListenerSlot slot
    cdef bytes first                # what came before a whole PROXY header was there

    # Where TLS begins in what has come; None: that is no ClientHello, or not yet, and has been dealt with.
    cdef bytes _begin(self, bytes data)

@cython.final
cdef class TlsClient(TlsShell):
    cdef Endpoint endpoint
    cdef object done                # Future of the Upstream1, for the Connector
    cdef str name
    cdef bint kept                  # its session is the endpoint's, or is not wanted
