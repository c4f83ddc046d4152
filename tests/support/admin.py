"""The admin API of a running gateway, asked by a test that waits for a state."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

from support.client import Client, request
from support.gateway import Gateway

ADMIN: dict[str, Any] = {"admin": {"bind": "127.0.0.1:0"}}


class Refused(Exception):
    """What the API answers in place of 200."""


class Admin:
    """Of a gateway whose configuration has `ADMIN`."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def ask(self, method: str, *path: str, body: object = None) -> Any:
        """What it answers; raises Refused."""
        target = "".join("/" + quote(segment, safe="") for segment in path)
        data = None if body is None else json.dumps(body).encode()
        lines = () if body is None else ("Content-Type: application/json",)
        with Client(self.gateway.addresses["admin API"]) as client:
            answer = client.request(request(method, target, host="127.0.0.1", body=data, lines=lines))
        if answer.status != 200:
            raise Refused(answer.json()["detail"])
        return answer.json()

    def upstream(self, name: str = "up") -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "upstreams", name)
        return found

    def endpoint(self, address: str, upstream: str = "up") -> dict[str, Any]:
        found = [each for each in self.upstream(upstream)["endpoints"] if each["address"] == address]
        assert len(found) == 1, f"{upstream} has not {address}"
        return dict(found[0])

    def addresses(self, upstream: str = "up") -> set[str]:
        return {each["address"] for each in self.upstream(upstream)["endpoints"]}

    def set(self, address: str, upstream: str = "up", **change: object) -> dict[str, Any]:
        """An operator's word: `state`, `weight`."""
        found: dict[str, Any] = self.ask("PUT", "upstreams", upstream, "endpoints", address, body=change)
        return found

    def split(self, route: str = "all") -> dict[str, dict[str, Any]]:
        """The arms by name."""
        return {arm["name"]: arm for arm in self.ask("GET", "routes", route, "split")["arms"]}

    def set_split(self, change: object, route: str = "all") -> None:
        self.ask("PUT", "routes", route, "split", body=change)

    # -- states come by themselves, and nobody announces them: asked every 10 ms

    def wait_endpoint(self, address: str, upstream: str = "up", **wanted: object) -> dict[str, Any]:
        """Until it is shown so: wait_endpoint(address, status="down")."""
        deadline = time.monotonic() + 10
        while True:
            shown = self.endpoint(address, upstream)
            if all(shown[key] == value for key, value in wanted.items()):
                return shown
            assert time.monotonic() < deadline, f"{wanted} is due: {shown}\n{self.gateway.errors()}"
            time.sleep(0.01)

    def wait_addresses(self, *addresses: str, upstream: str = "up") -> None:
        """Until these are the upstream's endpoints."""
        deadline = time.monotonic() + 10
        while (shown := self.addresses(upstream)) != set(addresses):
            assert time.monotonic() < deadline, f"{addresses} are due: {shown}\n{self.gateway.errors()}"
            time.sleep(0.01)
