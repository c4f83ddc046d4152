"""Aggregations, configured at random, while their services fail in every way, clients leave or do not read,
and the configuration is replaced: each request is answered once, by what its own parts have said or by a
reason that the configuration allows, within its memory, and in the end nothing is left over.

python -m tests.fuzz.aggregates --seed N --worlds M: the long run. A finding is repeated by its seed alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import sys
import time
import weakref
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for `support`, as pytest does

from support.built import built
from support.gateway import to_toml

from fastgate import _core
from fastgate.aggregation.run import Run
from fastgate.config import ConfigError, loads
from fastgate.plugins import Exchange, Plugin, Response

from .detours import Visitor, World
from .memory import Transport
from .reader import Message
from .scenario import Finding, Rig, UpstreamEnd, details, read_responses, spec_of

ROUTES = 4
SCENES = 6
ONE_READ = 65536  # more than any segment here
SHARED = (b"s0", b"s1")  # requests that many send: for what is coalesced and kept
OWN_REASONS = {
    "aggregate-failed", "aggregate-timeout", "aggregate-memory", "aggregate-collision", "aggregate-request",
    "body-too-large", "total-timeout", "aggregate-partial", "plugin-timeout", "forbidden",
    "body-too-slow", "body-timeout", "head-timeout",
}  # fmt: skip

Table = dict[str, Any]


# -- configurations


def part(random: Random, number: int, before: list[str], stream: str, policy: str) -> Table:
    """The part `p<number>`; whatever it is, its answers say which request they are of."""
    chance = random.random
    one: Table = {"upstream": random.choice("ab"), "path": f"/p{number}/{{path.id}}"}
    if before and chance() < 0.5:
        needed = random.choice(before)
        kind = random.randrange(5)
        if kind == 0:
            one["query"] = {"of": f"{{part.{needed}.id}}", "x": "{query.x}"}
        elif kind == 1:
            one["after"] = [needed]
        elif kind == 2:
            one["when"] = [{"value": f"{{part.{needed}.kind}}", "equals": random.choice(("full", "none"))}]
        elif kind == 3:
            one["path"] += f"/{{part.{needed}.id}}"
        else:
            one["for_each"] = {
                "list": f"{{part.{needed}.items}}",
                "concurrency": random.choice((1, 3, 100)),
                "max_items": random.choice((2, 100)),
                "on_failure": random.choice(("fail", "null", "omit")),
            }
            if chance() < 0.7:
                one["path"] += "/{item.id}"
    elif chance() < 0.1:
        one["when"] = [{"value": "{query.x}", "equals": "1"}]
    kind = random.randrange(10)
    if kind == 0:
        one["json"] = '{"x": "{body.x}", "id": "{path.id}", "no": ["{body.no}"]}'
    elif kind == 1:
        one["pass_body"] = True
    elif kind == 2:
        one["form"] = {"id": "{path.id}", "x": "{header.x-user}"}
    elif kind == 3:
        one["method"] = random.choice(("HEAD", "DELETE", "PUT"))
        one["decode"] = "text"
    elif kind == 4:
        one["decode"] = random.choice(("text", "base64", "form", "csv", "json"))
    if chance() < 0.2:
        one["race"] = ["b" if one["upstream"] == "a" else "a"]
    elif chance() < 0.3:
        one["fallback"] = ["b" if one["upstream"] == "a" else "a"]
    if chance() < 0.3:
        one["coalesce"] = True
    if chance() < 0.3:
        one["cache"] = random.choice(("10ms", "1h"))
    if chance() < 0.2:
        one["retry"] = {
            "on": ["status", "reset", "connect-failure"],
            "statuses": [503],
            "backoff_base": "1ms",
        }
        if chance() < 0.3:
            one["retry"]["per_try_timeout"] = "50ms"
    if chance() < 0.4:
        one["timeout"] = random.choice(("50ms", "500ms", "4s"))
    if chance() < 0.2:
        one["max_body"] = random.choice(("100B", "2KiB"))
    if policy == "required" and chance() < 0.5:
        one["required"] = False
    if chance() < 0.2:
        one["default"] = random.choice(("null", '{"id": "d", "items": [{"id": 1}], "kind": "full"}', "[]"))
    if chance() < 0.2:
        one["statuses"] = {"404": 404, "5xx": 503, "timeout": 408}
    if chance() < 0.1:
        one["success"] = ["200-299", "404"]
    if chance() < 0.1:
        one["answer_headers"] = ["x-served", "set-cookie"]
    if before and chance() < 0.05:
        one["omit"] = True
    elif chance() < 0.15 and "decode" not in one and "for_each" not in one:
        shapes: tuple[Table, ...] = (
            {"pick": ["at", "id"]}, {"drop": ["items", "pad"]}, {"map": {"items": "id"}}, {"jmespath": "@"},
            {"filter": [{"list": "items", "value": "{item.id}", "not_equals": "1"}]}, {"target": "self"},
        )  # fmt: skip
        one.update(random.choice(shapes))
    if not stream and "omit" not in one:
        one["group"] = random.choice((f"p{number}", f"p{number}", f"g.p{number}", "p0", ""))
        if one["group"] == "":
            del one["group"]
    return one


def aggregate(random: Random) -> Table:
    chance = random.random
    stream = random.choice(("", "", "", "ndjson", "events", "json"))
    policy = random.choice(("required", "required", "required", "all", "any", "first", "quorum"))
    if stream and policy == "first":
        policy = "any"
    names = [f"p{number}" for number in range(random.randint(1, 6))]
    block: Table = {"policy": policy}
    if stream:
        block["stream"] = stream
    else:
        block["on_collision"] = random.choice(("fail", "first", "last"))
        if chance() < 0.3:
            block["merge"] = "deep"
        if chance() < 0.3:
            block["errors_member"] = "_errors"
        if chance() < 0.2:
            block["partial_status"] = 206
        if chance() < 0.1:
            block["answer"] = "list"
    if policy == "quorum":
        block["quorum"] = random.randint(1, len(names))
    if chance() < 0.4:
        block["timeout"] = random.choice(("100ms", "1s"))
    if chance() < 0.25:
        block["max_memory"] = random.choice(("1KiB", "4KiB", "20KiB"))
    if chance() < 0.2:
        block["max_body"] = "50B"
    block["parts"] = {
        name: part(random, number, names[:number], stream, policy) for number, name in enumerate(names)
    }
    return block


def route(random: Random, number: int) -> Table:
    one: Table = {
        "name": f"r{number}", "match": {"path": f"/r{number}/{{id}}"}, "aggregate": aggregate(random),
    }  # fmt: skip
    if random.random() < 0.15:
        one["timeouts"] = {"total": random.choice(("80ms", "2s"))}
    if random.random() < 0.25:
        one["plugins"] = [random.choice(("meddler", "whole"))]
    return one


def upstream(random: Random, ports: list[int]) -> Table:
    one: Table = {"endpoints": [f"127.0.0.1:{port}" for port in ports]}
    one["pool"] = {
        "max_connections": random.choice((1, 2, 100, 100)),
        "max_idle": random.randint(0, 2),
        "queue": random.choice((0, 1, 100, 100)),
        "max_requests": random.choice((0, 0, 2)),
    }
    if random.random() < 0.2:
        one["concurrency"] = {"limit": random.randint(1, 4), "queue": random.choice((0, 3, 20))}
    if random.random() < 0.2:
        one["retry"] = {"on": ["status", "reset"], "statuses": [503], "backoff_base": "1ms"}
    return one


def configuration(random: Random) -> str:
    """As TOML. What does not fit together is drawn anew."""
    head: Table = {
        "access_log": {"enabled": False},
        "listeners": [{"name": "main", "bind": "127.0.0.1:0"}],
        "plugins": {"meddler": {"use": "meddler"}, "whole": {"use": "whole"}},
        "upstreams": {"a": upstream(random, [9100, 9101]), "b": upstream(random, [9200])},
    }
    routes: list[Table] = []
    for number in range(ROUTES):
        for _ in range(100):
            tables = {**head, "routes": [route(random, number)]}
            if tables["routes"][0].get("plugins") is None:
                tables["routes"][0]["plugins"] = []
            try:
                loads(to_toml(tables), plugins=PLUGINS)
            except ConfigError as error:
                refused[str(error).splitlines()[0][:120]] += 1
                continue
            routes += tables["routes"]
            break
        else:
            raise Finding(f"no configuration is taken: {to_toml(tables)}")
    return to_toml({**head, "routes": routes})


refused: Counter[str] = Counter()


# -- plugins before and behind


class Meddler(Plugin):
    """Waits, reads, refuses, answers; now and then."""

    world: AggregateWorld

    async def wait(self) -> None:
        for _ in range(self.world.random.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)

    async def on_request(self, exchange: Exchange) -> Response | None:
        chance = self.world.random.random()
        if chance < 0.3:
            await exchange.request.read(10_000)
        elif chance < 0.35:
            return exchange.refuse(403, "forbidden")
        await self.wait()
        return None

    async def on_response(self, exchange: Exchange, response: Response) -> Response | None:
        await self.wait()
        response.headers.add("x-of", exchange.request.target)
        if self.world.random.random() < 0.05:
            return Response(200, body="instead")
        return None


class Whole(Meddler):
    response_body = "buffered"
    body_limit = 100_000

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        await self.wait()
        return chunk


PLUGINS: Final[dict[str, type[Any]]] = {"meddler": Meddler, "whole": Whole}


# -- the world


class AggregateRig(Rig):
    """With the slots of its clients, for a reload."""

    def __init__(self, text: str) -> None:
        self.slots: list[_core.ListenerSlot] = []
        self.snapshots: list[Any] = []
        super().__init__(text, PLUGINS)
        self.took_over()

    def client(self, listener: int, high: int) -> Transport:
        self.slots.append(_core.ListenerSlot(self.snapshot.listeners[listener]))
        return Transport(self.loop, _core.Downstream1(self.worker, self.slots[-1]), high=high)

    def reload(self, text: str) -> None:
        self.snapshot, self.plugins = built(loads(text, plugins=PLUGINS).config, self.worker)
        for running in self.snapshot.upstreams.values():
            running._publish(tuple(map(spec_of, running.config.endpoints)))
        self.took_over()
        for slot in self.slots:
            slot.follow(self.snapshot.listeners[0])

    def took_over(self) -> None:
        self.snapshots.append(self.snapshot)
        self.worker.watch(
            tuple(one.core for snapshot in self.snapshots for one in snapshot.upstreams.values())
        )


class AggregateWorld(World):
    def __init__(self, rig: AggregateRig, random: Random) -> None:
        super().__init__(rig, random)
        self.hostile = 0.0 if self.calm else random.choice((0.05, 0.2, 0.6))
        self.runs: list[tuple[weakref.ref[Run], Any, Any]] = []
        self.texts = 0
        self.meet()

    visitor: type[Visitor]

    def meet(self) -> None:
        """What the rig runs now is looked at by us."""
        for running in self.rig.plugins.running.values():
            plugin: Any = running.plugin
            plugin.world = self
            running.host.find_upstream = self.rig.plugins.core.find_upstream
        for plan in self.rig.snapshot.aggregates.values():
            plan.begin = self._beginning(plan, plan.begin)  # type: ignore[method-assign]

    def _beginning(self, plan: Any, begin: Any) -> Any:
        def begun(gathering: Any, exchange: Any, body: bytes) -> Run:
            run: Run = begin(gathering, exchange, body)
            self.runs.append((weakref.ref(run), gathering, plan))
            return run

        return begun

    def scene(self, number: int) -> None:
        if number and self.random.random() < 0.2:
            assert isinstance(self.rig, AggregateRig)
            self.reload_at = self.random.randint(1, 30)
        super().scene(number)
        self.rig.slots.clear()  # type: ignore[attr-defined]

    reload_at = 0

    def pass_time(self, milliseconds: int) -> None:
        _core.skip_time(self.rig.worker, milliseconds * 10**6)  # parts go by how old their exchange is
        self.check_memory()
        if self.reload_at:
            self.reload_at -= 1
            if not self.reload_at:
                assert isinstance(self.rig, AggregateRig)
                self.rig.reload(configuration(self.random))
                self.meet()

    def check_memory(self) -> None:
        for _, gathering, plan in self.runs:
            if gathering.gone:
                continue
            within = gathering.charge(-ONE_READ)
            gathering.charge(ONE_READ)
            if not within:
                raise Finding(f"{plan.route} holds far more than {plan.max_memory} bytes")
            below = gathering.charge(plan.max_memory + 1)
            gathering.charge(-plan.max_memory - 1)
            if below:
                raise Finding(f"{plan.route} counts less than nothing")

    def check_counts(self) -> None:
        current = self.rig.snapshot
        for snapshot in self.rig.snapshots:  # type: ignore[attr-defined]
            self.rig.snapshot = snapshot
            super().check_counts()
            for plan in snapshot.aggregates.values():
                if plan.flights:
                    raise Finding(f"flights of {plan.route} left: {plan.flights}")
        self.rig.snapshot = current
        for run, gathering, plan in self.runs:
            if not gathering.gone:
                raise Finding(f"a run of {plan.route} has not ended")
            left = run()
            if left is not None:
                raise Finding(f"a run of {plan.route} is held: {left.outcomes}")
        self.runs.clear()

    def check_deliveries(self) -> None:
        for end in self.rig.upstreams:
            end.at = max(0, end.at - len(end.transport.sent))
            end.transport.sent.clear()

    # -- the services

    def look(self, end: UpstreamEnd) -> bool:
        before = self.sent
        data = bytes(end.transport.sent)
        if end.at < len(data):
            line = data[end.at :].partition(b"\r\n")[0].split(b" ")
            if len(line) == 3:
                self.sent = _Anything(data, end.at)
        try:
            return super().look(end)
        finally:
            self.sent = before

    def answer(self, message: Message) -> tuple[bytes, bool]:
        """As the script of this request says."""
        random = self.random
        path = message.line[1].partition(b"?")[0]
        body = document(random, path, big=not self.calm and random.random() < 0.05)
        lines = b"Content-Type: application/json\r\n"
        status = b"200"
        if random.random() < 0.3:
            lines += random.choice(FIELDS)
        if random.random() < self.hostile:
            kind = random.randrange(12)
            if kind < 3:
                status = random.choice((b"404", b"500", b"503", b"503", b"301", b"204", b"205", b"304"))
            elif kind < 6:
                body = random.choice(BAD)
            elif kind == 6:
                lines = random.choice(KINDS)
            elif kind == 7:
                lines += random.choice(HOSTILE)
            elif kind == 8:  # cut short
                return b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n" + lines + b"\r\n" + body, False
            elif kind == 9:
                return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", False
            elif kind == 10:
                return b"no HTTP at all\r\n\r\n", False
            else:
                body += b" " * random.choice((100, 3000, 50_000))
        head = b"HTTP/1.1 " + status + b" X\r\n" + lines
        if status in (b"204", b"304"):
            return head + b"\r\n", False
        if message.line[0] == b"HEAD":
            return head + b"Content-Length: %d\r\n\r\n" % len(body), False
        if status == b"205" or (random.random() < 0.6 or not body):
            return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), False
        size = random.choice((7, 200, 20_000))
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size])
            for at in range(0, len(body), size)
        )
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", False


class _Anything(dict[bytes, bytes]):
    """Whatever a part's request is: the bodies are looked at elsewhere."""

    def __init__(self, data: bytes, at: int) -> None:
        super().__init__()
        from .reader import Bad, Reader, Short

        reader = Reader(data)
        reader.at = at
        with contextlib.suppress(Bad, Short):
            self.body = reader.request().body

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: bytes) -> bytes:
        return self.body


