# The thread behind the access log: whole batches of lines, in order, to one file.

cdef class LogWriter:
    # -- where
    cdef readonly str path
    cdef readonly int fd
    cdef bint owned             # opened here, so reopened and closed here
    # -- the queue; the counts are C integers changed under the GIL by both threads
    cdef object queue
    cdef object thread          # started by the first batch: a writer made before the fork works behind it
    cdef int queued             # batches waiting or being written
    cdef Py_ssize_t queued_lines
    cdef bint closed
    # -- what went wrong
    cdef readonly uint64_t dropped      # lines
    cdef readonly uint64_t errors       # failed writes and failed reopenings
    cdef bint torn              # the file ends within a line
    cdef uint64_t unreported    # lines dropped because the queue was full, not told yet
    cdef set told               # what has been told on stderr since the last (re)opening

    # Takes a batch of whole lines. Never blocks; when the queue is full (or memory is short) the lines are dropped and counted.
    cdef void put(self, const char* data, Py_ssize_t length, Py_ssize_t lines) noexcept
