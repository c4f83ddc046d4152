# The thread behind the access log.
#
# The event loop must wait neither for a disk nor for whoever reads the pipe, so it only hands buffers over.
# The thread is a plain one that never takes the GIL: a Python thread gets it only every few milliseconds from
# a loop under full load, and the queue would run over just then. The queue is bounded: LOG_QUEUE buffers that
# nobody takes are all that a stuck reader costs; what comes then is dropped, counted, and told as soon as the
# writer gets on. Rotation goes through the same queue, so every line before SIGUSR1 is in the old file and
# every line behind it in the new one.

import os

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdio cimport snprintf

cdef extern from "<pthread.h>" nogil:
    int pthread_create(
        pthread_t* thread, const void* attributes, void* (*run)(void*) noexcept nogil, void* argument
    )
    int pthread_join(pthread_t thread, void** result)
    int pthread_detach(pthread_t thread)
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_cond_init(pthread_cond_t* condition, const void* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_signal(pthread_cond_t* condition)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex)
    int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const _LogTime* until)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutexattr_t:
        pass
    int pthread_mutexattr_init(pthread_mutexattr_t* attributes)
    int pthread_mutexattr_setpshared(pthread_mutexattr_t* attributes, int shared)
    int pthread_mutexattr_setrobust(pthread_mutexattr_t* attributes, int robust)
    int pthread_mutex_consistent(pthread_mutex_t* mutex)
    int PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST

cdef extern from "<errno.h>" nogil:
    int EOWNERDEAD

cdef extern from "<sys/stat.h>" nogil:
    ctypedef struct _LogStat "struct stat":
        unsigned int st_mode
    int _log_stat "fstat"(int fd, _LogStat* found)
    bint S_ISREG(unsigned int mode)

cdef extern from "<time.h>" nogil:
    ctypedef struct _LogTime "struct timespec":
        long tv_sec
        long tv_nsec
    int _log_now "clock_gettime"(int clock, _LogTime* now)
    int CLOCK_REALTIME

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t* signals)
    int pthread_sigmask(int how, const sigset_t* new, sigset_t* old)
    int SIG_SETMASK

cdef extern from "<fcntl.h>" nogil:
    int _log_open "open"(const char* path, int flags, int mode)
    int O_WRONLY, O_APPEND, O_CREAT, O_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    int _log_close "close"(int fd)
    Py_ssize_t _log_write "write"(int fd, const void* data, size_t length)

cdef extern from "<poll.h>" nogil:
    ctypedef struct _LogPoll "struct pollfd":
        int fd
        short events
        short revents
    int _log_poll "poll"(_LogPoll* waits, unsigned long count, int milliseconds)
    short POLLOUT

cdef extern from "<string.h>" nogil:
    char* strerror(int number)
    char* strdup(const char* text)


cdef int _log_open_file(const char* path) noexcept nogil:
    return _log_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o640)


cdef void _log_tell(LogShared* shared, int number, const char* format, int64_t lines) noexcept nogil:
    # Once for each kind of trouble until the file is opened anew. `format` has the file's name, a number of
    # lines, a reason.
    cdef char[512] text
    cdef char[640] line
    cdef int length
    if shared.told[number & 255]:
        return
    shared.told[number & 255] = True
    snprintf(text, sizeof(text), format, shared.name, <long long>lines, strerror(number))
    length = snprintf(line, sizeof(line), b"fastgate: access log: %s\n", text)
    # If stderr is gone too, the counts are all that is left to tell it.
    if length > 0 and _log_write(2, line, <size_t>length) < 0:
        shared.errors += 1


cdef int64_t _log_count_lines(const char* at, size_t length) noexcept nogil:
    cdef int64_t lines = 0
    cdef const char* end = at + length
    while at < end:
        at = <const char*>memchr(at, 10, <size_t>(end - at))
        if at == NULL:
            break
        lines += 1
        at += 1
    return lines


cdef int _log_write_some(LogShared* shared, const char* data, size_t length, size_t* done) noexcept nogil:
    # Until all is written (0) or an error that does not go away by waiting (its errno).
    cdef Py_ssize_t written
    cdef _LogPoll wait
    while done[0] < length:
        written = _log_write(shared.fd, data + done[0], length - done[0])
        if written >= 0:
            done[0] += <size_t>written
        elif errno == EAGAIN:
            # Someone made the pipe non-blocking.
            wait.fd = shared.fd
            wait.events = POLLOUT
            _log_poll(&wait, 1, 1000)
        elif errno != EINTR:
            return errno
    return 0


# Workers write to one pipe or socket: a batch is more than the kernel takes in one piece, so one at a time. (To a file,
# O_APPEND does that.) In memory that is mapped before they are forked; robust, so that it is left by who is killed.
cdef pthread_mutex_t* _log_turn = NULL


