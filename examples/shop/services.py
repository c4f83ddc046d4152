"""The shop's services: six small HTTP services, each with a database of its own (SQLite), on 127.0.0.1.

They run as threads of one process, and each can be taken down, made slow or made to fail while it runs.
`python examples/shop/services.py` runs them alone, where the configurations look for them.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from msgspec import Raw
from seed import SEED

PORTS: Final = {name: port for port, name in enumerate(SEED, 9101)}  # those of shared/services.toml

State = Literal["up", "slow", "failing", "down"]
STATES: Final[tuple[State, ...]] = ("up", "slow", "failing", "down")
SLOW: Final = 3.0  # seconds: longer than the gateways wait
MAX_BODY: Final = 65536

# What a look into a larger database, or a model, would take, in seconds: a waterfall wants something to show.
TAKES: Final = {
    "orders": 0.012,
    "customers": 0.009,
    "products": 0.018,
    "stock": 0.025,
    "reviews": 0.035,
    "recommendations": 0.060,
}


class Asked(NamedTuple):
    """A request: its path's segments, query and JSON body."""

    method: str
    segments: tuple[str, ...]
    query: dict[str, list[str]]
    body: Any


class NoSuchThing(Exception):
    """Answered with 404."""


def exact(number: str) -> Raw:
    """A JSON number of just these digits."""
    return Raw(number.encode())


def orders(db: sqlite3.Connection, asked: Asked) -> Any:
    """GET /orders/ID."""
    match asked:
        case ("GET", ("orders", id), _, _):
            order = db.execute("SELECT * FROM orders WHERE id = ?", (id,)).fetchone()
            if order is None:
                raise NoSuchThing(f"order {id}")
            items = db.execute("SELECT sku, quantity, price FROM items WHERE order_id = ?", (id,))
            lines = [{**item, "price": exact(item["price"])} for item in map(dict, items)]
            return {
                **order,
                "number": exact(order["number"]),
                "total": exact(order["total"]),
                "items": lines,
            }
    raise NoSuchThing("path")


def customers(db: sqlite3.Connection, asked: Asked) -> Any:
    """GET /customers/ID."""
    match asked:
        case ("GET", ("customers", id), _, _):
            customer = db.execute("SELECT * FROM customers WHERE id = ?", (id,)).fetchone()
            if customer is None:
                raise NoSuchThing(f"customer {id}")
            return {
                **customer,
                "offers": bool(customer["offers"]),
                "credit_limit": exact(customer["credit_limit"]),
            }
    raise NoSuchThing("path")


def products(db: sqlite3.Connection, asked: Asked) -> Any:
    """GET /products/SKU."""
    match asked:
        case ("GET", ("products", sku), _, _):
            product = db.execute("SELECT * FROM products WHERE sku = ?", (sku,)).fetchone()
            if product is None:
                raise NoSuchThing(f"product {sku}")
            images = {size: f"/images/{sku}-{size}.webp" for size in ("small", "large")}
            return {**product, "images": images}
    raise NoSuchThing("path")


def stock(db: sqlite3.Connection, asked: Asked) -> Any:
    """POST /availability {"items": [{"sku": ..., "quantity": ...}]}."""
    match asked:
        case ("POST", ("availability",), _, {"items": list(items)}):
            found = []
            for item in items:
                row = db.execute("SELECT pieces FROM stock WHERE sku = ?", (item["sku"],)).fetchone()
                pieces = row["pieces"] if row else 0
                found.append({"sku": item["sku"], "pieces": pieces, "enough": pieces >= item["quantity"]})
            return {"items": found}
    raise NoSuchThing("path")


def reviews(db: sqlite3.Connection, asked: Asked) -> Any:
    """GET /reviews/SKU."""
    match asked:
        case ("GET", ("reviews", sku), _, _):
            rows = db.execute("SELECT stars, text FROM reviews WHERE sku = ?", (sku,)).fetchall()
            mean = sum(row["stars"] for row in rows) / len(rows) if rows else None
            return {"sku": sku, "stars": mean, "reviews": [dict(row) for row in rows]}
    raise NoSuchThing("path")


