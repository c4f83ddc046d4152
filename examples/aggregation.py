"""A page made of three services by an async function; the services are applications in the same process."""

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from fastgate import Gateway
from fastgate.plugins import Exchange, Gather


@dataclass
class Order:
    id: int
    customer: int
    items: list[int]


@dataclass
class Product:
    name: str
    cents: int


@dataclass
class Page:
    customer: str
    products: list[Product]
    advice: list[str]


def service(answers: dict[str, Any]) -> Any:
    """An ASGI application that knows these paths; a FastAPI or Starlette one is used the same way."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("http alone")
        found = answers.get(scope["path"])
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"max-age=60")]
        status = 404 if found is None else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})

    return app


SERVICES = {
    "orders": service({"/orders/7": {"id": 7, "customer": 3, "items": [11, 12, 11]}}),
    "customers": service({"/customers/3": {"name": "Ann"}}),
    "products": service(
        {"/products/11": {"name": "tea", "cents": 450}, "/products/12": {"name": "pot", "cents": 2900}}
    ),
    "advice": service({}),
}

gateway = Gateway(
    {
        "access_log": {"enabled": False},
        "listeners": [{"bind": "127.0.0.1:0"}],
        "upstreams": {name: {"endpoints": [f"asgi:{name}"]} for name in SERVICES},
    },
    apps=SERVICES,
)


@gateway.aggregate("/orders/{id}", timeout=2.0)
async def order_page(exchange: Exchange, g: Gather, id: int) -> Page:
    """The order first; then, together, who has ordered, and each product. Advice is welcome, not needed."""
    advice = g.get("advice", "/advice", query={"order": id}, type=list[str], required=False, default=[])
    order = await g.get("orders", "/orders/{}", id, type=Order, statuses={404: 404})
    customer = g.get("customers", "/customers/{}", order.customer, type=dict[str, str])
    products = g.map(order.items, lambda item: g.get("products", "/products/{}", item, type=Product))
    return Page((await customer)["name"], await products, await advice)


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url) as answer:
            return f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        return f"{error.code} {problem['code']} {problem['parts']}"


async def main() -> None:
    async with gateway:
        for number in (7, 8):
            print(await asyncio.to_thread(get, f"{gateway.url}/orders/{number}"))


if __name__ == "__main__":
    asyncio.run(main())
