"""Retries, hedges, mirrors, fallbacks, queues, faults, splits and sticky cookies, switched on at random,
while endpoints fail and clients leave: each request is answered once, by the answer to it, nothing that must
not be is sent twice, and in the end every count is zero."""

from __future__ import annotations

import time
from collections import Counter
from random import Random

from fastgate import _core

from .grammar import split
from .memory import Transport
from .reader import Bad, Message, Reader, Short
from .scenario import Finding, Rig, UpstreamEnd, details, read_responses

SECOND = 10**9
SCENES = 12  # in a row, with one configuration: connections and what was learnt are kept
LEAPS = 1000  # of 5 s, in one scene: far more than all deadlines together
SHADOW = 9300  # the port of the upstream that is mirrored to; its requests may come beside others


def maybe(random: Random, chance: float, text: str) -> str:
    return text if random.random() < chance else ""


def retry(random: Random, unsafe: str = "") -> str:
    on = random.sample(["connect-failure", "refused", "reset", "timeout", "status"], random.randint(1, 5))
    return (
        f"retry = {{ attempts = {random.randint(2, 4)}, on = {on!r}, statuses = [503],"
        f' backoff_base = "{random.choice(("1ms", "60ms"))}", budget_percent = {random.choice((20, 100))},'
        f' body_limit = "{random.choice((20, 100, 65536))}B"{unsafe}'
        + maybe(random, 0.3, ', per_try_timeout = "200ms"')
        + " }\n"
    )


def upstream(random: Random, name: str, ports: list[int]) -> str:
    hashing = random.random() < 0.2
    balance = random.choice(
        ("maglev", "ring") if hashing else ("least-request", "round-robin", "peak-ewma", "random")
    )
    text = (
        f"[upstreams.{name}]\nendpoints = {[f'127.0.0.1:{port}' for port in ports]}\nbalance = '{balance}'\n"
    )
    text += f"pool = {{ max_connections = {random.choice((1, 2, 100))}, max_idle = {random.randint(0, 2)},"
    text += f" queue = {random.choice((0, 1, 100))}, max_requests = {random.choice((0, 0, 2))} }}\n"
    text += f'timeouts = {{ head = "{random.choice(("300ms", "60s"))}" }}\n'
    text += maybe(random, 0.6, retry(random))
    text += maybe(random, 0.5, 'hedge = { quantile = 50, min_delay = "1ms", max_percent = 100 }\n')
    caps = ", ".join(
        f"max_{key} = {random.choice((0, 1, 3))}" for key in ("connections", "pending", "requests", "retries")
    )
    ratio = random.choice((0, 50))
    text += maybe(
        random,
        0.4,
        f'breaker = {{ {caps}, error_percent = {ratio}, min_requests = 4, open_time = "200ms" }}\n',
    )
    text += maybe(
        random,
        0.5,
        f"concurrency = {{ limit = {random.randint(1, 4)}, queue = {random.choice((0, 1, 3, 20))},"
        f' order = "{random.choice(("adaptive", "oldest-first", "newest-first"))}" }}\n',
    )
    text += maybe(
        random, 0.3, 'outlier = { consecutive_errors = 3, base_ejection = "1s", min_endpoints = 2 }\n'
    )
    text += maybe(random, 0.3, "sticky = {}\n")
    return text


def route(random: Random, number: int) -> str:
    text = f'[[routes]]\nname = "r{number}"\nmatch = {{ prefix = "/r{number}" }}\n'
    unsafe = number == 2
    if number == 3:
        text += "split = { to = [{ upstream = 'a', weight = 3, rollback = { min_samples = 1 } },"
        text += " { upstream = 'b', weight = 2 }] }\n"
    else:
        text += "upstream = 'a'\n"
    text += f"priority = '{random.choice(('normal', 'critical', 'sheddable'))}'\nupgrade = ['websocket']\n"
    text += maybe(random, 0.5 + unsafe, retry(random, ', unsafe = "idempotency-key"' if unsafe else ""))
    on = ["no-endpoint", "connect-failure", "reset", "timeout", "overload", "status"]
    where = random.choice(("upstream = 'b'", "respond = { status = 200, body = 'instead' }"))
    text += maybe(
        random,
        0.4,
        f"fallback = {{ on = {random.sample(on, random.randint(1, 6))}, statuses = [500, 503], {where} }}\n",
    )
    text += maybe(
        random, 0.2, 'fault = { delay = "40ms", delay_percent = 50, abort = 503, abort_percent = 20 }\n'
    )
    most = random.choice((1, 64))
    text += maybe(
        random, 0.5, f"mirror = {{ upstream = 'shadow', max_active = {most}, body_limit = '100B' }}\n"
    )
    return text + maybe(random, 0.2, 'timeouts = { total = "500ms" }\n')


