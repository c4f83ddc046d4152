"""A program with a gateway inside: an application in the same process behind it, and a plugin of its own."""

import asyncio
import json
import urllib.request
from typing import Annotated, Any

from fastgate import Gateway
from fastgate.plugins import Exchange, Plugin, PluginConfig, Response, doc


class Greeter(Plugin):
    """Tells the service who is greeted; lets nobody in who has no name."""

    class Config(PluginConfig):
        header: Annotated[str, doc("The header that names the caller.", "header-name")] = "x-name"

    config: Config

    async def on_request(self, exchange: Exchange) -> Response | None:
        name = exchange.request.headers.get(self.config.header)
        if name is None:
            return exchange.refuse(401, "authentication-required", f"no {self.config.header}")
        exchange.request.headers["x-greet"] = name
        return None


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application; a FastAPI or Starlette one is used the same way."""
    if scope["type"] != "http":
        raise RuntimeError("http alone")
    body = json.dumps({"hello": dict(scope["headers"])[b"x-greet"].decode()}).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    )
    await send({"type": "http.response.body", "body": body})


CONFIG: dict[str, Any] = {
    "access_log": {"enabled": False},
    "listeners": [{"name": "main", "bind": "127.0.0.1:0"}],
    "upstreams": {"hello": {"endpoints": ["asgi:hello"]}},
    "plugins": {"who": {"use": "Greeter"}},
    "routes": [{"name": "hello", "match": {"prefix": "/hello"}, "upstream": "hello", "plugins": ["who"]}],
}


def get(url: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"X-Name": "ann"})) as answer:
        return f"{answer.status} {answer.read().decode()}"


async def main() -> None:
    gateway = Gateway(CONFIG, plugins=[Greeter], apps={"hello": hello})
    print("the route is", gateway.explain("GET", "/hello/world").route)
    async with gateway:
        print(await asyncio.to_thread(get, gateway.url + "/hello"))
        news = {"name": "news", "respond": {"status": 200, "body": "from the new configuration"}}
        await gateway.reload({**CONFIG, "routes": [*CONFIG["routes"], news]})
        print(await asyncio.to_thread(get, gateway.url + "/news"))
        report = await gateway.drain()
    print("nothing is left" if not any(report.values()) else report)


if __name__ == "__main__":
    asyncio.run(main())
