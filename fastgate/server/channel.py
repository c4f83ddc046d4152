"""Messages between two processes that a socket pair joins, with open descriptors where they have some."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["MOST_DESCRIPTORS", "Channel", "channel_pair"]

_HEAD: Final = struct.Struct("=II")  # bytes of the body, descriptors
MOST_DESCRIPTORS: Final = 250  # with one message; Linux takes 253
MOST_BYTES: Final = 256 * 1024 * 1024
_PIECE: Final = 256 * 1024


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends; they do not block."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in pair:
        end.setblocking(False)
    return pair


class Channel:
    """One end. taken: is given each message, and the descriptors that came with it, which are its to close.
    lost: called once, when the other end is gone.

    Made in the loop that runs; a message is sent whole or not at all, and in order.
    """

    def __init__(
        self, sock: socket.socket, taken: Callable[[bytes, list[int]], None], lost: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._taken = taken
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._in = bytearray()
        self._descriptors: deque[int] = deque()
        self._out: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._open = True
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, body: bytes, descriptors: Sequence[int] = ()) -> None:
        """What can't be sent at once is sent when the other end has read on. The descriptors are copied: the
        caller may close its own."""
        if not self._open:
            return
        copies = [os.dup(each) for each in descriptors]
        idle = not self._out
        self._out.append((memoryview(_HEAD.pack(len(body), len(copies)) + body), copies))
        if idle:
            self._writable()

    def close(self) -> None:
        """Nothing comes and goes any more; ``lost`` is not called."""
        if not self._open:
            return
        self._open = False
        fd = self._sock.fileno()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._sock.close()
        for _, copies in self._out:
            _close(copies)
        _close(self._descriptors)
        self._out.clear()

    def _writable(self) -> None:
        try:
            while self._out:
                rest, copies = self._out[0]
                ancillary = (
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", copies))] if copies else []
                )
                sent = self._sock.sendmsg([rest[:_PIECE]], ancillary)
                _close(copies)
                if sent == len(rest):
                    self._out.popleft()
                else:
                    self._out[0] = (rest[sent:], ())
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        except OSError:
            self._gone()
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            room = socket.CMSG_SPACE(4 * MOST_DESCRIPTORS)
            data, ancillary, _, _ = self._sock.recvmsg(_PIECE, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, held in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(held[: len(held) - len(held) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if not data:
            self._gone()
            return
        self._in += data
        while self._open and len(self._in) >= _HEAD.size:
            length, count = _HEAD.unpack_from(self._in)
            if length > MOST_BYTES or count > MOST_DESCRIPTORS:
                self._gone()
                return
            end = _HEAD.size + length
            if len(self._in) < end:
                return
            body = bytes(memoryview(self._in)[_HEAD.size : end])
            del self._in[:end]
            self._taken(body, [self._descriptors.popleft() for _ in range(count)])

    def _gone(self) -> None:
        if self._open:
            self.close()
            self._lost()


def _close(descriptors: Sequence[int] | deque[int]) -> None:
    for each in descriptors:
        os.close(each)
