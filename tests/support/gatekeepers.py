"""What the tests of the gate-keepers share: how a request went, and what the service got of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastgate.config import ConfigError, loads
from support.client import request
from support.gateway import ROOT, Gateway, Table, config, to_toml
from support.wire import Response

WHO = {"use": str(ROOT / "tests/support/who.py")}


def ask(gateway: Gateway, target: str = "/", *lines: str, method: str = "GET", **options: Any) -> Response:
    """One request on a connection of its own. `lines`: its field lines, sent as they are."""
    with gateway.client() as client:
        return client.request(request(method, target, lines=lines, **options))


def seen(response: Response) -> dict[str, list[str]]:
    """The fields that the service got: values by name in lower case."""
    assert response.status == 200, response.body
    fields: dict[str, list[str]] = {}
    for name, value in json.loads(response.body)["fields"]:
        fields.setdefault(name.lower(), []).append(value)
    return fields


def seen_target(response: Response) -> str:
    assert response.status == 200, response.body
    return str(json.loads(response.body)["target"])


def who(response: Response) -> Any:
    """The consumer, as the plugin `WHO` saw it."""
    [found] = seen(response)["x-who"]
    return json.loads(found)


def assert_refused(response: Response, status: int, code: str) -> None:
    assert (response.status, json.loads(response.body)["code"]) == (status, code)
    # RFC 9110 15.5.2.
    assert (response.get("www-authenticate") is not None) is (status == 401)


def assert_refused_because(
    gateway: Gateway, send: Callable[[], Response], status: int, code: str, detail: str
) -> None:
    """detail: a regular expression; the log tells it, and the client does not hear of it."""
    response = send()
    assert_refused(response, status, code)
    record = record_of(gateway, response)
    assert record["reason"] == code
    assert re.search(detail, record["detail"]), record["detail"]
    assert record["detail"].encode() not in response.body


def record_of(gateway: Gateway, response: Response) -> dict[str, Any]:
    """What the access log says of a refusal."""
    wanted = json.loads(response.body)["request_id"]

    def found() -> list[dict[str, Any]]:
        return [record for record in gateway.log if record["request_id"] == wanted]

    wait_for(lambda: bool(found()))
    return found()[0]


def wait_for(ready: Callable[[], bool], timeout: float = 5.0) -> None:
    """For what is announced to nobody, such as that a file was read again: we look every 5 ms."""
    deadline = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < deadline, f"not in {timeout} s"
        time.sleep(0.005)


def problems_of(plugin: Table, **tables: Any) -> str:
    """What is wrong with a configuration that has this plugin."""
    whole = config("127.0.0.1:1", plugins={"x": plugin}, route={"plugins": ["x"]}, **tables)
    with pytest.raises(ConfigError) as caught:
        loads(to_toml(whole), "x.toml")
    return "\n".join(map(str, caught.value.problems))
