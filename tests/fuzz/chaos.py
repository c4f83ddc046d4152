"""Detours with plugins in Python that do anything at any time: wait, raise whatever there is, hang, read
bodies and give up, ask others, answer, change what passes, hold on to what is over. What must hold without
them holds with them, what one exchange is told reaches no other, and no run is left over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

from fastgate.plugins import Consumer, Exchange, GatewayError, Plugin, Request, Response

from .detours import SCENES, World, configuration, maybe
from .scenario import Finding, Rig

CHAIN = 4  # plugins that routes choose from
HELD = 20  # exchanges that are looked at again when they may be over


class Strange(BaseException):
    pass


RAISED: Final = (ValueError, RuntimeError, SystemExit, asyncio.CancelledError, GeneratorExit, Strange)

#: What a plugin may do with an exchange that is perhaps over: RuntimeError, or as if it were not.
LATE: Final[tuple[Callable[[Exchange], Any], ...]] = (
    lambda exchange: exchange.id + exchange.route + exchange.client_ip + exchange.endpoint,
    lambda exchange: exchange.request.headers.items(),
    lambda exchange: exchange.request.headers.get("host"),
    lambda exchange: len(exchange.request.headers) + len(exchange.request.cookies),
    lambda exchange: exchange.request.path + exchange.request.target + exchange.request.raw_query,
    lambda exchange: exchange.request.headers.__setitem__("x-late", "yes"),
    lambda exchange: exchange.request.headers.__delitem__("x-late"),
    lambda exchange: exchange.captures,
    lambda exchange: exchange.refuse(400, "late"),
    lambda exchange: exchange.response is None or exchange.response.headers.items(),
    lambda exchange: setattr(exchange.response, "body", b"instead"),
)


class Chaos(Plugin):
    """`world` is set when the rig is made; what happens is drawn from its random numbers."""

    world: World
    held: deque[Exchange]
    asked = 0
    shared_answer = Response(200, body="instead", headers={"x-made": "once"})

    async def wait(self, hangs: float = 0.03) -> None:
        random, loop = self.world.random, self.world.rig.loop
        for _ in range(random.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)
        chance = random.random()
        if chance < hangs:
            await loop.create_future()  # hangs
        elif chance < hangs + 0.05:
            raise random.choice(RAISED)("chaos")
        elif chance < hangs + 0.06:
            task = asyncio.current_task(loop)  # type: ignore[arg-type]
            assert task is not None
            task.cancel()

    def hold(self, exchange: Exchange) -> None:
        """Looks at one that may be over, and keeps this one to be looked at later."""
        random = self.world.random
        if self.held and random.random() < 0.5:
            with contextlib.suppress(RuntimeError, AttributeError, ValueError):
                random.choice(LATE)(random.choice(self.held))
        self.held.append(exchange)

    async def on_request(self, exchange: Exchange) -> Response | None:
        random, request = self.world.random, exchange.request
        self.hold(exchange)
        chance = random.random()
        if chance < 0.15:
            body = await request.read(random.choice((5, 100, 10_000)))
            if random.random() < 0.5:
                request.body = bytes(body)
        elif chance < 0.25:
            await self.read_and_give_up(request)
        elif chance < 0.35:
            await self.ask(exchange)
        elif chance < 0.4:
            return exchange.refuse(403, "forbidden")
        elif chance < 0.47:
            return self.answer(exchange)
        elif chance < 0.55:
            request.headers["x-chaos"] = self.name
        elif chance < 0.58 and exchange.upstream:
            exchange.upstream = "b"
        elif chance < 0.65:
            self.change(request)
        elif chance < 0.7:
            exchange.consumer = Consumer(name=random.choice("abc"))
        await self.wait()
        return None

    async def read_and_give_up(self, request: Request) -> None:
        """Begins to read, once or twice, and leaves before it is there; whoever reads next gets it all."""
        random = self.world.random
        readers = [request.read(random.choice((5, 10_000))) for _ in range(random.randint(1, 2))]
        for reader in readers:
            with contextlib.suppress(StopIteration):
                reader.send(None)
        await self.wait()
        for reader in random.sample(readers, len(readers)):
            reader.close()

    async def ask(self, exchange: Exchange) -> None:
        random = self.world.random
        Chaos.asked += 1
        path = f"/sub-{Chaos.asked}"
        self.world.sent[path.encode()] = b""
        await exchange.subrequest(random.choice(("a", "b")), path=path, timeout=random.choice((0.05, 5)))

    def answer(self, exchange: Exchange) -> Response:
        random = self.world.random
        status = random.choice((200, 200, 204, 205, 304))
        made = (
            lambda: Response(status, body="instead"),
            lambda: self.shared_answer,
            lambda: Response.__new__(Response),
            self.of_another,
        )
        return random.choice(made)()

    def of_another(self) -> Response:
        """An upstream's answer whose body went to somebody else: no answer of a plugin."""
        for each in self.held:
            response = each.response
            if response is not None and _is_over(each) and _streams(response):
                return response
        return self.shared_answer

    def change(self, request: Request) -> None:
        random, world = self.world.random, self.world
        chance = random.random()
        if chance < 0.3:
            request.path = request.path
        elif chance < 0.6 and request.method in ("GET", "PUT", "OPTIONS"):
            request.method = random.choice(("GET", "PUT", "OPTIONS"))
        elif not request.has_body:
            request.body = b"made"
            world.sent[request.target.encode()] = b"made"

    def mark(self, exchange: Exchange, response: Response) -> None:
        """What this exchange alone is told; the visitors look at it."""
        response.headers.add("x-of", exchange.request.target)

    async def on_response(self, exchange: Exchange, response: Response) -> Response | None:
        random = self.world.random
        self.hold(exchange)
        await self.wait()
        chance = random.random()
        if chance < 0.1:
            return self.answer(exchange)
        if chance < 0.15 and response.source == "upstream" and response.status == 200:
            response.body = b"instead"
        elif chance < 0.5:
            self.mark(exchange, response)
        elif chance < 0.55:
            await self.ask(exchange)
        return None

    async def on_error(self, exchange: Exchange, error: GatewayError) -> Response | None:
        self.hold(exchange)
        await self.wait()
        return self.answer(exchange) if self.world.random.random() < 0.2 else None

    async def on_log(self, exchange: Exchange) -> None:
        exchange.request.path, exchange.status, exchange.request.headers.get("x-chaos")
        self.hold(exchange)
        if self.world.random.random() < 0.05:
            await self.ask(exchange)
        await self.wait(hangs=0)


