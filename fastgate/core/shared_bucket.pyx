# Theory of operation. A bucket is one number, the time at which it will be full again (GCRA, ITU-T I.371): taking a token
# moves it on by the time that one token takes to come back, and a request passes if it does not get further ahead of now than
# an empty bucket is. So a decision is one compare-and-swap: exact whoever else decides, without a lock that somebody who is
# killed could keep.
#
# Buckets lie in a file in /dev/shm that all gateways of one user with the same configuration file map, and that is gone when
# the last of them is: each holds a shared lock on it, and who gets it alone at the end removes it. A key has one set of
# buckets where it can be, as in a processor's cache. One that is full is as good as none, so the first such of a set is given
# to a new key; is there none, the one that is full soonest. Two processes that do this for one key at one time could give it
# two buckets: so each looks again behind its own claim, and the first in the set is the one that counts.
#
# A key is 64 bits of a hash that is keyed by random bits of the file: among a million keys the chance that two of one set are
# equal is 1 to 10^8.

import glob
import logging
import secrets
import stat

from libc.math cimport fmin as _c_fmin

cdef extern from "<sys/file.h>" nogil:
    int c_flock "flock"(int fd, int operation)
    enum:
        LOCK_SH
        LOCK_EX
        LOCK_NB

cdef enum:
    SHARED_SET = 8              # buckets in which a key can be: two cache lines
    SHARED_PAGE = 4096
    SHARED_SHIFT = 6            # the clock's grain: 1/64 ns, so that high rates are not rounded much

cdef bytes SHARED_MAGIC = b"fastgate limit 1"
cdef uint64_t SHARED_MOST = <uint64_t>1 << 61       # nothing is further ahead than that: 417 days

_limits_log = logging.getLogger("fastgate.limits")


class _NotOurs(Exception):
    """A file that can't be trusted, or is another limit's."""


