"""Detours with plugins in Python that do anything at any time: wait, raise, hang, read bodies, ask others,
refuse, answer, change answers. What must hold without them holds with them, and no run is left over."""

from __future__ import annotations

import asyncio
import logging
from random import Random

from fastgate.plugins import Exchange, GatewayError, Plugin, Response

from .detours import SCENES, World, configuration, maybe
from .scenario import Finding, Rig

CHAIN = 4  # plugins that routes choose from


class Chaos(Plugin):
    """`world` is set when the rig is made; what happens is drawn from its random numbers."""

    world: World
    asked = 0

    async def wait(self, hangs: float = 0.03) -> None:
        random = self.world.random
        for _ in range(random.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)
        if random.random() < hangs:
            await self.world.rig.loop.create_future()  # hangs
        if random.random() < 0.05:
            raise ValueError("chaos")

    async def on_request(self, exchange: Exchange) -> Response | None:
        random, request = self.world.random, exchange.request
        chance = random.random()
        if chance < 0.2:
            body = await request.read(random.choice((5, 100, 10_000)))
            if random.random() < 0.5:
                request.body = bytes(body)
        elif chance < 0.3:
            Chaos.asked += 1
            path = f"/sub-{Chaos.asked}"
            self.world.sent[path.encode()] = b""
            await exchange.subrequest(random.choice(("a", "b")), path=path, timeout=random.choice((0.05, 5)))
        elif chance < 0.35:
            return exchange.refuse(403, "forbidden")
        elif chance < 0.4:
            return Response(200, body="instead")
        elif chance < 0.5:
            request.headers["x-chaos"] = self.name
        elif chance < 0.55 and exchange.upstream:
            exchange.upstream = "b"
        await self.wait()
        return None

    async def on_response(self, exchange: Exchange, response: Response) -> Response | None:
        random = self.world.random
        await self.wait()
        chance = random.random()
        if chance < 0.1:
            return Response(200, body="instead")
        if chance < 0.15 and response.source == "upstream" and response.status == 200:
            response.body = b"instead"
        elif chance < 0.3:
            response.headers["x-chaos"] = self.name
        return None

    async def on_error(self, exchange: Exchange, error: GatewayError) -> Response | None:
        await self.wait()
        return Response(200, body="instead") if self.world.random.random() < 0.2 else None

    async def on_log(self, exchange: Exchange) -> None:
        exchange.request.path, exchange.status, exchange.request.headers.get("x-chaos")
        await self.wait(hangs=0)


class Chunks(Chaos):
    response_body = "chunks"

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        await self.wait()
        return chunk


class Whole(Chaos):
    response_body = "buffered"
    body_limit = 200

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        if not end:
            raise Finding("a part of what was to be whole")
        await self.wait()
        return chunk


def with_plugins(random: Random, text: str) -> str:
    for number in range(CHAIN):
        kind = random.choice(("chaos", "chaos", "chunks", "whole"))
        failure = random.choice(("open", "closed"))
        text += f'[plugins.p{number}]\nuse = "{kind}"\ntimeout = "100ms"\non_failure = "{failure}"\n'
        text += maybe(random, 0.1, "report_only = true\n")
    chosen = [f"p{number}" for number in range(CHAIN) if random.random() < 0.4]
    return text.replace("[[routes]]\n", f"[[routes]]\nplugins = {chosen}\n")


def run_chaos(_rig: Rig, random: Random) -> str:
    logging.getLogger("fastgate.plugins").setLevel(logging.CRITICAL)
    text = with_plugins(random, configuration(random))
    rig = Rig(text, plugins={"chaos": Chaos, "chunks": Chunks, "whole": Whole})
    world = World(rig, random)
    for running in rig.plugins.running.values():
        running.plugin.world = world  # type: ignore[attr-defined]
        running.host.find_upstream = rig.plugins.core.find_upstream
    for number in range(SCENES):
        world.scene(number)
    world.end()
    if rig.plugins.core.active:
        raise Finding(f"{rig.plugins.core.active} runs left over")
    return "well" if world.calm else "faults"