def _is_over(exchange: Exchange) -> bool:
    try:
        exchange.client_port  # noqa: B018
    except RuntimeError:
        return True
    return False


def _streams(response: Response) -> bool:
    try:
        return response.body is None
    except RuntimeError:
        return True


class Chunks(Chaos):
    response_body = "chunks"

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        self.hold(exchange)
        await self.wait()
        return chunk


class Whole(Chaos):
    response_body = "buffered"
    body_limit = 200

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        if not end:
            raise Finding("a part of what was to be whole")
        await self.wait()
        if self.world.random.random() < 0.2 and exchange.response is not None:
            self.mark(exchange, exchange.response)
        return chunk


def with_plugins(random: Random, text: str) -> str:
    for number in range(CHAIN):
        kind = random.choice(("chaos", "chaos", "chunks", "whole"))
        failure = random.choice(("open", "closed"))
        text += f'[plugins.p{number}]\nuse = "{kind}"\ntimeout = "100ms"\non_failure = "{failure}"\n'
        text += maybe(random, 0.1, "report_only = true\n")
    text += '[plugins.limit]\nuse = "rate-limit"\nkey = "consumer"\nrate = "1/h"\nburst = 20\n'
    chosen = [name for name in ("p0", "p1", "limit", "p2", "p3") if random.random() < 0.4]
    return text.replace("[[routes]]\n", f"[[routes]]\nplugins = {chosen}\n")


def run_chaos(_rig: Rig, random: Random) -> str:
    # What plugins do wrong here is told a thousand times; who comes next in this process wants to hear it.
    log = logging.getLogger("fastgate.plugins")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return _run_chaos(random)
    finally:
        log.setLevel(before)


def _run_chaos(random: Random) -> str:
    text = with_plugins(random, configuration(random))
    rig = Rig(text, plugins={"chaos": Chaos, "chunks": Chunks, "whole": Whole})
    world = World(rig, random)
    held: deque[Exchange] = deque(maxlen=HELD)
    for running in rig.plugins.running.values():
        plugin: Any = running.plugin
        plugin.world, plugin.held = world, held
        running.host.find_upstream = rig.plugins.core.find_upstream
    for number in range(SCENES):
        world.scene(number)
    world.end()
    if rig.plugins.core.active:
        raise Finding(f"{rig.plugins.core.active} runs left over")
    made = Chaos.shared_answer
    if (made.status, made.body, made.headers.items()[:1]) != (200, b"instead", [("x-made", "once")]) or len(
        made.headers
    ) != 2:
        raise Finding(f"an answer that is given to many has been changed: {made.headers.items()}")
    return "well" if world.calm else "faults"
