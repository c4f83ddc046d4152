"""One input through the gateway's core, and what must hold afterwards.

Theory: a client's bytes come in segments to a Downstream1, what the gateway sends to its upstream is read by
`reader`, answered, and read by h11 as well. The order in which segments, answers, room in the buffers and
ends come is drawn from the input's own random generator, so a failure is repeated by its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any

import h11
from support.built import built

from fastgate import _core
from fastgate.config import loads, model
from fastgate.server.build import inner
from fastgate.upstreams.source import EndpointSpec

from .grammar import split
from .memory import Loop, Transport
from .reader import Bad, Fields, Message, Reader, Short

CONFIG = """
[access_log]
enabled = false
[[listeners]]
name = "plain"
bind = "127.0.0.1:0"
forwarded = ["x-forwarded", "forwarded"]
limits = { request_line = "1KiB", header_bytes = "4KiB", header_count = 40, body = "64KiB" }
[[listeners]]
name = "proxied"
bind = "127.0.0.1:1"
proxy_protocol = true
half_close = "serve"
[upstreams.up]
endpoints = ["127.0.0.1:9"]
limits = { header_bytes = "4KiB", header_count = 40, body = "64KiB" }
[upstreams.few]
endpoints = ["127.0.0.1:8"]
pool = { max_connections = 2, max_idle = 1, queue = 3 }
[[routes]]
name = "few"
match = { prefix = "/few" }
upstream = "few"
[[routes]]
name = "all"
upstream = "up"
[[routes]]
name = "tunnel"
match = { prefix = "/ws" }
upstream = "up"
upgrade = ["websocket"]
[[routes]]
name = "kept"
match = { prefix = "/keep" }
upstream = "up"
encoded_slashes = "keep"
[[routes]]
name = "fixed"
match = { prefix = "/fixed" }
respond = { status = 200, body = "fixed" }
"""

# Fields that the gateway itself writes or takes away; all others arrive as they were sent, in order.
MANAGED = {
    b"host", b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding",
    b"upgrade", b"content-length", b"http2-settings", b"proxy-authorization", b"proxy-authenticate",
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-request-id",
    b"max-forwards", b"expect", b"via", b"date",
}  # fmt: skip


# A request that the strict reader takes may be refused for what it asks, not for how it is written.
NOT_FOR_THE_WELL_FORMED = {
    "request-syntax", "bare-line-feed", "request-line-syntax", "http-version", "field-syntax", "host-missing",
    "host-duplicate", "content-length-syntax", "length-and-encoding", "transfer-encoding", "chunk-syntax",
    "parsers-disagree", "internal-error", "queue-full", "connect-failed",
}  # fmt: skip


FRAMING = (b"content-length", b"transfer-encoding")


class Finding(AssertionError):
    """Something that must not be; the message says what."""


def spec_of(endpoint: model.Endpoint) -> EndpointSpec:
    return EndpointSpec(endpoint.address, endpoint.host, endpoint.port, None)


class Rig:
    """The core with one configuration; every scenario makes its own connections and leaves none."""

    def __init__(self, text: str = CONFIG, plugins: Mapping[str, type[Any]] = MappingProxyType({})) -> None:
        self.loop = Loop(self._connect)
        config = loads(text, plugins=plugins).config
        counters = _core.Counters([route.name for route in config.routes], list(config.upstreams), 1)
        counters.use_worker(0)
        self.worker = _core.Worker(
            self.loop,  # type: ignore[arg-type]  # what the core needs of one
            None,
            counters,
            max_connections=0,
            max_per_address=0,
            flush_interval=10**9,
        )
        self.snapshot, self.plugins = built(config, self.worker)
        inner(self.worker)
        for running in self.snapshot.upstreams.values():
            running._publish(
                tuple(map(spec_of, running.config.endpoints))
            )  # as discovery would; it wants a loop
        self.worker.watch(tuple(running.core for running in self.snapshot.upstreams.values()))
        self.upstreams: list[UpstreamEnd] = []
        self.upstream_high = 0
        self.script: Script | None = None
        self.faults: Random | None = None  # connects fail now and then

    def _connect(self, make: Callable[[], object], port: int) -> tuple[Transport, object]:
        fault = self.faults.random() if self.faults else 1.0
        if fault < 0.1:
            raise ConnectionRefusedError("refused")
        protocol = make()
        transport = Transport(self.loop, protocol, high=self.upstream_high)
        self.upstreams.append(UpstreamEnd(self, transport, port))
        if fault < 0.15:
            transport.give_eof()  # before it is handed over
        elif fault < 0.2:
            transport.lose(ConnectionResetError("reset"))
        return transport, protocol

    def client(self, listener: int, high: int) -> Transport:
        connection = _core.Downstream1(self.worker, _core.ListenerSlot(self.snapshot.listeners[listener]))
        return Transport(self.loop, connection, high=high)

    def leave(self, client: Transport) -> None:
        """Ends every connection and looks for what is left."""
        client.lose()
        for end in self.upstreams:
            end.transport.lose()
        while self.loop.run():
            pass
        for end in self.upstreams:
            end.transport.lose()
        census = self.worker.census()
        self.upstreams = []
        if any(census.values()):
            raise Finding(f"left behind: {census}")


class Script:
    """What the upstream answers to its first request; later ones get the plain answer."""

    def __init__(self, data: bytes, end: str) -> None:
        self.data = data
        self.end = end  # "stay", "eof" or "lost"


class UpstreamEnd:
    """The service at the other end of one connection: reads requests strictly, answers each."""

    def __init__(self, rig: Rig, transport: Transport, port: int) -> None:
        self.rig = rig
        self.transport = transport
        self.port = port  # of the endpoint
        self.at = 0
        self.requests: list[tuple[Message, bytes]] = []
        self.to_send: list[bytes] = []
        self.end = ""
        self.tunnel = False
        self.spoilt = False  # a script was played here

    def look(self, random: Random) -> bool:
        """Reads on; True when a request was answered."""
        data = bytes(self.transport.sent)
        if self.at >= len(data) or self.tunnel:
            return False
        reader = Reader(data)
        reader.at = self.at
        try:
            message = reader.request()
        except Short:
            return False
        except Bad as error:
            raise Finding(f"forwarded bytes are no request ({error}): {data[self.at :]!r}") from None
        self.requests.append((message, data[self.at : reader.at]))
        self.at = reader.at
        script = self.rig.script
        if script is not None:
            self.rig.script = None
            self.spoilt = True
            self.to_send += split(random, script.data)
            self.end = script.end
        else:
            self.to_send += split(random, plain_answer(random, message))
        return True


def plain_answer(random: Random, message: Message) -> bytes:
    body = b"answer to " + message.line[1][:20]
    if message.line[0] == b"HEAD":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    if random.random() < 0.3:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n3;x\r\nend\r\n0\r\n\r\n" % (
            len(body),
            body,
        )
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def play(rig: Rig, random: Random, client: Transport, data: bytes, end: str) -> list[tuple[Message, bytes]]:
    """Lets everything happen that can. Returns what was forwarded, in order."""
    pieces = split(random, data)
    pieces.reverse()
    forwarded: list[tuple[Message, bytes]] = []
    idle = 0
    while idle < 2:
        moved = rig.loop.run()
        for upstream in rig.upstreams:
            while upstream.look(random):
                forwarded.append(upstream.requests[-1])
                moved = True
            transport = upstream.transport
            if transport.queue and random.random() < 0.5:
                transport.drain(random.randint(1, 200))
                moved = True
            if upstream.to_send and transport.readable and random.random() < 0.7:
                transport.give(upstream.to_send.pop(0))
                moved = True
            elif not upstream.to_send and upstream.end and transport.readable:
                kind, upstream.end = upstream.end, ""
                if kind == "eof":
                    transport.give_eof()
                elif kind == "lost":
                    transport.lose(ConnectionResetError("reset"))
                moved = True
        if client.queue and random.random() < 0.5:
            client.drain(random.randint(1, 200))
            moved = True
        if client.readable and random.random() < 0.7:
            if pieces:
                client.give(pieces.pop())
                moved = True
            elif end == "eof":
                client.give_eof()
                moved = True
            elif end == "lost":
                client.lose(ConnectionResetError("reset"))
                moved = True
        waits = bool(
            client.queue
            or (client.readable and (pieces or end != "stay"))
            or any(
                u.transport.queue or (u.transport.readable and (u.to_send or u.end)) for u in rig.upstreams
            )
        )
        idle = 0 if moved or waits else idle + 1
    if pieces and not client.closing:
        raise Finding("reading is paused and nothing will resume it")
    for upstream in rig.upstreams:
        if upstream.to_send and upstream.transport.paused and not upstream.transport.closing:
            raise Finding("an upstream is paused and nothing will resume it")
    return forwarded


# -- what must hold


def others(fields: Fields, named: set[bytes]) -> Fields:
    return [
        (name, value) for name, value in fields if name.lower() not in MANAGED and name.lower() not in named
    ]


def expected_target(message: Message) -> bytes | None:
    hosts = message.values(b"host")
    try:
        target = _core.parse_target(message.line[1], hosts[0] if hosts else None, message.line[0])
    except _core.TargetError:
        return None
    return target.path if target.query is None else target.path + b"?" + target.query


def check_request(given: Message, got: Message, raw: bytes) -> None:
    """`got` is what went upstream of what the client gave."""
    if got.minor != 1 or (given.line[0], expected_target(given)) != got.line:
        raise Finding(f"forwarded as {got.line}, read as {given.line}")
    if given.body != got.body:
        raise Finding(f"the body went as {got.body!r}, read as {given.body!r}")
    named = set(given.tokens(b"connection"))
    if others(given.fields, named) != others(got.fields, named):
        raise Finding(f"fields went as {got.fields}, read as {given.fields}")
    extra = [item for item in got.trailers if item not in given.trailers]
    if extra:
        raise Finding(f"trailers from nowhere: {extra}")
    if given.framing == "none" and got.framing != "none":
        raise Finding(f"a body where there was none: {got.framing}")
    if b"upgrade" in got.tokens(b"connection") and (got.body or got.framing == "chunked"):
        raise Finding("an upgrade with a body")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    request = connection.next_event()
    if not isinstance(request, h11.Request) or (request.method, request.target) != got.line:
        raise Finding(f"h11 reads {request}")
    body, _ = h11_body(connection)
    if body != got.body:
        raise Finding(f"h11 reads the body {body!r} where we read {got.body!r}")
    if connection.trailing_data[0]:
        raise Finding(f"h11 sees {connection.trailing_data[0]!r} behind the request")


def h11_body(connection: h11.Connection) -> tuple[bytes, bool]:
    body = bytearray()
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body), True
        else:
            return bytes(body), False


def read_responses(client: Transport, methods: list[bytes]) -> list[Message]:
    """Every response that the client got whole, by both readers; interim ones are left out."""
    data = bytes(client.sent)
    reader = Reader(data)
    found: list[Message] = []
    while reader.more:
        start = reader.at
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        try:
            message = reader.response(method, ended=client.ended_in_order)
        except Short:
            if not client.closing and not client.lost:
                return found
            break
        except Bad as error:
            raise Finding(f"the client gets no HTTP ({error}): {data[start:]!r}") from None
        status = int(message.line[0])
        if status < 200:
            if status == 101:
                return [*found, message]
            continue
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data[start : reader.at])
        if message.framing == "end":
            connection.receive_data(b"")
        response = connection.next_event()
        if not isinstance(response, h11.Response) or response.status_code != status:
            raise Finding(f"h11 reads {response} where we read {message}")
        body, whole = h11_body(connection)
        if not whole or body != message.body:
            raise Finding(f"h11 reads the body {body!r}, whole: {whole}, where we read {message}")
        found.append(message)
    return found


def run_client(rig: Rig, random: Random, data: bytes, *, listener: int = 0) -> str:
    """A client's bytes, and an upstream that behaves. Returns what became of them, in a word."""
    rig.upstream_high = random.choice((0, 0, 100))
    rig.script = None
    end = random.choice(("stay", "stay", "eof", "lost"))
    client = rig.client(listener, random.choice((0, 0, 100)))
    try:
        forwarded = play(rig, random, client, data, end)
        given: list[Message] = []
        rest = 0
        why = "end"
        reader = Reader(data if listener == 0 else behind_proxy_header(data))
        try:
            while reader.more:
                rest = reader.at
                given.append(reader.request())
            rest = reader.at
        except Short:
            why = "short"
        except Bad as error:
            why = str(error)
        at = 0
        for message, raw in forwarded:
            while at < len(given) and (given[at].line[0], expected_target(given[at])) != message.line:
                at += 1
            if at == len(given):
                raise Finding(f"forwarded, though nobody sent it ({why}): {raw!r}")
            check_request(given[at], message, raw)
            at += 1
        if client.lost and end == "lost":
            return "lost"
        # The answer to what is no request: its method decides all the same whether a body follows.
        methods = [message.line[0] for message in given]
        tail = reader.data[rest:].removeprefix(b"\r\n")
        responses = read_responses(client, [*methods, b"HEAD" if tail.startswith(b"HEAD ") else b"GET"])
        exchanges = rig.worker.census()["exchanges"]
        closed = client.closing or client.finished
        if why not in ("short", "end") and b"\r\n\r\n" not in tail:
            why = "short"  # the gateway judges a head when it is whole
        if not closed and (
            exchanges > (why == "short") or len(responses) < len(given) or why not in ("short", "end")
        ):
            raise Finding(f"{exchanges} exchanges, {len(responses)} answers to {len(given)} requests ({why})")
        for request, response in zip(given, responses, strict=False):
            reason = details(response)
            if reason == "chunk-syntax" and any(name.lower() in FRAMING for name, _ in request.trailers):
                continue  # the parser refuses framing in a trailer (RFC 9110 6.5.1)
            if reason in NOT_FOR_THE_WELL_FORMED or reason.startswith("upstream-"):
                raise Finding(f"{reason} for what is well-formed")
        if closed and not client.eof_given and not client.aborted and responses:
            last = responses[-1]
            if b"close" not in last.tokens(b"connection"):
                raise Finding(f"closed behind an answer that did not say so: {last}")
        return "forwarded" if forwarded else "refused" if responses else "nothing"
    finally:
        rig.leave(client)