cdef int _log_make_turn() except -1:
    cdef pthread_mutexattr_t attributes
    cdef void* mapping = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
    global _log_turn
    if mapping == MAP_FAILED:
        raise MemoryError
    _log_turn = <pthread_mutex_t*>mapping
    pthread_mutexattr_init(&attributes)
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED)
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST)
    pthread_mutex_init(_log_turn, &attributes)
    return 0


_log_make_turn()


cdef void _log_write_batch(LogShared* shared, const Out* buffer) noexcept nogil:
    # By the thread, without the lock.
    cdef _LogStat found
    if _log_stat(shared.fd, &found) == 0 and S_ISREG(found.st_mode):
        _log_write_whole(shared, buffer)
        return
    if pthread_mutex_lock(_log_turn) == EOWNERDEAD:
        pthread_mutex_consistent(_log_turn)
        shared.torn = True              # whoever was killed may have been within a line
    _log_write_whole(shared, buffer)
    pthread_mutex_unlock(_log_turn)


cdef void _log_write_whole(LogShared* shared, const Out* buffer) noexcept nogil:
    # After a failure within a line a line end goes first: the torn line stays the only bad one.
    cdef size_t done = 0, ended = 0
    cdef int failed = 0
    cdef int64_t lost
    if shared.torn:
        failed = _log_write_some(shared, b"\n", 1, &ended)
        if failed == 0:
            shared.torn = False
    if failed == 0:
        failed = _log_write_some(shared, buffer.data, buffer.len, &done)
        if done and buffer.data[done - 1] != 10:
            shared.torn = True
    if failed == 0:
        return
    lost = _log_count_lines(buffer.data + done, buffer.len - done)
    pthread_mutex_lock(&shared.lock)
    shared.errors += 1
    shared.dropped += <uint64_t>lost
    _log_tell(shared, failed, b"writing to %s fails, %lld lines dropped so far: %s", lost)
    pthread_mutex_unlock(&shared.lock)


cdef void _log_reopen_file(LogShared* shared) noexcept nogil:
    cdef int fresh, failed
    if shared.path == NULL:
        return
    fresh = _log_open_file(shared.path)
    if fresh >= 0:
        _log_close(shared.fd)
        shared.fd = fresh
        shared.torn = False
        memset(shared.told, 0, sizeof(shared.told))
        return
    failed = errno
    pthread_mutex_lock(&shared.lock)
    shared.errors += 1
    _log_tell(shared, failed, b"%s cannot be reopened, the old file is kept, %lld lines lost: %s", 0)
    pthread_mutex_unlock(&shared.lock)


cdef void* _log_run(void* argument) noexcept nogil:
    cdef LogShared* shared = <LogShared*>argument
    cdef LogItem* item
    cdef int kind
    pthread_mutex_lock(&shared.lock)
    while True:
        while shared.count == 0:
            pthread_cond_wait(&shared.ready, &shared.lock)
        # Nobody else changes an item that is in the ring.
        item = &shared.ring[shared.first]
        kind = item.kind
        pthread_mutex_unlock(&shared.lock)
        if kind == LOG_BATCH:
            _log_write_batch(shared, &item.buffer)
        elif kind == LOG_REOPEN:
            _log_reopen_file(shared)
        pthread_mutex_lock(&shared.lock)
        if kind == LOG_BATCH:
            shared.batches -= 1
            shared.queued_lines -= item.lines
            if shared.spare_count < LOG_SPARES:
                item.buffer.len = 0
                shared.spares[shared.spare_count] = item.buffer
                shared.spare_count += 1
            else:
                out_free(&item.buffer)
        shared.first = (shared.first + 1) % LOG_RING
        shared.count -= 1
        if shared.untold:
            _log_tell(shared, 0, b"%s is too slow, %lld lines dropped so far", <int64_t>shared.untold)
            shared.untold = 0
        if kind == LOG_STOP:
            break
    shared.has_ended = True
    pthread_cond_signal(&shared.ended)
    pthread_mutex_unlock(&shared.lock)
    return NULL