def configuration(random: Random) -> str:
    text = "[access_log]\nenabled = false\n[[listeners]]\nname = 'main'\nbind = '127.0.0.1:0'\n"
    text += upstream(random, "a", [9100 + number for number in range(random.randint(1, 3))])
    text += upstream(random, "b", [9200 + number for number in range(random.randint(1, 2))])
    text += upstream(random, "shadow", [SHADOW])
    return text + "".join(route(random, number) for number in range(5))


def run_detours(_rig: Rig, random: Random) -> str:
    rig = Rig(configuration(random))
    world = World(rig, random)
    for number in range(SCENES):
        world.scene(number)
    world.end()
    return "well" if world.calm else "faults"


class World:
    visitor: type[Visitor]  # below

    def __init__(self, rig: Rig, random: Random) -> None:
        self.rig = rig
        self.random = random
        self.calm = random.random() < 0.2  # no faults at all
        self.pace = random.choice(
            (0.15, 0.8)
        )  # how often the loop gets on: connects are made, losses are heard of
        self.evil = random.choice((0.01, 0.03, 0.1))
        self.ahead = 0
        self.sent: dict[bytes, bytes] = {}  # path: the body that belongs to it
        self.unsafe: set[bytes] = set()  # what may be delivered once
        _core.sample_chance(rig.worker, random.getrandbits(64))
        for running in rig.snapshot.upstreams.values():
            hedge = running.core.hedge
            if hedge is not None:
                for _ in range(100):
                    hedge.latency.observe(1000, time.monotonic_ns())  # so that it is known what is slow

    def scene(self, number: int) -> None:
        rig, random = self.rig, self.random
        rig.upstream_high = random.choice((0, 0, 100))
        rig.faults = None if self.calm else random
        guests = [self.visitor(self, b"%d-%d" % (number, each)) for each in range(random.randint(1, 7))]
        idle = leaps = 0
        while idle < 2:
            moved = rig.loop.run() if random.random() < self.pace else True
            for guest in guests:
                moved |= guest.turn()
            for end in list(rig.upstreams):
                moved |= self.serve(end)
            if random.random() < 0.2:
                self.pass_time(random.choice((1, 40, 40, 100, 300)))
            waits = any(guest.waits for guest in guests) or any(
                end.transport.queue or (end.to_send and end.transport.readable) for end in rig.upstreams
            )
            idle = 0 if moved or waits else idle + 1
            if idle == 2 and rig.worker.exchanges:
                # Somebody waits for time alone: a back-off, a queue, a head that does not come.
                leaps += 1
                if leaps > LEAPS:
                    raise Finding(f"{rig.worker.exchanges} exchanges that no deadline ends")
                rig.faults = None
                self.pass_time(5000)
                idle = 0
        rig.faults = None
        for guest in guests:
            guest.check()
        for guest in guests:
            guest.transport.lose()
        self.settle()
        self.check_counts()
        self.check_deliveries()
        rig.upstreams = [end for end in rig.upstreams if not end.transport.lost]

    def pass_time(self, milliseconds: int) -> None:
        self.ahead += milliseconds * 10**6
        _core.sample_time(self.rig.worker, self.ahead)

    def settle(self) -> None:
        for _ in range(1000):
            moved = self.rig.loop.run()
            for end in list(self.rig.upstreams):
                moved |= self.serve(end)
            if not moved and not self.rig.worker.exchanges:
                return
            if not moved:
                self.pass_time(5000)  # what nobody waits for any more: mirrors
        raise Finding(f"it does not come to rest: {self.rig.worker.census()}")

    def end(self) -> None:
        for end in self.rig.upstreams:
            end.transport.lose()
        while self.rig.loop.run():
            pass
        self.check_counts()
        census = self.rig.worker.census()
        if any(census.values()):
            raise Finding(f"left behind: {census}")
        for name, running in self.rig.snapshot.upstreams.items():
            if running.core.load.connections:
                raise Finding(f"{name}: {running.core.load.connections} connections counted")

    # -- the services

    def serve(self, end: UpstreamEnd) -> bool:
        random, transport = self.random, end.transport
        moved = False
        while self.look(end):
            moved = True
        if transport.queue and random.random() < 0.5:
            transport.drain(random.randint(1, 200))
            moved = True
        if transport.doomed and not transport.lost and (random.random() < 0.1 or not self.rig.faults):
            transport.lose(ConnectionResetError("reset"))
            moved = True
        if self.rig.faults and not transport.closing and random.random() < self.evil:
            kind = random.random()
            if kind < 0.3:
                transport.lose(ConnectionResetError("reset"))
            elif kind < 0.8:
                transport.doom()
            elif transport.readable:
                end.to_send.clear()
                transport.give_eof()
            moved = True
        if end.to_send and transport.readable and random.random() < 0.6:
            transport.give(end.to_send.pop(0))
            moved = True
        return moved

    def look(self, end: UpstreamEnd) -> bool:
        data = bytes(end.transport.sent)
        if end.at >= len(data) or end.tunnel:
            return False
        reader = Reader(data)
        reader.at = end.at
        try:
            message = reader.request()
        except Short:
            return False
        except Bad as error:
            raise Finding(f"what was sent is no request ({error}): {data[end.at :]!r}") from None
        end.at = reader.at
        path = message.line[1]
        if path not in self.sent:
            raise Finding(f"nobody asked for {message.line}: {data!r}")
        if message.body != self.sent[path]:
            raise Finding(f"{path!r} came with {message.body!r}, not {self.sent[path]!r}")
        end.requests.append((message, b""))
        if not self.calm and self.random.random() < 0.1:
            return True  # never answered
        reply, end.tunnel = self.answer(message)
        end.to_send += split(self.random, reply)
        return True

    def answer(self, message: Message) -> tuple[bytes, bool]:
        random, path = self.random, message.line[1]
        before = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" if random.random() < 0.1 else b""
        if message.values(b"upgrade") and random.random() < 0.5:
            return (
                before + b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + path,
                True,
            )
        chance = 1.0 if self.calm else random.random()
        if chance < 0.15:
            status = random.choice((b"500", b"503", b"503", b"404"))
            later = b"Retry-After: 1\r\n" if random.random() < 0.1 else b""
            body = b"" if message.line[0] == b"HEAD" else path
            length = b"Content-Length: %d\r\n" % len(path)
            return before + b"HTTP/1.1 " + status + b" No\r\n" + later + length + b"\r\n" + body, False
        if chance < 0.25:
            return before + b"HTTP/1.1 %b N\r\n\r\n" % random.choice((b"204", b"304")), False
        if random.random() < 0.5:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (6 * len(path))
            body = path * 6
        else:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            body = b"".join(b"%x\r\n%b\r\n" % (len(path), path) for _ in range(6)) + b"0\r\nX-T: 1\r\n\r\n"
        return before + head + (b"" if message.line[0] == b"HEAD" else body), False

    # -- what must hold

    def check_counts(self) -> None:
        wrong: list[str] = []
        if self.rig.worker.exchanges:
            wrong.append(f"{self.rig.worker.exchanges} exchanges")
        for name, running in self.rig.snapshot.upstreams.items():
            core = running.core
            counts = {
                "requests": core.load.requests,
                "retries": core.load.retries,
                "pending": core.load.pending,
            }
            if core.admission is not None:
                counts |= {"slots": core.admission.active, "queued": core.admission.waiting}
            for endpoint in running.endpoints.values():
                numbers = endpoint.numbers()
                counts |= {f"{endpoint.address} {key}": numbers[key] for key in ("active", "waiting")}
            wrong += [f"{name}: {value} {key}" for key, value in counts.items() if value]
        for listener in self.rig.snapshot.listeners:
            wrong += [
                f"{each.mirror.active} mirrored"
                for each in listener.routes
                if each is not None and each.mirror is not None and each.mirror.active
            ]
        if wrong:
            raise Finding(f"counts that are not even: {', '.join(wrong)}")

    def check_deliveries(self) -> None:
        """RFC 9110 9.2.2, and a mirror gets a request once."""
        seen: Counter[tuple[bool, bytes]] = Counter()
        for end in self.rig.upstreams:
            for line in bytes(end.transport.sent).split(b"\r\n"):
                if line.endswith(b" HTTP/1.1"):
                    seen[end.port == SHADOW, line.split(b" ")[1]] += 1
        for (shadow, path), count in seen.items():
            if count > 1 and not shadow and path in self.unsafe:
                raise Finding(f"{path!r} was sent {count} times")
        for end in self.rig.upstreams:
            # Each scene counts its own.
            end.at -= len(end.transport.sent)
            end.transport.sent.clear()
            end.at = max(0, end.at)


