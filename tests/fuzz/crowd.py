"""Several clients at one small pool, and endpoints that fail: every answer is the one to its request."""

from __future__ import annotations

from random import Random

from .grammar import split
from .memory import Transport
from .reader import Message
from .scenario import Finding, Rig, UpstreamEnd, details, read_responses


def run_crowd(rig: Rig, random: Random) -> str:
    rig.upstream_high = random.choice((0, 0, 100))
    rig.script = None
    rig.faults = random if random.random() < 0.7 else None
    clients = [Guest(rig, random, number) for number in range(random.randint(2, 6))]
    try:
        idle = 0
        while idle < 2:
            moved = rig.loop.run()
            for guest in clients:
                moved |= guest.turn()
            for upstream in rig.upstreams:
                moved |= serve(rig, random, upstream)
            idle = 0 if moved or any(g.waits for g in clients) or any(map(waits, rig.upstreams)) else idle + 1
        rig.faults = None
        for guest in clients:
            guest.check()
        check_sent_once(rig)
        return "faults" if any(u.transport.lost for u in rig.upstreams) else "well"
    finally:
        rig.faults = None
        for guest in clients[1:]:
            guest.transport.lose()
        rig.leave(clients[0].transport)


class Guest:
    def __init__(self, rig: Rig, random: Random, number: int) -> None:
        self.rig = rig
        self.random = random
        self.transport: Transport = rig.client(0, random.choice((0, 0, 100)))
        self.methods: list[bytes] = []
        self.paths: list[bytes] = []
        data = b""
        for turn in range(random.randint(1, 4)):
            path = b"/few/%d-%d" % (number, turn)
            method = random.choice((b"GET", b"GET", b"POST", b"PUT"))
            body = path * random.randint(1, 8)
            data += b"%b %b HTTP/1.1\r\nHost: a\r\n" % (method, path)
            if method == b"GET":
                data += b"\r\n"
            elif random.random() < 0.5:
                data += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            else:
                data += b"Transfer-Encoding: chunked\r\n\r\n"
                data += b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
            self.methods.append(method)
            self.paths.append(path)
        self.pieces = split(random, data)[::-1]
        self.leaves = random.random() < 0.15

    @property
    def waits(self) -> bool:
        return bool(self.transport.queue or (self.transport.readable and self.pieces))

    def turn(self) -> bool:
        moved = False
        if self.transport.queue and self.random.random() < 0.5:
            self.transport.drain(self.random.randint(1, 200))
            moved = True
        if self.leaves and not self.transport.lost and self.random.random() < 0.05:
            self.transport.lose(ConnectionResetError("reset"))
            moved = True
        if self.transport.readable and self.pieces and self.random.random() < 0.6:
            self.transport.give(self.pieces.pop())
            moved = True
        return moved

    def check(self) -> None:
        if self.transport.lost:
            return
        closed = self.transport.closing or self.transport.finished
        responses = read_responses(self.transport, self.methods)
        if not closed and (self.pieces or len(responses) < len(self.paths)):
            raise Finding(f"{len(responses)} answers to {self.methods}, {len(self.pieces)} segments not read")
        for path, response in zip(self.paths, responses, strict=False):
            check_answer(path, response)


def check_answer(path: bytes, response: Message) -> None:
    reason = details(response)
    if reason:
        if reason not in ("upstream-reset", "connect-refused", "queue-full", "upstream-truncated"):
            raise Finding(f"{reason} for {path!r}")
    elif response.body != path * 6:
        raise Finding(f"{path!r} was answered with {response.body!r}")


def serve(rig: Rig, random: Random, upstream: UpstreamEnd) -> bool:
    """Answers whole requests with their path, six times; fails now and then."""
    transport = upstream.transport
    moved = False
    while upstream.look(random):
        path = upstream.requests[-1][0].line[1]
        upstream.to_send = split(random, answer(random, path))
        moved = True
    if transport.queue and random.random() < 0.5:
        transport.drain(random.randint(1, 200))
        moved = True
    if rig.faults and not transport.lost and random.random() < 0.02:
        if random.random() < 0.5:
            transport.lose(ConnectionResetError("reset"))
        elif transport.readable:
            upstream.to_send.clear()
            transport.give_eof()
        moved = True
    if upstream.to_send and transport.readable and random.random() < 0.6:
        transport.give(upstream.to_send.pop(0))
        moved = True
    return moved


def waits(upstream: UpstreamEnd) -> bool:
    return bool(upstream.transport.queue or (upstream.transport.readable and upstream.to_send))


def answer(random: Random, path: bytes) -> bytes:
    if random.random() < 0.5:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (6 * len(path), path * 6)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(path), path) for _ in range(6))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def check_sent_once(rig: Rig) -> None:
    """RFC 9110 9.2.2: what is not idempotent goes once, whatever becomes of its connection."""
    seen: set[bytes] = set()
    for upstream in rig.upstreams:
        for line in bytes(upstream.transport.sent).split(b"\r\n"):
            if line.startswith(b"POST /few/"):
                if line in seen:
                    raise Finding(f"sent twice: {line!r}")
                seen.add(line)
