"""The FastAPI gateway. usage: python -m bench.peers.fastapi_app PORT UPSTREAM_PORT ROUTES HOOKS PARTS"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import httpx
import orjson
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from bench.model import AGGREGATE, route_prefix
from bench.peers.base import KEEP_ALIVE, POOL

HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")


def hook() -> Callable[[Request], Awaitable[None]]:
    """A dependency of its own: FastAPI calls one that is named twice only once."""

    async def no_op(request: Request) -> None:
        return None

    return no_op


def make(upstream_port: int, routes: int, hooks: int, parts: Mapping[str, str]) -> FastAPI:
    """The application."""
    limits = httpx.Limits(max_connections=POOL, max_keepalive_connections=POOL)
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{upstream_port}", limits=limits, timeout=60, trust_env=False
    )

    @asynccontextmanager
    async def lifetime(app: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = FastAPI(lifespan=lifetime, dependencies=[Depends(hook()) for _ in range(hooks)])

    prefixes = {route_prefix(i) for i in range(routes)}

    async def part(path: str) -> object:
        answer = await client.get(path)
        answer.raise_for_status()
        return orjson.loads(answer.content)

    if parts:

        @app.get(f"{route_prefix(0)}{AGGREGATE}")
        async def aggregate() -> Response:
            values = await asyncio.gather(*(part(path) for path in parts.values()))
            page = dict(zip(parts, values, strict=True))
            return Response(orjson.dumps(page), media_type="application/json")

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def forward(request: Request) -> StreamingResponse:
        if "/".join(request.url.path.split("/", 3)[:3]) not in prefixes:
            raise HTTPException(404)
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        asked = client.build_request(
            request.method, request.url.path, headers=headers, content=await request.body()
        )
        answer = await client.send(asked, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose)
        )

    return app


def main() -> None:
    """Runs until SIGTERM."""
    port, upstream_port, routes, hooks = map(int, sys.argv[1:5])
    parts = json.loads(sys.argv[5])
    uvicorn.run(
        make(upstream_port, routes, hooks, parts),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
