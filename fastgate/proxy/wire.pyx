# Theory of operation: the protocol objects write to the socket themselves (one system call, no Python object) as long
# as the transport's own queue is empty; what the kernel does not take goes to the transport, and from then on
# everything queues behind it until it has drained. Both event loops (uvloop, asyncio) close the descriptor only after
# `connection_lost` has returned, where `fd` is forgotten: a write can never reach a descriptor that was used again.

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "<sys/ioctl.h>" nogil:
    enum:
        TIOCOUTQ            # SIOCOUTQ for sockets

cdef extern from "<sys/socket.h>" nogil:
    cdef enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
        MSG_PEEK
        SOL_SOCKET
        SO_LINGER
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        iovec* msg_iov
        size_t msg_iovlen
    struct linger:
        int l_onoff
        int l_linger
    ssize_t c_send "send"(int fd, const void* data, size_t length, int flags)
    ssize_t c_recv "recv"(int fd, void* data, size_t length, int flags)
    ssize_t c_sendmsg "sendmsg"(int fd, const msghdr* message, int flags)
    int c_ioctl "ioctl"(int fd, unsigned long request, int* value)
    struct sockaddr:
        pass
    int c_getpeername "getpeername"(int fd, sockaddr* name, unsigned int* length)
    int c_setsockopt "setsockopt"(int fd, int level, int option, const void* value, unsigned int length)

cdef extern from "<netinet/in.h>" nogil:
    cdef enum:
        AF_INET
        AF_INET6
    struct sockaddr_in:
        uint16_t sin_port
        uint32_t sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint8_t[16] sin6_addr
    uint16_t ntohs(uint16_t value)

cdef enum:
    HIGH_WATER = 65536
    LOW_WATER = 16384


cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"     # IPv4 as IPv6 (RFC 4291 2.5.5.2)


cdef inline object part_of(bytes owner, const char* data, Py_ssize_t length):
    # These bytes of `owner` as an object that the parser takes: the owner itself, if they are all of it.
    if length == PyBytes_GET_SIZE(owner):
        return owner
    return PyMemoryView_FromMemory(<char*>data, length, PyBUF_READ)


cdef class Wire:
    def __cinit__(self):
        self.fd = -1

    cdef int open(self, transport) except -1:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self.fd = sock.fileno()
        return 0

    cdef bint peer(self, Address* address, uint16_t* port) noexcept:
        cdef sockaddr_in6 name              # a Unix socket's does not fit, and is cut
        cdef sockaddr_in* four = <sockaddr_in*>&name
        cdef unsigned int size = sizeof(name)
        memset(address, 0, sizeof(Address))
        port[0] = 0
        if self.fd < 0:
            return False
        if c_getpeername(self.fd, <sockaddr*>&name, &size) != 0:
            return True                     # it has gone already
        if name.sin6_family == AF_INET6:
            memcpy(address.bytes, &name.sin6_addr, 16)
            port[0] = ntohs(name.sin6_port)
        elif name.sin6_family == AF_INET:
            memset(&address.bytes[10], 255, 2)
            memcpy(&address.bytes[12], &four.sin_addr, 4)
            port[0] = ntohs(four.sin_port)
        else:
            return True
        address.family = 4 if memcmp(address.bytes, MAPPED, 12) == 0 else 6
        return True

    cdef int send(self, const char* data, size_t length) except -1:
        cdef Span part = span_of(data, <Py_ssize_t>length)
        return self.send_parts(&part, 1)

    cdef int send_parts(self, Span* parts, int count) except -1:
        if self.tls is None:
            return self.send_plain(parts, count)
        return self.tls.send(self, parts, count, PyByteArray_AS_STRING(self.shell.worker.tls_scratch))

    cdef bint is_whole(self) noexcept:
        return self.transport is not None and not self.finished and (self.tls is None or self.tls.state == TLS_OPEN)

    cdef bint at_fin(self) noexcept:
        cdef char one
        return self.fd >= 0 and c_recv(self.fd, &one, 1, MSG_PEEK | MSG_DONTWAIT) == 0

    cdef int _goodbye(self) except -1:
        cdef bytes data
        cdef Span part
        if self.tls is not None and not self.finished:
            data = self.tls.goodbye()
            if data:
                part = bytes_span(data)
                self.send_plain(&part, 1)
        return 0

    cdef int send_plain(self, Span* parts, int count) except -1:
        cdef iovec[MAX_PARTS] pieces
        cdef msghdr message
        cdef ssize_t sent = 0
        cdef Py_ssize_t total = 0
        cdef int i, result = SENT_ALL
        if self.queued and self.waiting() == 0:
            self.queued = False
        for i in range(count):
            total += parts[i].len
        self.handed += total
        if self.fd >= 0 and not self.queued and not self.finished:
            if count == 1:
                sent = c_send(self.fd, parts[0].ptr, <size_t>total, MSG_NOSIGNAL | MSG_DONTWAIT)
            else:
                for i in range(count):
                    pieces[i].iov_base = <void*>parts[i].ptr
                    pieces[i].iov_len = <size_t>parts[i].len
                memset(&message, 0, sizeof(message))
                message.msg_iov = pieces
                message.msg_iovlen = <size_t>count
                sent = c_sendmsg(self.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == total:
                return SENT_ALL
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.error = errno
                    return SENT_BROKEN
                sent = 0
        for i in range(count):
            if sent >= parts[i].len:
                sent -= parts[i].len
                continue
            result = self._queue(parts[i].ptr + sent, <size_t>(parts[i].len - sent))
            sent = 0
        return result

    cdef int _queue(self, const char* data, size_t length) except -1:
        if self.transport is None or self.finished or self.transport.is_closing():
            return SENT_BROKEN
        self.queued = True
        if not self.limited:
            self.limited = True
            # A plain transport's default low-water mark is 16 bytes in uvloop 0.23.
            self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.transport.write(PyBytes_FromStringAndSize(data, <Py_ssize_t>length))
        return SENT_CONGESTED if self.congested else SENT_QUEUED

    cdef size_t waiting(self) except? 0xFFFFFFFF:
        if self.transport is None:
            return 0
        return <size_t>self.transport.get_write_buffer_size()

    cdef size_t unsent(self) except? 0xFFFFFFFF:
        cdef int kernel = 0
        if self.fd >= 0 and c_ioctl(self.fd, TIOCOUTQ, &kernel) < 0:
            kernel = 0
        return self.waiting() + <size_t>kernel

    cdef int pause(self) except -1:
        if not self.paused and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()
        return 0

    cdef int resume(self) except -1:
        if self.paused and self.transport is not None:
            self.paused = False
            self.transport.resume_reading()
            if self.shell is not None:
                self.shell.resumed()
        return 0

    cdef void lost(self) noexcept:
        self.fd = -1
        self.transport = None

    cdef int finish(self) except -1:
        if self.transport is not None and not self.transport.is_closing():
            self._goodbye()
            self.finished = True
            self.transport.write_eof()
        return 0

    cdef int close(self) except -1:
        self._goodbye()
        self.finished = True
        if self.transport is not None:
            self.transport.close()
        return 0

    cdef int abort(self) except -1:
        self.finished = True
        if self.transport is not None:
            self.transport.abort()
        return 0

    cdef int reset(self) except -1:
        cdef linger now
        if self.fd >= 0:
            now.l_onoff = 1
            now.l_linger = 0
            c_setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))
        return self.abort()
