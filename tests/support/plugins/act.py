"""A plugin that does in each phase what the X-Act of the request says: "PHASE:WORD,PHASE:WORD", each for the
instance of that name ("b.request:raise") or for all of them ("request:raise")."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastgate.plugins import Consumer, Exchange, GatewayError, Plugin, PluginConfig, Response, doc


class Act(Plugin):
    class Config(PluginConfig):
        header: Annotated[str, doc("An identity header.", "header-name", empty=True)] = ""

    config: Config

    @classmethod
    def identity_headers(cls, config: Config) -> tuple[str, ...]:
        return (config.header,) if config.header else ()

    def words(self, exchange: Exchange, phase: str) -> list[str]:
        found = []
        for one in exchange.request.headers.get_all("x-act"):
            for step in one.split(","):
                where, _, word = step.strip().partition(":")
                if where in (phase, f"{self.name}.{phase}"):
                    found.append(word)
        return found

    def note(self, exchange: Exchange, phase: str) -> None:
        exchange.context.setdefault("trace", []).append(f"{self.name}.{phase}")

    async def _common(self, word: str) -> None:
        match word:
            case "suspend":
                await asyncio.sleep(0)
            case "sleep":
                await asyncio.sleep(0.02)
            case "hang":
                await asyncio.Event().wait()
            case "raise":
                raise ValueError("as asked")
            case "timeout":
                try:
                    async with asyncio.timeout(0.01):
                        await asyncio.Event().wait()
                except TimeoutError:
                    return
                raise AssertionError("asyncio.timeout did not end")
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(0))

    async def on_request(self, exchange: Exchange) -> Response | None:
        self.note(exchange, "request")
        request = exchange.request
        for word in self.words(exchange, "request"):
            name, _, value = word.partition("=")
            match name:
                case "refuse":
                    return exchange.refuse(403, value or "forbidden", "as asked", headers={"X-Why": "asked"})
                case "answer":
                    return Response(201, json={"by": self.name}, headers={"X-By": self.name})
                case "read":
                    request.headers["x-read"] = str(len(await request.read()))
                case "json":
                    request.body = json.dumps({"seen": await request.json()}).encode()
                case "body":
                    request.body = value.encode()
                case "set":
                    request.headers["x-set"] = f"{self.name} {value}"
                case "method":
                    request.method = value
                case "path":
                    request.path = value
                case "query":
                    request.raw_query = value
                case "upstream":
                    exchange.upstream = value
                case "consumer":
                    exchange.consumer = Consumer(name=value, plan="gold", source=self.name)
                case "subrequest":
                    answer = await exchange.subrequest(
                        value, path="/asked?a=b", headers={"X-From": self.name}
                    )
                    request.headers["x-answer"] = f"{answer.status} {answer.body.decode()}"
                case "twice":
                    await asyncio.gather(*(exchange.subrequest("up", path="/asked") for _ in range(2)))
                case "bad":
                    return 7  # type: ignore[return-value]
                case _:
                    await self._common(word)
        return None

    async def on_response(self, exchange: Exchange, response: Response) -> Response | None:
        self.note(exchange, "response")
        response.headers["x-trace"] = " ".join(exchange.context["trace"])
        response.headers.add(
            "x-seen", f"{self.name} {response.status} {response.source} {response.code}".strip()
        )
        for word in self.words(exchange, "response"):
            name, _, value = word.partition("=")
            match name:
                case "status":
                    response.status = int(value)
                case "body":
                    response.body = value.encode()
                case "replace":
                    return Response(202, body=f"in place of {response.status}")
                case "drop":
                    del response.headers["x-drop"]
                case _:
                    await self._common(word)
        return None

    async def on_error(self, exchange: Exchange, error: GatewayError) -> Response | None:
        self.note(exchange, "error")
        for word in self.words(exchange, "error"):
            if word == "answer":
                return Response(200, body=f"instead of {error.status} {error.code} {error.source}")
            await self._common(word)
        return None


class Logs(Plugin):
    """Tells a request to /told what the log phase of those before it saw."""

    def __init__(self, config: Any, name: str) -> None:
        super().__init__(config, name)
        self.logged: list[dict[str, Any]] = []

    def on_request(self, exchange: Exchange) -> Response | None:
        if exchange.request.path == "/told":
            return Response(json=self.logged)
        return None

    async def on_log(self, exchange: Exchange) -> None:
        if "late" in exchange.request.raw_query:
            await asyncio.sleep(0.01)
        self.logged.append(
            {
                "path": exchange.request.path,
                "status": exchange.status,
                "reason": exchange.reason,
                "route": exchange.route,
                "endpoint": exchange.endpoint,
                "bytes_out": exchange.bytes_out,
                "agent": exchange.request.headers.get("user-agent"),
                "duration": exchange.duration,
            }
        )


class Upper(Plugin):
    """Each piece of the answer in capitals, and a mark at its end."""

    response_body = "chunks"

    async def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        if "suspend" in exchange.request.raw_query:
            await asyncio.sleep(0)
        if "fail" in exchange.request.raw_query:
            raise ValueError("as asked")
        return chunk.upper() + (b"!" if end else b"")


class Wrap(Plugin):
    """The whole answer in brackets."""

    response_body = "buffered"
    body_limit = 10_000

    def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        assert end
        return b"[" + chunk + b"]"