class Visitor:
    """A client with some requests, one behind the other."""

    def __init__(self, world: World, name: bytes) -> None:
        self.world = world
        self.random = random = world.random
        self.transport: Transport = world.rig.client(0, random.choice((0, 0, 100)))
        self.methods: list[bytes] = []
        self.paths: list[bytes] = []
        data = b""
        for turn in range(random.randint(1, 4)):
            data += self.request(b"/r%d/%b-%d" % (random.randrange(5), name, turn))
        self.pieces = split(random, data)[::-1]
        self.leaves = not world.calm and random.random() < 0.25

    def request(self, path: bytes) -> bytes:
        random, world = self.random, self.world
        method = random.choice((b"GET", b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS"))
        has_body = method in (b"POST", b"PUT") or random.random() < 0.3
        body = path * random.randint(0, 8) if has_body else b""
        keyed = path.startswith(b"/r2/") and random.random() < 0.5
        self.methods.append(method)
        self.paths.append(path)
        world.sent[path] = body
        if method == b"POST" and not keyed:
            world.unsafe.add(path)
        head = b"%b %b HTTP/1.1\r\nHost: a\r\n" % (method, path) + b'Idempotency-Key: "k"\r\n' * keyed
        if not has_body:
            upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n" * (random.random() < 0.05)
            return head + upgrade + b"\r\n"
        if random.random() < 0.5:
            return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        size = random.randint(1, 40)
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    @property
    def waits(self) -> bool:
        return bool(self.transport.queue or (self.transport.readable and self.pieces))

    def turn(self) -> bool:
        random, transport = self.random, self.transport
        moved = False
        if transport.queue and random.random() < 0.5:
            transport.drain(random.randint(1, 200))
            moved = True
        if self.leaves and not transport.lost and random.random() < 0.05:
            if random.random() < 0.5:
                transport.lose(ConnectionResetError("reset"))
            elif transport.readable:
                transport.give_eof()
            moved = True
        if transport.readable and self.pieces and random.random() < 0.6:
            transport.give(self.pieces.pop())
            moved = True
        return moved

    def check(self) -> None:
        responses = read_responses(self.transport, self.methods)
        if len(responses) > len(self.paths):
            raise Finding(f"{len(responses)} answers to {self.paths}")
        for method, path, response in zip(self.methods, self.paths, responses, strict=False):
            status = response.line[0]
            if any(other != path for other in response.values(b"x-of")):
                raise Finding(f"{path!r} was told what is of another: {response.fields}")
            if status == b"205" and not response.body:
                continue  # a plugin's
            if details(response) or status == b"101" or response.body == b"instead":
                continue
            wanted = b"" if method == b"HEAD" or status in (b"204", b"304") else path
            if response.body != (wanted * 6 if status == b"200" else wanted) and status != b"503":
                raise Finding(f"{path!r} was answered {status!r} with {response.body!r}")
            if (
                b"instead" not in response.body
                and status == b"200"
                and method != b"HEAD"
                and path not in response.body
            ):
                raise Finding(f"{path!r} was answered with {response.body!r}")
        transport = self.transport
        closed = transport.lost or transport.closing or transport.finished or transport.eof_given
        if (
            not closed
            and len(responses) < len(self.paths)
            and not (responses and responses[-1].line[0] == b"101")
        ):
            raise Finding(f"{len(responses)} answers to {self.paths}, {len(self.pieces)} segments not read")


World.visitor = Visitor
