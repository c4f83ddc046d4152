# The thread behind the access log.
#
# The event loop must not wait for a disk or for whoever reads the pipe, so it only hands over batches. The queue is
# bounded: LOG_QUEUE batches that nobody takes are all that a stuck reader costs; what comes then is dropped, counted, and told once
# the writer gets on. Rotation goes through the same queue, so every line before SIGUSR1 is in the old file.

import os
import queue as _queue
import select
import threading

from cpython.bytes cimport PyBytes_FromStringAndSize

cdef enum:
    _LOG_QUEUE = 64

_LOG_STOP = object()
_LOG_REOPEN = object()


cdef class LogWriter:
    """Writes batches of lines to `path`: "stdout", "stderr" or a file, which is opened at once (OSError).

    dropped: lines that were not written; errors: failed writes and reopenings.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.told = set()
        self.queue = _queue.SimpleQueue()
        self.fd = -1
        self.owned = path not in ("stdout", "stderr")
        self.fd = self._open() if self.owned else (1 if path == "stdout" else 2)

    def __dealloc__(self):
        if self.owned and self.fd >= 0:
            _log_close(self.fd)

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    cdef void put(self, const char* data, Py_ssize_t length, Py_ssize_t lines) noexcept:
        if self.closed or self.queued >= _LOG_QUEUE:
            self.dropped += <uint64_t>lines
            self.unreported += <uint64_t>lines
            return
        try:
            if self.thread is None:
                self._start()
            self.queue.put((PyBytes_FromStringAndSize(data, length), lines))
        except (MemoryError, RuntimeError) as error:
            # No memory for the batch or no thread to write it; the writer tells of it when it can.
            self.errors += 1
            self.dropped += <uint64_t>lines
            self.unreported += <uint64_t>lines
            self._tell("put", f"access log: a batch was lost: {error!r}")
            return
        self.queued += 1
        self.queued_lines += lines

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="fastgate-access-log", daemon=True)
        thread.start()
        self.thread = thread

    def reopen(self) -> None:
        """Opens the file anew behind the batches already handed over; nothing for stdout and stderr."""
        if self.owned and not self.closed:
            if self.thread is None:
                self._start()
            self.queue.put(_LOG_REOPEN)

    def close(self, timeout: float) -> bool:
        """Writes what is queued, for at most `timeout` seconds. False if the writer was stuck; then the lines that it still
        had count as dropped."""
        if self.closed:
            return True
        self.closed = True
        if self.thread is not None:
            self.queue.put(_LOG_STOP)
            self.thread.join(timeout)
            if self.thread.is_alive():
                # Its descriptor stays open: closing it under a blocked write would let the number be reused.
                self.dropped += <uint64_t>self.queued_lines
                self.owned = False
                return False
        if self.owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        return True

    def _run(self) -> None:
        while True:
            item = self.queue.get()
            if item is _LOG_STOP:
                self._tell_dropped()
                return
            if item is _LOG_REOPEN:
                self._reopen()
                continue
            batch, lines = item
            self._write(batch)
            self.queued -= 1
            self.queued_lines -= lines
            self._tell_dropped()

    def _write(self, batch: bytes) -> None:
        # After a failure within a line, a line end first: the torn line stays the only bad one.
        cdef bytes rest = b"\n" + batch if self.torn else batch
        view = memoryview(rest)
        cdef Py_ssize_t at = 0
        while at < len(rest):
            try:
                at += os.write(self.fd, view[at:])      # EINTR is retried by os.write (PEP 475)
            except BlockingIOError:
                # Someone made the pipe non-blocking.
                poll = select.poll()
                poll.register(self.fd, select.POLLOUT)
                poll.poll()
            except OSError as error:
                self.errors += 1
                self.dropped += <uint64_t>rest.count(b"\n", at) - (self.torn and at == 0)
                self.torn = (self.torn and at == 0) or (at > 0 and rest[at - 1 : at] != b"\n")
                self._tell(error.errno, f"access log: writing to {self.path} fails: {error.strerror}; lines are dropped")
                return
        self.torn = False

    def _reopen(self) -> None:
        try:
            fresh = self._open()
        except OSError as error:
            self.errors += 1
            self._tell("reopen", f"access log: {self.path} cannot be reopened: {error.strerror}; the old file stays in use")
            return
        os.close(self.fd)
        self.fd = fresh
        self.torn = False
        self.told.clear()

    def _tell_dropped(self) -> None:
        if self.unreported:
            lines = self.unreported
            self.unreported = 0
            self._tell("queue", f"access log: {self.path} is too slow; {lines} lines were dropped so far")

    def _tell(self, kind: object, text: str) -> None:
        if kind in self.told:
            return
        self.told.add(kind)
        try:
            os.write(2, f"fastgate: {text}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            # stderr is gone too: `errors` and `dropped` are all that is left to tell it.
            self.errors += 1


cdef extern from "unistd.h" nogil:
    int _log_close "close"(int fd)
