"""The files beside a configuration that it names: certificates, keys, lists of networks, plugins' code and
data."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any, Final

import msgspec

from fastgate.config.document import Document
from fastgate.config.model import Config, PluginUse, Sources
from fastgate.config.problems import Path
from fastgate.config.rewriting import Change, rewritten

MAX_BYTES: Final = 64 * 1024 * 1024
# Lists of endpoints are not among them: discovery watches those.
_FORM: Final = "file"
_RELATIVE: Final = (_FORM, "endpoints-file", "folder")
_TABLES: Final = ("server", "admin", "metrics", "dns", "access_log", "shared")


def at_root(config: Config, document: Document) -> Config:
    """Names of files that stand in an included file of another folder, made relative to the including one."""
    home = document.folder(())
    if config.admin is not None:
        # Its rules have found its files already, from where the process stands.
        config = msgspec.structs.replace(config, admin=rewritten(config.admin, relocation(os.getcwd())))

    def moved(table: Any, path: Path) -> Any:
        folder = document.folder(path)
        if table is None or folder == home:
            return table
        base = (
            os.path.relpath(folder, home) if not folder.is_absolute() or home.is_absolute() else str(folder)
        )
        return rewritten(table, relocation(base))

    if all(document.folder(path) == home for path in _paths(config)):
        return config
    return msgspec.structs.replace(
        config,
        **{name: moved(getattr(config, name), (name,)) for name in _TABLES},
        listeners=tuple(moved(one, ("listeners", i)) for i, one in enumerate(config.listeners)),
        routes=tuple(moved(one, ("routes", i)) for i, one in enumerate(config.routes)),
        upstreams={name: moved(one, ("upstreams", name)) for name, one in config.upstreams.items()},
        plugins={name: moved(one, ("plugins", name)) for name, one in config.plugins.items()},
        acme={name: moved(one, ("acme", name)) for name, one in config.acme.items()},
    )


def relocation(base: str) -> Change:
    """The change to names of files that puts ``base`` before those that are relative."""
    return lambda form, text: os.path.join(base, text) if form in _RELATIVE else text


def attached_of(config: Config, document: Document) -> Sources:
    """The sources of ``config``, each file that it names among them with the digest of what it says."""
    sources = document.sources()
    home = document.folder(())
    attached = sources.attached

    def note(form: str, text: str) -> str:
        if form == _FORM:
            place = os.path.join(home, text)
            if place not in attached:
                attached[place] = digest_of(place)
        return text

    rewritten(config, note)
    for plugin in config.plugins.values():
        if isinstance(plugin, PluginUse) and plugin.version:
            module = sys.modules.get(plugin.plugin.__module__)
            if module is not None and module.__file__ is not None:
                attached[module.__file__] = plugin.version
    return sources


def digest_of(path: str) -> str:
    """Of what a file says; "" where there is none, or none that can be read."""
    try:
        # Without O_NONBLOCK the open of a FIFO would never return.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            digest, left = hashlib.sha256(), MAX_BYTES
            while left > 0 and (data := file.read(min(left, 1 << 20))):
                digest.update(data)
                left -= len(data)
            return digest.hexdigest()
    except (OSError, ValueError):
        return ""


def _paths(config: Config) -> list[Path]:
    return [
        *((name,) for name in _TABLES),
        *(("listeners", i) for i in range(len(config.listeners))),
        *(("routes", i) for i in range(len(config.routes))),
        *(("upstreams", name) for name in config.upstreams),
        *(("plugins", name) for name in config.plugins),
        *(("acme", name) for name in config.acme),
    ]