cdef class LogWriter:
    """Writes batches of lines to `path`: "stdout", "stderr" or a file, which is opened at once (OSError)."""

    def __cinit__(self, path: str) -> None:
        cdef int failed
        self.path = path
        self.shared = <LogShared*>calloc(1, sizeof(LogShared))
        if self.shared == NULL:
            raise MemoryError
        pthread_mutex_init(&self.shared.lock, NULL)
        pthread_cond_init(&self.shared.ready, NULL)
        pthread_cond_init(&self.shared.ended, NULL)
        cdef bytes name = path.encode("utf-8", "backslashreplace")
        cdef bytes raw = os.fsencode(path)
        self.shared.fd = -1
        if b"\0" in raw:
            raise ValueError("a path has no null byte")
        self.shared.name = strdup(name)
        if self.shared.name == NULL:
            raise MemoryError
        if path in ("stdout", "stderr"):
            self.shared.fd = 1 if path == "stdout" else 2
            return
        self.shared.path = strdup(raw)
        if self.shared.path == NULL:
            raise MemoryError
        self.shared.fd = _log_open_file(self.shared.path)
        if self.shared.fd < 0:
            failed = errno
            raise OSError(failed, os.strerror(failed), path)

    def __dealloc__(self):
        if self.shared == NULL or self.running:
            # A running thread (never closed, or stuck for good) still uses it: both end with the process.
            return
        if self.shared.path != NULL and self.shared.fd >= 0:
            _log_close(self.shared.fd)
        while self.shared.spare_count:
            self.shared.spare_count -= 1
            out_free(&self.shared.spares[self.shared.spare_count])
        free(self.shared.path)
        free(self.shared.name)
        pthread_mutex_destroy(&self.shared.lock)
        pthread_cond_destroy(&self.shared.ready)
        pthread_cond_destroy(&self.shared.ended)
        free(self.shared)

    cdef bint _start(self) noexcept nogil:
        # All signals are blocked in the thread: they are the loop's.
        cdef sigset_t every, before
        if self.running:
            return True
        sigfillset(&every)
        pthread_sigmask(SIG_SETMASK, &every, &before)
        self.running = pthread_create(&self.thread, NULL, _log_run, self.shared) == 0
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        return self.running

    cdef void _push(self, int kind, Out* batch, int64_t lines) noexcept nogil:
        # Under the lock; the ring has room for all that the callers let in.
        cdef LogItem* item = &self.shared.ring[(self.shared.first + self.shared.count) % LOG_RING]
        item.kind = kind
        item.lines = lines
        if batch != NULL:
            item.buffer = batch[0]
        self.shared.count += 1
        pthread_cond_signal(&self.shared.ready)

    cdef void put(self, Out* batch, int64_t lines) noexcept nogil:
        cdef LogShared* shared = self.shared
        cdef size_t room = batch.room
        cdef bint taken
        taken = not self.closed and self._start()
        pthread_mutex_lock(&shared.lock)
        if taken and shared.batches < LOG_QUEUE:
            self._push(LOG_BATCH, batch, lines)
            shared.batches += 1
            shared.queued_lines += lines
            if shared.spare_count:
                shared.spare_count -= 1
                batch[0] = shared.spares[shared.spare_count]
            else:
                memset(batch, 0, sizeof(Out))
        else:
            taken = False
            shared.dropped += <uint64_t>lines
            shared.untold += <uint64_t>lines
        pthread_mutex_unlock(&shared.lock)
        batch.len = 0
        if taken and batch.data == NULL and not out_reserve(batch, room):
            batch.failed = False        # the next line tries again

    def reopen(self) -> None:
        """Opens the file anew behind the batches handed over, without waiting; stdout and stderr stay."""
        cdef int last
        if self.shared.path == NULL or self.closed or not self._start():
            return
        pthread_mutex_lock(&self.shared.lock)
        last = (self.shared.first + self.shared.count - 1) % LOG_RING
        # The first item may be under way, so only one that waits can stand for this one too.
        if self.shared.count < 2 or self.shared.ring[last].kind != LOG_REOPEN:
            self._push(LOG_REOPEN, NULL, 0)
        pthread_mutex_unlock(&self.shared.lock)

    def close(self, timeout: float) -> bool:
        """Writes what is queued, for at most `timeout` seconds. False if the writer was stuck; then the lines
        that it still had count as dropped."""
        cdef LogShared* shared = self.shared
        cdef _LogTime until
        cdef long long wait_ns = <long long>(max(0.0, timeout) * 1e9)
        cdef bint ended
        if self.closed:
            return True
        self.closed = True
        if self.running:
            _log_now(CLOCK_REALTIME, &until)
            wait_ns += until.tv_nsec
            until.tv_sec += <long>(wait_ns // 1000000000)
            until.tv_nsec = <long>(wait_ns % 1000000000)
            with nogil:
                pthread_mutex_lock(&shared.lock)
                self._push(LOG_STOP, NULL, 0)
                while not shared.has_ended:
                    if pthread_cond_timedwait(&shared.ended, &shared.lock, &until) != 0:
                        break
                ended = shared.has_ended
                if not ended:
                    shared.dropped += <uint64_t>shared.queued_lines
                pthread_mutex_unlock(&shared.lock)
                if ended:
                    pthread_join(self.thread, NULL)
                else:
                    pthread_detach(self.thread)
            if not ended:
                # The thread keeps using `shared`, which stays until the process ends.
                return False
            self.running = False
        if shared.path != NULL:
            _log_close(shared.fd)
            shared.fd = -1
        return True

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self.shared.dropped

    @property
    def waiting(self) -> int:
        """Lines handed over and not written yet."""
        return self.shared.queued_lines

    @property
    def errors(self) -> int:
        """Failed writes and reopenings."""
        return self.shared.errors

