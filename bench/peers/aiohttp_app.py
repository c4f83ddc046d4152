"""The aiohttp reverse proxy. usage: python -m bench.peers.aiohttp_app PORT UPSTREAM_PORT ROUTES [LOG]"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO

import uvloop
from aiohttp import ClientSession, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from bench.model import route_prefix
from bench.peers.base import KEEP_ALIVE, POOL

HOP_BY_HOP = ("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade")


class Proxy:
    """Streams requests to the upstream of their route and the answers back."""

    def __init__(self, upstream_port: int, routes: int, log: TextIO | None) -> None:
        base = f"http://127.0.0.1:{upstream_port}"
        self.routes = {tuple(route_prefix(i).split("/")): base for i in range(routes)}
        self.log = log
        self.session: ClientSession

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """The upstream pool, open while the application runs."""
        del app
        connector = TCPConnector(limit=POOL, limit_per_host=POOL)
        async with ClientSession(connector=connector, auto_decompress=False) as self.session:
            yield

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One exchange."""
        base = self.routes.get(tuple(request.raw_path.split("/", 3)[:3]))
        if base is None:
            raise web.HTTPNotFound
        headers = CIMultiDict(request.headers)
        for name in HOP_BY_HOP:
            headers.popall(name, None)
        headers["X-Forwarded-For"] = request.remote or ""
        body = await request.read() if request.body_exists else None
        url = URL(base + request.raw_path, encoded=True)
        async with self.session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=answer.headers)
            for name in HOP_BY_HOP:
                response.headers.popall(name, None)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        if self.log is not None:
            agent = request.headers.get("User-Agent", "-")
            self.log.write(
                f'{request.remote} [{time.time():.3f}] "{request.method} {request.raw_path}" '
                f'{response.status} {response.body_length} "{agent}"\n'
            )
        return response


def main() -> None:
    """Runs until SIGTERM."""
    port, upstream_port, routes = map(int, sys.argv[1:4])
    if len(sys.argv) > 4:
        with Path(sys.argv[4]).open("w", buffering=65536) as log:
            serve(port, Proxy(upstream_port, routes, log))
    else:
        serve(port, Proxy(upstream_port, routes, None))


def serve(port: int, proxy: Proxy) -> None:
    """The server, until SIGTERM."""
    app = web.Application(client_max_size=10 << 20)
    app.cleanup_ctx.append(proxy.lifetime)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    uvloop.install()
    web.run_app(
        app,
        host="127.0.0.1",
        port=port,
        access_log=None,
        print=None,
        keepalive_timeout=KEEP_ALIVE,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
