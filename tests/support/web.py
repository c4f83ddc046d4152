"""What the tests of the plugins for browsers and requests share: a route for each plugin, and what is wrong
in a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastgate.config import ConfigError, loads
from support.client import request
from support.gateway import Gateway, config, to_toml
from support.wire import Response

TRUSTED = {"trusted_proxies": ["127.0.0.0/8"]}


def one_route_each(address: str, use: str, plugins: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A configuration with the route /NAME, and all below it, for each plugin."""
    return config(
        address,
        listener=TRUSTED,
        routes=[
            {"name": name, "match": {"prefix": f"/{name}"}, "upstream": "up", "plugins": [name]}
            for name in plugins
        ],
        plugins={name: {"use": use, **table} for name, table in plugins.items()},
    )


def ask(
    gateway: Gateway,
    target: str,
    *lines: str,
    method: str = "GET",
    body: bytes | None = None,
    chunks: list[bytes] | None = None,
    host: str = "test.example",
) -> Response:
    """One request on a connection of its own. lines: raw field lines."""
    with gateway.client() as client:
        client.send(request(method, target, lines=lines, body=body, chunks=chunks, host=host))
        return client.response(method)


def problems(use: str, table: Mapping[str, Any]) -> str:
    """What is wrong with a plugin's table, as the user reads it; "" if nothing is."""
    tables = config(
        route={"respond": {"body": "x"}, "plugins": ["it"]}, plugins={"it": {"use": use, **table}}
    )
    try:
        return "\n".join(map(str, loads(to_toml(tables)).warnings))
    except ConfigError as error:
        return str(error)
