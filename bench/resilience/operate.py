"""What an operator does to a gateway that runs: drains endpoints, exchanges them, reloads."""

from __future__ import annotations

import csv
import dataclasses
import http.client
import json
import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from bench.peers import PEERS
from bench.peers.base import Place
from bench.peers.envoy import discovery
from bench.peers.fastgate import endpoints_json
from bench.process import Session, session_pids

PATIENCE = 10.0  # seconds for a peer to do what it was told


class OperateFailed(Exception):
    """The peer did not do what it was told; the text quotes its answer."""


def await_true(what: str, ready: Callable[[], bool]) -> None:
    """Asks every 10 ms. OperateFailed after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise OperateFailed(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.01)


class Operator(ABC):
    """Operates one peer. Endpoints are named by their ports."""

    can_reload = True

    def __init__(self, name: str, place: Place, session: Session) -> None:
        self.name = name
        self.place = place
        self.session = session
        self.turn = 0

    @abstractmethod
    def drain(self, port: int) -> None:
        """No new requests for it; what runs may finish."""

    @abstractmethod
    def restore(self, port: int) -> None:
        """In use again."""

    @abstractmethod
    def active(self, port: int) -> int | None:
        """Requests under way at it, as the peer shows them; None where it does not."""

    @abstractmethod
    def use(self, ports: Sequence[int]) -> None:
        """These endpoints from now on."""

    @abstractmethod
    def reload(self) -> None:
        """A changed configuration, the same endpoints."""

    def write(self, ports: Sequence[int]) -> None:
        """The peer's configuration anew: with these endpoints, and one route more or less than before."""
        self.turn += 1
        shape = dataclasses.replace(self.place.shape, routes=2 + self.turn % 2)
        place = dataclasses.replace(self.place, upstream_ports=tuple(ports), shape=shape)
        PEERS[self.name].command(place)


class Admin:
    """fastgate's admin API on a port of 127.0.0.1. timeout: seconds for one answer."""

    def __init__(self, port: int, timeout: float = 5) -> None:
        self.port = port
        self.timeout = timeout

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What it answers. OperateFailed where it refuses."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise OperateFailed(f"{method} {path}: {answer.status} {told[:200]!r}")
        return json.loads(told) if told else None

    def set_state(self, upstream: str, port: int, state: str) -> None:
        """An operator's word about an endpoint: "ready", "draining", "down" or "auto"."""
        self.ask("PUT", f"/upstreams/{upstream}/endpoints/127.0.0.1:{port}", {"state": state})

    def endpoint(self, upstream: str, port: int) -> dict[str, Any]:
        """What it shows of an endpoint."""
        for endpoint in self.ask("GET", f"/upstreams/{upstream}")["endpoints"]:
            if endpoint["address"] == f"127.0.0.1:{port}":
                found: dict[str, Any] = endpoint
                return found
        raise OperateFailed(f"GET /upstreams/{upstream} does not show 127.0.0.1:{port}")

    def status(self, upstream: str, port: int) -> str:
        """What an endpoint is, all told: "ready", "draining", "down" or "ejected"."""
        return str(self.endpoint(upstream, port)["status"])

    def active(self, upstream: str, port: int) -> int:
        """Requests under way at an endpoint, those that wait for a connection included."""
        shown = self.endpoint(upstream, port)
        return int(shown["open"]) - int(shown["idle"]) + int(shown["waiting"])


class FastgateOperator(Operator):
    """The admin API, the watched file of endpoints, SIGHUP."""

    @property
    def admin(self) -> Admin:
        return Admin(self.place.admin_port)

    def drain(self, port: int) -> None:
        self.admin.set_state("svc", port, "draining")

    def restore(self, port: int) -> None:
        self.admin.set_state("svc", port, "auto")

    def active(self, port: int) -> int | None:
        return self.admin.active("svc", port)

    def use(self, ports: Sequence[int]) -> None:
        self.place.write("endpoints.json", endpoints_json(ports))

    def reload(self) -> None:
        self.write(self.place.upstream_ports)
        os.kill(self.session.pid, signal.SIGHUP)


class ReloadingOperator(Operator):
    """A peer that starts new workers for a changed configuration and ends the old ones."""

    signal: signal.Signals

    def restart_workers(self, ports: Sequence[int]) -> None:
        self.write(ports)
        before = set(session_pids(self.session.pid)) - {self.session.pid}
        os.kill(self.session.pid, self.signal)
        await_true(
            f"{self.name} has exchanged its workers",
            lambda: before.isdisjoint(now := set(session_pids(self.session.pid))) and len(now) > 1,
        )

    def use(self, ports: Sequence[int]) -> None:
        self.restart_workers(ports)

    def reload(self) -> None:
        self.restart_workers(self.place.upstream_ports)


class NginxOperator(ReloadingOperator):
    """The configuration without the endpoint, and SIGHUP; nginx shows no requests under way."""

    signal = signal.SIGHUP

    def drain(self, port: int) -> None:
        self.restart_workers([other for other in self.place.upstream_ports if other != port])

    def restore(self, port: int) -> None:
        del port
        self.restart_workers(self.place.upstream_ports)

    def active(self, port: int) -> int | None:
        del port
        return None


class HaproxyOperator(ReloadingOperator):
    """The runtime API; SIGUSR2 to the master."""

    signal = signal.SIGUSR2

    def ask(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self.place.admin_port), timeout=5) as connection:
            connection.sendall(f"{command}\n".encode())
            with connection.makefile() as answer:
                return answer.read()

    def state(self, port: int, state: str) -> None:
        if told := self.ask(f"set server svc/s{port} state {state}").strip():
            raise OperateFailed(f"haproxy: {told}")

    def drain(self, port: int) -> None:
        self.state(port, "drain")

    def restore(self, port: int) -> None:
        self.state(port, "ready")

    def active(self, port: int) -> int | None:
        for row in csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines()):
            if (row["pxname"], row["svname"]) == ("svc", f"s{port}"):
                return int(row["scur"])
        raise OperateFailed(f"haproxy does not show s{port}")


class EnvoyOperator(Operator):
    """The watched file of endpoints and the admin interface; it has no reload."""

    can_reload = False

    def drain(self, port: int) -> None:
        self.place.write("endpoints.json", discovery(self.place.upstream_ports, {port}))
        await_true(f"envoy drains {port}", lambda: "draining" in self.host(port)["health_flags"])

    def restore(self, port: int) -> None:
        del port
        self.use(self.place.upstream_ports)

    def host(self, port: int) -> dict[str, str]:
        """What /clusters says of an endpoint."""
        connection = http.client.HTTPConnection("127.0.0.1", self.place.admin_port, timeout=5)
        try:
            connection.request("GET", "/clusters")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        prefix = f"svc::127.0.0.1:{port}::"
        lines = (line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix))
        return {key: value for key, _, value in (line.partition("::") for line in lines)}

    def active(self, port: int) -> int | None:
        return int(self.host(port)["rq_active"])

    def use(self, ports: Sequence[int]) -> None:
        self.place.write("endpoints.json", discovery(ports))

    def reload(self) -> None:
        raise NotImplementedError


OPERATORS: dict[str, type[Operator]] = {
    "fastgate": FastgateOperator,
    "nginx": NginxOperator,
    "haproxy": HaproxyOperator,
    "envoy": EnvoyOperator,
}
