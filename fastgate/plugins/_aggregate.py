"""A route that an async function answers: what ``Gateway.aggregate`` makes of one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Final, NamedTuple, get_type_hints
from urllib.parse import unquote

import msgspec

from fastgate._core import ExchangeView as Exchange
from fastgate._core import Response
from fastgate.aggregation.gather import Gather
from fastgate.config import load_tables, model
from fastgate.plugins.api import Plugin

__all__ = ["Aggregation", "aggregation_of"]

# Numbers that were read as Decimal are numbers again.
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode

#: Seconds of a hook beyond those of its parts.
_MORE: Final = 5.0


class Aggregation(NamedTuple):
    route: model.Route
    plugin: model.PluginUse


class _Answering(Plugin):
    """The plugin of one function; a subclass of its own holds it."""

    function: ClassVar[Callable[..., Any]]
    #: Segments of the path that it takes, and their types.
    parameters: ClassVar[Mapping[str, Any]]
    options: ClassVar[Mapping[str, Any]]

    async def on_request(self, exchange: Exchange) -> Response:
        arguments = {}
        if self.parameters:
            captures = exchange.captures
            for name, kind in self.parameters.items():
                try:
                    arguments[name] = _converted(captures[name], kind)
                except ValueError as error:
                    return exchange.refuse(400, "aggregate-request", f"{name}: {error}")
        async with exchange.gather(**self.options) as gather:
            result = await self.function(exchange, gather, **arguments)
        if isinstance(result, Response):
            return result
        # Nobody knows what the function has looked at of the client's request.
        said = {"Cache-Control": gather.cache_control(private=True), "Fastgate-Partial": gather.partial}
        headers = {name: value for name, value in said.items() if value}
        return Response(headers=headers, body=_encode(result), content_type="application/json")


def _converted(segment: str, kind: Any) -> Any:
    """Raises ValueError."""
    text = unquote(segment, errors="strict")
    return text if kind is str else msgspec.convert(text, kind, strict=False)


def aggregation_of(
    function: Callable[..., Any],
    path: str,
    *,
    methods: Collection[str],
    name: str,
    host: str | Collection[str],
    listeners: Collection[str],
    plugins: Collection[str],
    timeout: float,
    options: Mapping[str, Any],
) -> Aggregation:
    """Raises TypeError for a function that does not fit, ValueError for options that are none, ConfigError
    for what no route may say."""
    nobody: Any = None
    Gather(nobody, float, timeout=timeout, **options)
    name = name or function.__name__.replace("_", "-")
    match: dict[str, Any] = {"path": path, "methods": list(methods)}
    if host:
        match["host"] = host if isinstance(host, str) else list(host)
    own = f"aggregate-{name}"
    members = {
        "function": staticmethod(function),
        "parameters": _parameters(function, path),
        "options": {**options, "timeout": timeout},
        "__doc__": function.__doc__,
    }
    plugin = type(function.__name__, (_Answering,), members)
    tables = {
        "listeners": [{"name": "any", "bind": "127.0.0.1:0"}],
        # The function answers; this is never reached.
        "routes": [{"name": name, "match": match, "respond": {"status": 500}, "plugins": [own]}],
        "plugins": {own: {"use": "function", "timeout": f"{int((timeout + _MORE) * 1000)}ms"}},
    }
    config = load_tables(tables, f"<aggregate {name}>", plugins={"function": plugin}).config
    [route] = config.routes
    use = config.plugins[own]
    assert isinstance(use, model.PluginUse)
    route = msgspec.structs.replace(route, listeners=tuple(listeners), plugins=(*plugins, own))
    return Aggregation(route, use)


def _parameters(function: Callable[..., Any], path: str) -> dict[str, Any]:
    """The named segments of the path that the function takes, with their types."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{function!r} is no `async def` function")
    given = list(inspect.signature(function).parameters.values())
    if len(given) < 2 or any(one.kind is not one.POSITIONAL_OR_KEYWORD for one in given[:2]):
        raise TypeError(f"{function.__name__} takes the exchange and the block of parts first")
    segments = [part[1:-1] for part in path.split("/") if part.startswith("{") and part.endswith("}")]
    found = {}
    for parameter in given[2:]:
        if parameter.name in segments and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            found[parameter.name] = _annotation(function, parameter)
        elif parameter.default is parameter.empty:
            raise TypeError(f"{function.__name__}: {path!r} has no segment {{{parameter.name}}}")
    return found


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    if parameter.annotation is parameter.empty:
        return str
    # By itself: what else the function names need not be imported when the program runs.
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    names = inspect.unwrap(function).__globals__
    try:
        return get_type_hints(alone, names, include_extras=True)[parameter.name]
    except NameError as error:
        raise TypeError(f"{function.__name__}: the type of {parameter.name}: {error}") from None