FIELDS: Final = (
    b"Cache-Control: max-age=60\r\n", b"Cache-Control: no-store\r\n", b"Cache-Control: private\r\n",
    b"Age: 5\r\nCache-Control: max-age=4\r\n", b"Set-Cookie: a=b\r\nX-Served: me\r\n",
    b"Expires: 0\r\n", b"Vary: *\r\n", b"X-Served: \xe4\r\n",
)  # fmt: skip
HOSTILE: Final = (
    b"Age: \xb2\r\n", b"Age: " + b"9" * 5000 + b"\r\n", b"Age: -1\r\n", b"Cache-Control: max-age=\xb2\r\n",
    b"Cache-Control: max-age=" + b"9" * 5000 + b"\r\n", b"Expires: Thu, 99 Foo 99999 99:99:99 GMT\r\n",
    b"Content-Encoding: gzip\r\n", b"Content-Encoding: identity\r\n", b"Content-Type: text/plain\r\n",
    b'Cache-Control: max-age="\r\n', b"Cache-Control: \xff\xfe=\x80\r\n", b"Age: 1\r\nAge: 2\r\n",
    b"Expires: Mon, 01 Jan 0001 00:00:00 +2359\r\nDate: Fri, 31 Dec 9999 23:59:59 -2359\r\n",
)  # fmt: skip
KINDS: Final = (
    b"", b"Content-Type: text/plain; charset=utf-16\r\n", b"Content-Type: text/plain; charset=\xff\r\n",
    b"Content-Type: image/png\r\n", b"Content-Type: application/problem+json; charset=latin-1\r\n",
    b"Content-Type: text/html; charset=idna\r\n", b"Content-Type: ;;;=\r\n",
    b"Content-Type: text/plain; charset=hex\r\n",
)  # fmt: skip
BAD: Final = (
    b"", b"{", b"[1, 2", b"nul", b'{"at": "\xff"}', b'"\\ud800"', b"{} {}", b"\xef\xbb\xbf{}", b"NaN",
    b"1e999999",
    b"[" * 5000 + b"]" * 5000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b'{"id": null, "items": 7, "kind": {}}',
    b'{"id": "../..", "items": [null, {"id": {}}, {"id": "a/b"}]}', b'{"id": "\\u0000\\r\\n", "items": []}',
    b'{"id": "' + b"x" * 9000 + b'", "items": [[]]}', b"null", b"true", b"123456789012345678901234567890",
    b"[]",
    b'"text"', b'{"p0": 1, "g": 2, "_errors": 3}', b'{"\\ud83d\\ude00": 1, "id": "\\ud83d\\ude00"}', b"\0",
    b'{"id": 1, "id": 2}', b'{"items": [' + b",".join([b'{"id": 1}'] * 150) + b"]}",
)  # fmt: skip


