"""The page's own small service: it asks the gateways for an order, tells how that went, and turns services
off and on.

    GET /                    the page
    GET /order/GATEWAY/ID    {"status", "took", "fields", "body", "trace"}: what the gateway answered, the
                             body as text, and what its admin API keeps of the request (null: nothing)
    GET /services            {"services": [{"name", "state"}]}
    PUT /services/NAME       up, slow, failing or down

The browser talks to this alone: neither the gateways nor the admin API know of the page.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from services import STATES, Service

HTML: Final = Path(__file__).with_name("page.html")
KEPT_PATIENCE: Final = 2.0  # seconds until the admin API knows of a request that has been answered
MAX_BODY: Final = 1024
_INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def policy(page: str) -> str:
    """The Content-Security-Policy of a page: its own inline script and style, by digest, and nothing else
    (CSP 3, 6.6.2.2)."""
    sources: dict[str, list[str]] = {"script": [], "style": []}
    for kind, inline in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        sources[kind].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(sources['script'])}; "
        f"style-src {' '.join(sources['style'])}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )


def get(port: int, path: str, headers: Mapping[str, str] = {}) -> tuple[int, list[tuple[str, str]], str]:
    """Status, fields and body. OSError or HTTPException where there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read().decode()
    finally:
        connection.close()


class Page(ThreadingHTTPServer):
    """Serves while the context lasts. gateways: name -> port. Raises OSError where the port is taken."""

    daemon_threads = True

    def __init__(
        self, port: int, gateways: Mapping[str, int], admin: int, services: Mapping[str, Service]
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.gateways = gateways
        self.admin = admin
        self.services = services

    def __enter__(self) -> Page:
        threading.Thread(target=self.serve_forever, args=(0.05,), name="page", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()

    def order(self, gateway: str, id: str) -> dict[str, Any]:
        """What a gateway makes of an order, and how."""
        request = uuid.uuid4().hex
        began = time.monotonic()
        status, fields, body = get(
            self.gateways[gateway], f"/orders/{quote(id, safe='')}", {"X-Request-ID": request}
        )
        took = (time.monotonic() - began) * 1000
        return {
            "status": status,
            "took": took,
            "fields": fields,
            "body": body,
            "trace": self.trace(request),
        }

    def trace(self, request: str) -> Any:
        """What is kept of a request: that is written when it has ended, a moment after its answer."""
        deadline = time.monotonic() + KEPT_PATIENCE
        while True:
            status, _, text = get(self.admin, f"/requests/{quote(request, safe='')}")
            if status == 200:
                return json.loads(text)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)


class Handler(BaseHTTPRequestHandler):
    """Answers to browsers of this machine alone."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Page

    def do_GET(self) -> None:
        if not self.known_host():
            return
        match [unquote(segment) for segment in urlsplit(self.path).path.split("/")[1:]]:
            case [""]:
                text = HTML.read_text()
                self.answer(200, text.encode(), "text/html; charset=utf-8", policy(text))
            case ["order", gateway, id] if gateway in self.server.gateways:
                try:
                    self.json(200, self.server.order(gateway, id))
                except (OSError, http.client.HTTPException) as error:
                    self.json(502, {"error": f"the gateway: {error}"})
            case ["services"]:
                self.json(200, self.states())
            case _:
                self.json(404, {"error": "there is nothing"})

    def do_PUT(self) -> None:
        # No page of another site can send this: a browser asks first (CORS), and is answered with 501.
        length = self.headers.get("Content-Length") or "0"
        if not self.known_host():
            return
        if not length.isdigit() or int(length) > MAX_BODY:
            self.json(413, {"error": "too much"})
        else:
            self.put(self.rfile.read(int(length)))

    def put(self, body: bytes) -> None:
        match self.path.split("/")[1:], body.decode("latin-1"):
            case ["services", name], state if name in self.server.services and state in STATES:
                try:
                    self.server.services[name].set(state)
                except OSError as error:
                    self.json(409, {"error": str(error)})
                else:
                    self.json(200, self.states())
            case _:
                self.json(400, {"error": f"expected PUT /services/NAME with one of {', '.join(STATES)}"})

    def states(self) -> dict[str, Any]:
        return {"services": [{"name": one.name, "state": one.state} for one in self.server.services.values()]}

    def known_host(self) -> bool:
        """Whether the browser means this machine: another site's name may lead here as well."""
        port = self.server.server_port
        if self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return True
        self.close_connection = True
        self.json(421, {"error": "not this host"})
        return False

    def json(self, status: int, value: Any) -> None:
        if status >= 400:
            self.close_connection = True  # its body may not have been read
        self.answer(status, json.dumps(value).encode(), "application/json")

    def answer(self, status: int, body: bytes, kind: str, csp: str = "default-src 'none'") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", csp)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """The gateways have a log."""