def details(response: Message) -> str:
    """The reason code of an answer of the gateway's own, or ""."""
    for value in response.values(b"proxy-status"):
        return value.partition(b'details="')[2].partition(b'"')[0].decode()
    return ""


def behind_proxy_header(data: bytes) -> bytes:
    if data.startswith(b"PROXY "):
        return data.partition(b"\r\n")[2]
    return data[16 + int.from_bytes(data[14:16], "big") :] if len(data) >= 16 else b""


def run_upstream(rig: Rig, random: Random, data: bytes) -> str:
    """A request that is well, and an upstream that answers with these bytes."""
    rig.upstream_high = 0
    end = random.choice(("stay", "eof", "lost"))
    rig.script = Script(data, end)
    method = random.choice((b"GET", b"GET", b"GET", b"HEAD", b"POST"))
    minor = random.choice((b"1", b"1", b"1", b"0"))
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n" if random.random() < 0.2 else b""
    body = b"Content-Length: 2\r\n\r\nhi" if method == b"POST" else b"\r\n"
    first = b"%b /ws HTTP/1.%b\r\nHost: a\r\n%b%b" % (method, minor, b"" if body[0] == 67 else upgrade, body)
    client = rig.client(0, random.choice((0, 0, 100)))
    try:
        play(rig, random, client, first, "stay")
        if len([u for u in rig.upstreams if u.spoilt]) != 1:
            raise Finding("the script was not played once")
        wanted: Message | None = None
        reader = Reader(data)
        try:
            for _ in range(20):
                wanted = reader.response(method, ended=end == "eof")
                if int(wanted.line[0]) >= 200 or wanted.line[0] == b"101":
                    break
        except (Short, Bad) as error:
            wanted = error.message if isinstance(error, Short) else None
            if wanted is not None:
                wanted.framing = "cut"
        responses = read_responses(client, [method])
        if len(responses) > 1:
            raise Finding(f"{len(responses)} responses to one request")
        for got in responses:
            if got.values(b"proxy-status"):
                continue  # the gateway's own
            if wanted is None or wanted.framing == "cut" or wanted.line[0] != got.line[0]:
                raise Finding(f"the client reads {got}, of which the upstream said {wanted}")
            if got.line[0] != b"101" and wanted.body != got.body:
                raise Finding(f"the client reads {got}, the upstream said {wanted}")
            named = set(wanted.tokens(b"connection"))
            if others(wanted.fields, named) != others(got.fields, named):
                raise Finding(f"fields {got.fields} of {wanted.fields}")
        if responses and responses[0].line[0] == b"101":
            if not upgrade or method == b"POST" or minor == b"0":
                raise Finding("switched, though nobody asked for it")
            return "tunnel"
        if responses and not client.closing:
            client_second(rig, random, client, method)
        return "passed" if responses and not responses[0].values(b"proxy-status") else "refused"
    finally:
        rig.leave(client)


def client_second(rig: Rig, random: Random, client: Transport, method: bytes) -> None:
    """The next request on the same connection gets its own answer, whatever was left of the first."""
    start = len(client.sent)
    play(rig, random, client, b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n", "stay")
    second = read_responses(client, [method, b"GET"])
    if len(second) != 2 or not second[1].body.startswith(b"answer to /second"):
        raise Finding(f"the second request was answered with {bytes(client.sent[start:])!r}")