def document(random: Random, path: bytes, *, big: bool) -> bytes:
    """What the service says at a path. `at` names it, so that whoever gets it knows whose it is."""
    seed = Random(path)  # the same for all who ask for it
    value = {
        "at": path.decode(),
        "id": seed.choice(("i", 7, "\u00e4 /?#", True)),
        "kind": seed.choice(("full", "small")),
        "items": [{"id": number % 3} for number in range(seed.choice((0, 1, 2, 5)))],
        "self": {"at": path.decode()},
    }
    if big:
        value["pad"] = "x" * random.choice((1000, 5000, 30_000))
    return json.dumps(value, indent=random.choice((None, 1))).encode()


# -- the clients


class Guest(Visitor):
    """Asks aggregate routes. A request's id is its own, or one of a few that are everybody's."""

    world: AggregateWorld

    def request(self, path: bytes) -> bytes:
        random = self.random
        own = path.rpartition(b"/")[2]
        name = random.choice(SHARED) if random.random() < 0.3 else own
        method = random.choice((b"GET", b"GET", b"GET", b"HEAD", b"POST", b"PUT"))
        has_body = method in (b"POST", b"PUT") or random.random() < 0.1
        path = b"/r%d/%b" % (random.randrange(ROUTES), name)
        self.methods.append(method)
        self.paths.append(path)
        query = random.choice((b"", b"?x=1", b"?x=%ff", b"?x=2&x=1"))
        head = b"%b %b%b HTTP/1.1\r\nHost: a\r\n" % (method, path, query)
        head += b"X-User: \xc3\xa4 b\r\n" * (random.random() < 0.2)
        head += b"Expect: 100-continue\r\n" * (random.random() < 0.05 and has_body)
        if not has_body:
            return head + b"\r\n"
        body = random.choice(
            (b'{"x": "y", "items": []}', b'{"x": {"y": 1}}', b"junk", b"", b'{"x":"' + b"z" * 500 + b'"}')
        )
        if random.random() < 0.5:
            return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    def check(self) -> None:
        responses = read_responses(self.transport, self.methods)
        for method, path, response in zip(self.methods, self.paths, responses, strict=False):
            with contextlib.suppress(
                RecursionError
            ):  # what is nested too deep for us, but not for the gateway
                check_answer(method, path, response)
        transport = self.transport
        closed = transport.lost or transport.closing or transport.finished or transport.eof_given
        if len(responses) > len(self.paths) or (not closed and len(responses) < len(self.paths)):
            raise Finding(f"{len(responses)} answers to {self.paths}, {len(self.pieces)} segments not read")


