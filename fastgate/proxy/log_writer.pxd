# The thread behind the access log: whole batches of lines, in order, to one file.

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

cdef enum LogItemKind:
    LOG_BATCH
    LOG_REOPEN
    LOG_STOP

cdef enum:
    LOG_QUEUE = 64              # batches that may wait; then lines are dropped
    # Reopenings stand between batches (one behind another is merged with it), and one stop.
    LOG_RING = 2 * LOG_QUEUE + 4
    LOG_SPARES = 4

cdef struct LogItem:
    int kind
    Out buffer                  # of a batch; owned by the queue
    int64_t lines

cdef struct LogShared:
    # What the thread and its LogWriter share; all of it under `lock` but for what is marked as the thread's.
    pthread_mutex_t lock
    pthread_cond_t ready        # something to do
    pthread_cond_t ended
    # -- the queue: the first item stays in it until it is done
    LogItem[LOG_RING] ring
    int first
    int count
    int batches
    int64_t queued_lines
    bint has_ended
    Out[LOG_SPARES] spares      # written batches, to be filled again
    int spare_count
    # -- the file: the thread's once it runs
    char* path                  # NULL: stdout or stderr, neither opened nor closed here
    char* name                  # for messages
    int fd
    bint torn                   # the file ends within a line
    bint[256] told              # errors told since the last opening, by errno; 0: the full queue
    # -- counts
    uint64_t dropped            # lines
    uint64_t errors             # failed writes and reopenings
    uint64_t untold             # lines dropped for a full queue, not told yet

@cython.final
cdef class LogWriter:
    cdef LogShared* shared
    cdef pthread_t thread
    # Started by the first batch, so that a writer made before the fork works behind it. It never takes the
    # GIL.
    cdef bint running
    cdef bint closed
    cdef readonly str path

    # Takes the batch's buffer and leaves an empty one. Never blocks on the file; if the queue is full or no
    # thread can be started, the lines are dropped and counted.
    cdef void put(self, Out* batch, int64_t lines) noexcept nogil
    cdef bint _start(self) noexcept nogil
    cdef void _push(self, int kind, Out* batch, int64_t lines) noexcept nogil
