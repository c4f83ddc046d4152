"""An ACME directory that misbehaves as told: TLS on a free loopback port, scripted answers."""

from __future__ import annotations

import http.server
import ipaddress
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509

from support.certificates import issue

Answer = tuple[int, dict[str, str], Any]  # status, header fields, JSON


class Directory:
    """answers: path to what is answered there, or to what makes that; the directory itself is at /dir. asked:
    how often each path was."""

    def __init__(self, folder: Path) -> None:
        authority = issue("CN=a directory's own", ca=True)
        name = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        own = issue("CN=directory", name, by=authority, server=True)
        self.ca_file = folder / "scripted-ca.pem"
        self.ca_file.write_text(authority.pem)
        (folder / "scripted.pem").write_text(own.pem + own.key_pem)
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, Answer | Callable[[str], Answer]] = {}
        directory = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, fields, body = directory._answer(self.path)
                data = json.dumps(body).encode() if not isinstance(body, bytes) else body
                self.send_response(status)
                kind = "application/json" if status < 400 else "application/problem+json"
                lines = {"Content-Type": kind, "Replay-Nonce": "bm9uY2U", "Content-Length": str(len(data))}
                for field, value in {**lines, **fields}.items():
                    self.send_header(field, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_POST = do_HEAD = _answer

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that has had enough

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "scripted.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self.answers = {
            "/dir": (
                200,
                {},
                {name: f"{self.url}/{name}" for name in ("newNonce", "newAccount", "newOrder")},
            ),
            "/newNonce": (200, {}, {}),
            "/newAccount": (201, {"Location": f"{self.url}/account/1"}, {"status": "valid"}),
            "/account/1": (200, {}, {"status": "valid"}),
        }

    def _answer(self, path: str) -> Answer:
        self.asked[path] += 1
        found = self.answers.get(path, (404, {}, problem("malformed", "there is nothing")))
        return found(path) if callable(found) else found

    def __enter__(self) -> Directory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def problem(code: str, detail: str) -> dict[str, str]:
    return {"type": f"urn:ietf:params:acme:error:{code}", "detail": detail}