AggregateWorld.visitor = Guest


def check_answer(method: bytes, path: bytes, response: Message) -> None:
    status, reason = int(response.line[0]), details(response)
    if any(other.partition(b"?")[0] != path for other in response.values(b"x-of")):
        raise Finding(f"{path!r} was told what is of another: {response.fields}")
    if reason and reason not in OWN_REASONS:
        raise Finding(f"{reason} for {path!r}: {response}")
    seen[reason or "whole"] += 1
    if method == b"HEAD" or response.body == b"instead" or reason == "forbidden":
        return
    kind = response.values(b"content-type")[0]
    if status >= 300:
        if kind != b"application/problem+json" or status not in (400, 404, 408, 413, 500, 502, 503, 504):
            raise Finding(f"{path!r} was answered {response}")
        json.loads(response.body)
        return
    if reason and reason != "aggregate-partial":
        raise Finding(f"{reason} with status {status}")
    if b"no-store" not in response.values(b"cache-control") and (reason or response.framing == "chunked"):
        raise Finding(f"not whole, and may be kept: {response}")
    if kind == b"application/json":
        values = [json.loads(response.body)]
    elif kind == b"application/x-ndjson":
        values = [json.loads(line) for line in response.body.splitlines()]
    else:
        values = events(response.body)
    if kind != b"application/json" and "end" not in values[-1]:
        raise Finding(f"no end: {response}")
    if (
        reason
        and kind == b"application/json"
        and response.framing != "chunked"
        and not response.values(b"fastgate-partial")
    ):
        raise Finding(f"partial without saying so: {response}")
    for at in told(values):
        if at.split("/")[2] != path.split(b"/")[2].decode():
            raise Finding(f"{path!r} was given {at!r}")


