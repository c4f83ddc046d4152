"""What systemd is told: sd_notify(3), over its datagram socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["Notifier"]


class Notifier:
    """Says nothing where nobody listens. environ: names the socket, and the watchdog's time."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        micros = environ.get("WATCHDOG_USEC", "")
        # Twice within the time, as sd_watchdog_enabled(3) recommends; 0: no watchdog.
        self.watchdog_seconds = int(micros) / 2e6 if watched and micros.isdecimal() else 0.0

    def ready(self) -> None:
        self._send(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def succeeded_by(self, pid: int) -> None:
        self._send(f"MAINPID={pid}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
                sock.sendto(text.encode(), self._address)
