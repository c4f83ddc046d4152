"""An endpoint as a process of its own, run as a script by `support.processes`, to be killed and stopped.

GET and POST /id/N are answered "N NAME" after a moment; a POST's N is first appended to the file DELIVERIES.
/health is answered at once; POST /errors/N makes N percent of the ids be answered 500 from then on.

usage: service.py PORT NAME DELIVERIES     (127.0.0.1; prints "ready" once it listens)
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time

WORK = 0.002  # seconds that an id takes: what is killed has something under way


class Service:
    """A thread for each connection."""

    def __init__(self, port: int, name: str, deliveries: str) -> None:
        self.name = name
        self.errors = 0
        self.deliveries = os.open(deliveries, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)

    def run(self) -> None:
        """Until it is killed."""
        print("ready", flush=True)
        while True:
            sock, _ = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        """One connection."""
        with sock, sock.makefile("rb") as stream:
            try:
                while line := stream.readline():
                    method, path, _ = line.split(b" ", 2)
                    length = 0
                    while (field := stream.readline()) not in (b"\r\n", b""):
                        if field.lower().startswith(b"content-length:"):
                            length = int(field[15:])
                    stream.read(length)
                    status, body = self.answer(method, path)
                    sock.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
            except ConnectionError:
                return  # the gateway is done with this connection

    def answer(self, method: bytes, path: bytes) -> tuple[int, bytes]:
        """(status, body)."""
        kind, _, number = path[1:].partition(b"/")
        if kind == b"errors":
            self.errors = int(number)
        if kind != b"id":
            return 200, b"ok"
        if method == b"POST":
            os.write(self.deliveries, number + b"\n")
        time.sleep(WORK)
        failed = random.random() * 100 < self.errors
        return 500 if failed else 200, b"%b %b" % (number, self.name.encode())


if __name__ == "__main__":
    Service(int(sys.argv[1]), sys.argv[2], sys.argv[3]).run()