cdef class SharedBuckets:
    """Buckets for `capacity` keys, shared with every process that gives the same `path`.

    count, per_ns, burst: the rule. path: "" shares with processes that are forked from this one alone; so does a file
    that can't be made, which is logged.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, str path, *, count, per_ns, burst, uint64_t capacity):
        cdef uint64_t sets = 1
        if self.header != NULL:
            raise TypeError("made once")
        while sets * SHARED_SET < capacity:
            sets *= 2
        self.mask = sets - 1
        self.interval = max(1, ((per_ns << SHARED_SHIFT) + count // 2) // count)
        self.full = min(burst * self.interval, SHARED_MOST)
        self.length = SHARED_PAGE + sets * SHARED_SET * sizeof(SharedBucket)
        self.maker = os.getpid()
        self.path = path
        if path:
            try:
                self._open()
            except OSError as error:
                _limits_log.warning("%s: %s; the limit holds for this gateway alone", path, error.strerror or error)
                self.path = ""
        if self.header == NULL:
            self._map(-1)
            self._write_header(secrets.token_bytes(16))

    def __dealloc__(self):
        if self.header != NULL:
            munmap(self.header, self.length)
        if self.fd >= 0:
            if self.maker == getpid() and c_flock(self.fd, LOCK_EX | LOCK_NB) == 0:
                try:
                    if self._is_named():
                        os.unlink(self.path)
                except OSError as error:
                    _limits_log.warning("%s: %s", self.path, error.strerror)
            os.close(self.fd)

    # -- the file ------------------------------------------------------------------------------------------------------

    def _map(self, int fd):
        cdef int flags = MAP_SHARED | (MAP_ANONYMOUS | MAP_NORESERVE if fd < 0 else 0)
        cdef void* mapping = mmap(NULL, self.length, PROT_READ | PROT_WRITE, flags, fd, 0)
        if mapping == MAP_FAILED:
            raise OSError(errno, f"no {self.length} bytes of shared memory")
        self.header = <SharedBucketsHeader*>mapping
        self.buckets = <SharedBucket*>(<char*>mapping + SHARED_PAGE)

    def _write_header(self, bytes seed):
        memcpy(self.header.magic, PyBytes_AS_STRING(SHARED_MAGIC), 16)
        memcpy(self.header.seed, PyBytes_AS_STRING(seed), 16)
        self.header.sets = self.mask + 1
        self.header.interval = self.interval
        self.header.full = self.full

    def _open(self):
        # A file that is not ours to believe is replaced; one that its last user removes in between is looked for again.
        for _ in range(100):
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                self._make(replace=False)
                continue
            except OSError as error:
                if not os.path.islink(self.path):
                    raise
                _limits_log.warning("%s is a link, and replaced", self.path)
                self._make(replace=True)
                continue
            self.fd = fd
            c_flock(self.fd, LOCK_SH)
            if not self._is_named():
                os.close(fd)
                self.fd = -1
                continue
            try:
                self._check()
                return
            except _NotOurs as error:
                _limits_log.warning("%s %s, and is replaced", self.path, error)
                os.close(fd)
                self.fd = -1
                self._make(replace=True)
        raise OSError(0, "it is never what it was made as")

    def _is_named(self):
        there = os.fstat(self.fd)
        try:
            named = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (named.st_dev, named.st_ino)

    def _check(self):
        there = os.fstat(self.fd)
        if not stat.S_ISREG(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & 0o077:
            raise _NotOurs("is not a file of this user alone")
        if there.st_size != self.length:
            raise _NotOurs("has another size")
        self._map(self.fd)
        if (self.header.magic[:16] != SHARED_MAGIC or self.header.sets != self.mask + 1
                or self.header.interval != self.interval or self.header.full != self.full):
            munmap(self.header, self.length)
            self.header = NULL
            raise _NotOurs("holds something else")

    def _make(self, bint replace):
        # Whole before it has its name.
        cdef str fresh = f"{self.path}.{os.getpid()}.{secrets.token_hex(4)}"
        self._sweep()
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        c_flock(fd, LOCK_SH)                    # nobody sweeps it away
        try:
            os.ftruncate(fd, self.length)
            self._map(fd)
            self._write_header(secrets.token_bytes(16))
            munmap(self.header, self.length)
            self.header = NULL
            if replace:
                os.rename(fresh, self.path)
            else:
                try:
                    os.link(fresh, self.path)
                except (FileExistsError, FileNotFoundError):
                    pass                        # another process was faster: its file is ours, too; or it swept this one away
        finally:
            os.close(fd)
            if os.path.lexists(fresh):
                os.unlink(fresh)

    def _sweep(self):
        # What gateways that were killed have left behind: nobody holds a lock on it.
        folder, _, name = self.path.rpartition("/")
        for each in glob.glob(f"{folder}/{name.rpartition('-')[0]}-*"):
            try:
                fd = os.open(each, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue                        # gone already, or no file of ours
            try:
                if each != self.path and c_flock(fd, LOCK_EX | LOCK_NB) == 0:
                    os.unlink(each)
            except FileNotFoundError:
                pass
            finally:
                os.close(fd)

    @property
    def seed(self):
        """16 bytes that key the hash of whoever shares."""
        return self.header.seed[:16]

    @property
    def evicted(self):
        """Buckets that were given to another key before they were full, by all."""
        return self.header.evicted

    # -- decisions -----------------------------------------------------------------------------------------------------

    cdef SharedBucket* _find(self, uint64_t key, uint64_t now) noexcept nogil:
        cdef SharedBucket* set = &self.buckets[((key >> 32) & self.mask) * SHARED_SET]
        cdef SharedBucket* chosen
        cdef uint64_t was, due
        cdef int i, at
        key |= 1
        while True:
            chosen = NULL
            due = 0
            for i in range(SHARED_SET):
                was = fg_load64(&set[i].key)
                if was == key:
                    return &set[i]
                if chosen == NULL or due > now:
                    if was == 0 or chosen == NULL or fg_load64(&set[i].due) < due:
                        chosen = &set[i]
                        due = 0 if was == 0 else fg_load64(&set[i].due)
            was = fg_load64(&chosen.key)
            if was == key or not fg_cas64(&chosen.key, was, key):
                continue
            if was == 0:
                due = fg_load64(&chosen.due)    # not 0 where a double claim was undone: what another key has used
            elif due > now:
                fg_add64(&self.header.evicted, 1)
            if due > now:
                fg_cas64(&chosen.due, due, now)
            at = <int>(chosen - set)
            for i in range(SHARED_SET):
                if i != at and fg_load64(&set[i].key) == key:
                    # Claimed twice at one time: the first one counts.
                    if i < at:
                        fg_cas64(&chosen.key, key, 0)
                        return &set[i]
                    fg_cas64(&set[i].key, key, 0)
            return chosen

    cdef bint take(self, uint64_t key, uint64_t tokens, int64_t now_ns, uint64_t* left) noexcept nogil:
        # `left`: of `full`, behind the decision.
        cdef uint64_t now = <uint64_t>now_ns << SHARED_SHIFT
        cdef uint64_t cost = tokens * self.interval
        cdef SharedBucket* bucket = self._find(key, now)
        cdef uint64_t due, begin
        while True:
            due = fg_load64(&bucket.due)
            begin = max(due, now)
            if begin - now + cost > self.full:
                left[0] = self.full - (begin - now) if begin - now < self.full else 0
                return False
            if fg_cas64(&bucket.due, due, begin + cost):
                left[0] = self.full - (begin + cost - now)
                return True

    cdef void charge(self, uint64_t key, int64_t tokens, int64_t now_ns) noexcept nogil:
        cdef uint64_t now = <uint64_t>now_ns << SHARED_SHIFT
        cdef SharedBucket* bucket = self._find(key, now)
        cdef uint64_t due, begin, changed
        cdef double by = <double>tokens * <double>self.interval
        while True:
            due = fg_load64(&bucket.due)
            begin = max(due, now)
            if by >= 0:
                changed = begin + <uint64_t>_c_fmin(by, <double>SHARED_MOST)
                changed = min(changed, now + 2 * self.full)
            else:
                changed = max(now, begin - <uint64_t>_c_fmin(-by, <double>(begin - now)))
            if fg_cas64(&bucket.due, due, changed):
                return