def recommendations(db: sqlite3.Connection, asked: Asked) -> Any:
    """GET /recommendations?customer=ID&limit=N."""
    match asked:
        case ("GET", ("recommendations",), {"customer": [customer]}, _):
            limit = int(asked.query.get("limit", ["10"])[0])
            rows = db.execute(
                "SELECT sku, title, because FROM recommendations WHERE customer = ? LIMIT ?",
                (customer, limit),
            )
            return {"items": [dict(row) for row in rows]}
    raise NoSuchThing("path")


ANSWERS: Final[dict[str, Callable[[sqlite3.Connection, Asked], Any]]] = {
    "orders": orders,
    "customers": customers,
    "products": products,
    "stock": stock,
    "reviews": reviews,
    "recommendations": recommendations,
}


class Handler(BaseHTTPRequestHandler):
    """JSON over HTTP/1.1 with kept connections."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True
    server: Server

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):  # taken down while it answered
            super().handle_one_request()

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            self.answer(413, {"error": "too much"})
            return
        service, body = self.server.service, self.rfile.read(length)
        time.sleep(TAKES[service.name])
        if service.state == "slow":
            service.wait(SLOW)
        if service.state == "failing":
            self.answer(500, {"error": f"{service.name} is made to fail"})
            return
        target = urlsplit(self.path)
        try:
            asked = Asked(
                self.command,
                tuple(unquote(segment) for segment in target.path.split("/")[1:]),
                parse_qs(target.query),
                json.loads(body) if body else None,
            )
            with closing(service.connect()) as db:
                self.answer(200, service.answer(db, asked))
        except NoSuchThing as what:
            self.answer(404, {"error": f"no such {what}"})
        except (ValueError, TypeError, KeyError):
            self.answer(400, {"error": "not understood"})

    do_POST = do_GET

    def answer(self, status: int, value: Any) -> None:
        body = msgspec.json.encode(value)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """The gateways have a log."""


class Server(ThreadingHTTPServer):
    """A listening service. Its connections end with it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Service:
    """One of the services. port: 0 for any; it keeps the one that it got."""

    def __init__(self, name: str, folder: Path, port: int = 0) -> None:
        self.name = name
        self.answer = ANSWERS[name]
        self.state: State = "down"
        self.port = port
        self._file = folder / f"{name}.sqlite"
        self._server: Server | None = None
        self._changed = threading.Condition()
        with closing(self.connect()) as db:
            db.executescript(f"PRAGMA synchronous = OFF; BEGIN; {SEED[name]} COMMIT;")

    def connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file)
        db.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }
        return db

    def set(self, state: State) -> None:
        """Raises OSError where its port was taken meanwhile."""
        if state == "down" and self._server is not None:
            self._server.end()
            self._server = None
        elif state != "down" and self._server is None:
            self._server = Server(self, self.port)
            self.port = self._server.server_port
            threading.Thread(
                target=self._server.serve_forever, args=(0.05,), name=self.name, daemon=True
            ).start()
        with self._changed:
            self.state = state
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until it is slow no more."""
        with self._changed:
            self._changed.wait_for(lambda: self.state != "slow", seconds)


@contextmanager
def running(ports: dict[str, int]) -> Iterator[dict[str, Service]]:
    """All services, up. ports: where; 0 for any. Raises OSError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="shop-")))
        services = {}
        for name in SEED:
            services[name] = Service(name, folder, ports.get(name, 0))
            stack.callback(services[name].set, "down")
            services[name].set("up")
        yield services


if __name__ == "__main__":
    with running(PORTS) as started:
        print("\n".join(f"http://127.0.0.1:{one.port} {one.name}" for one in started.values()), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