def events(body: bytes) -> list[Any]:
    """Each event's data (HTML, 9.2.6)."""
    found = []
    for event in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = event.split("\n")
        if not lines[0].startswith("event: ") or not all(line.startswith("data: ") for line in lines[1:]):
            raise Finding(f"no event: {event!r}")
        found.append(json.loads("\n".join(line[6:] for line in lines[1:])))
    return found


def told(value: Any) -> list[str]:
    """The paths whose documents are in it, in whatever form."""
    found: list[str] = []
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            at = one.get("at")
            if isinstance(at, str) and at.startswith("/p"):
                found.append(at)
            todo += one.values()
        elif isinstance(one, list):
            todo += one
        elif isinstance(one, str):
            with contextlib.suppress(ValueError):
                if len(one) > 20:
                    text = one if one.startswith("{") else base64.b64decode(one, validate=True).decode()
                    todo.append(json.loads(text))
    return found


seen: Counter[str] = Counter()


def run_aggregates(seed: int) -> None:
    """The world of this seed, from its configuration to its end. Raises Finding."""
    told_of = io.StringIO()
    try:
        with contextlib.redirect_stderr(told_of):
            _run(Random(seed))
    finally:
        _core.restore_time()
        if "fastgate: defect" in told_of.getvalue():
            raise Finding(told_of.getvalue())


def _run(random: Random) -> None:
    rig = AggregateRig(configuration(random))
    world = AggregateWorld(rig, random)
    for number in range(SCENES):
        world.scene(number)
    world.end()
    if rig.plugins.core.active:
        raise Finding(f"{rig.plugins.core.active} runs of plugins left over")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.aggregates", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first world (repeats a finding)")
    parser.add_argument("--worlds", type=int, default=1000)
    options = parser.parse_args()
    began, findings = time.monotonic(), 0
    for seed in range(options.seed, options.seed + options.worlds):
        try:
            run_aggregates(seed)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told
            findings += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[-2500:]}", flush=True)
            if findings >= 20:
                break
    print(f"{options.worlds} worlds in {time.monotonic() - began:.0f} s, {findings} findings")
    for word, count in sorted(seen.items()):
        print(f"  {word}: {count}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
