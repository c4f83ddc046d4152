"""From the table of a plugin in Python to its PluginUse: the common keys, and those of the class's Config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fastgate.config import reflect
from fastgate.config.decode import BAD, Decoder, describe, label_of, table_label
from fastgate.config.document import Document
from fastgate.config.model import PluginUse
from fastgate.config.plugin_types import PluginSource
from fastgate.config.problems import Path, Problems, did_you_mean, quote
from fastgate.config.secrets import SecretSource
from fastgate.config.units import BadValue

if TYPE_CHECKING:
    from fastgate.plugins import Plugin

COMMON: Final = reflect.keys_of(PluginUse)


class ConfigDecoder(Decoder):
    """Decodes a whole configuration, and so has to find plugins and their classes."""

    def __init__(
        self,
        problems: Problems,
        document: Document,
        plugins: PluginSource,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(problems, SecretSource(document.read, environ))
        self._plugins = plugins
        self._document = document

    def _untagged(self, node: reflect.Tagged, value: dict[str, Any], path: Path) -> Any:
        if node.other is not PluginUse:
            return super()._untagged(node, value, path)
        use, here = value.get("use"), (*path, "use")
        if use is None:
            self._problems.error(path, f'{table_label(path)} needs the key "use", as in use = "rate-limit"')
            return BAD
        if not isinstance(use, str):
            self._problems.error(here, f"use: expected a string, got {describe(use)}")
            return BAD
        try:
            plugin, version = self._plugins.find(use, self._document.folder(path))
            own = _keys_of(plugin)
        except BadValue as bad:
            self._problems.error(here, f"use: {bad}", bad.hint)
            return BAD
        for message, hint in _doubts(plugin):
            self._problems.warning(here, f"use: {message}", hint)
        fields = self._fields({**COMMON, **own}, value, path)
        decoder = _OwnDecoder(self._problems, self._secrets)
        config = decoder.config(plugin, {name: fields.pop(name) for name in own}, path)
        return PluginUse(plugin=plugin, version=version, config=None if config is BAD else config, **fields)


class _OwnDecoder(Decoder):
    """Builds the structs of a plugin, and only of sound values: their classes may look at them."""

    def config(self, plugin: type[Plugin], fields: dict[str, Any], path: Path) -> Any:
        config = self._made(plugin.Config, fields, path)
        if config is BAD:
            return BAD
        try:
            wrong = plugin.check(config)
        except Exception as error:  # noqa: BLE001 - told as a problem of the file
            self._problems.error(path, f"{table_label(path)}: {plugin.__name__}.check raised {error!r}")
            return BAD
        for key, message in wrong.items():
            # "rules.0.path": a key in a table in an array.
            parts = [int(part) if part.isdigit() else part for part in key.split(".")] if key else []
            here = (*path, *parts)
            self._problems.error(here, f"{label_of(here) if parts else table_label(path)}: {message}")
        return BAD if wrong else config

    def _made(self, cls: type[Any], fields: dict[str, Any], path: Path) -> Any:
        if self._problems.failed(path):
            return BAD
        try:
            return super()._made(cls, fields, path)
        except Exception as error:  # noqa: BLE001 - from a __post_init__: told as a problem of the file
            self._problems.error(path, f"{table_label(path)}: {error}")
            return BAD


def _keys_of(plugin: type[Plugin]) -> dict[str, reflect.Key]:
    """The keys of its Config. Raises BadValue where that is no class that can be read."""
    shown, config = plugin.__name__, plugin.Config
    if not reflect.is_table(config):
        raise BadValue(f"{shown}.Config must be a frozen msgspec.Struct or a frozen dataclass")
    try:
        reflect.check_readable(config)
    except reflect.UnreadableError as error:
        raise BadValue(f"the configuration of {shown} cannot be read: {error}") from None
    keys = reflect.keys_of(config)
    taken = next((name for name in keys if name in COMMON), None)
    if taken is not None:
        raise BadValue(f"{shown}.Config must not define {quote(taken)}: every plugin has that key")
    return keys


def _doubts(plugin: type[Plugin]) -> list[tuple[str, str]]:
    """Phases that would never be called: (message, hint)."""
    from fastgate.plugins import PHASES, Plugin

    shown = plugin.__name__
    doubts = [
        (f"{shown} has a method {quote(name)}, which is no phase", did_you_mean(name, PHASES))
        for name in dir(plugin)
        if name.startswith("on_") and name not in PHASES and callable(getattr(plugin, name))
    ]
    if plugin.on_response_body is not Plugin.on_response_body and plugin.response_body == "none":
        why = f'{shown}.on_response_body is never called: its response_body is "none"'
        doubts.append((why, 'it is "chunks" or "buffered"'))
    return doubts
