"""Several gateways in one process: each file's listeners, routes and plugins are its own.

Their names get the file's stem before them ("mobile/orders"), and so has each upstream that such a file
defines itself. An upstream of an included file keeps its name and is one for all that include the file: one
pool, one health check. The tables of the process ([server], [admin], ...) are written by one of them, or in
a file that all include.
"""

from __future__ import annotations

import os
from pathlib import Path as FilePath
from typing import Any, Final, NamedTuple, cast

from msgspec.structs import replace

from fastgate.config.attached import digest_of, relocation
from fastgate.config.document import Document
from fastgate.config.files import OnDisk
from fastgate.config.including import read_document
from fastgate.config.model import Config, Listener, Plugin, Route, Sources, Upstream
from fastgate.config.problems import ConfigError, Path, Problem, quote
from fastgate.config.rewriting import rewritten
from fastgate.config.rules_admin import clash_of

_TABLES: Final = ("server", "admin", "metrics", "dns", "access_log", "shared")


def said_now(sources: Sources) -> Sources:
    """What the files of ``sources`` say now, unchecked; ``sources`` itself where they can't be read."""
    placed = sources.absolute()
    try:
        texts = [read_document(root, OnDisk()).sources() for root in placed.roots]
    except ConfigError:
        return sources
    attached = {name: digest_of(name) for name in placed.attached}
    return replace(_sources(texts), attached=attached) if texts else sources


class Space(NamedTuple):
    """One of the files, read."""

    document: Document
    config: Config


class _Owned(NamedTuple):
    """Something that a name or a place is taken by."""

    space: Space
    path: Path
    item: Any

    @property
    def where(self) -> str:
        return self.space.document.where(self.path)

    @property
    def file(self) -> str:
        return self.space.document.file(self.path)


def join(spaces: list[Space]) -> tuple[Config, list[Problem]]:
    """One configuration of all, and what does not go together in it."""
    return _Joining(spaces).join()


class _Joining:
    def __init__(self, spaces: list[Space]) -> None:
        self._spaces = spaces
        self._found: list[Problem] = []
        self._tables: dict[str, _Owned] = {}
        self._upstreams: dict[str, _Owned] = {}
        self._listeners: list[_Owned] = []
        self._stems: dict[str, str] = {}

    def join(self) -> tuple[Config, list[Problem]]:
        first = self._spaces[0].config
        listeners: list[Listener] = []
        routes: list[Route] = []
        plugins: dict[str, Plugin] = {}
        upstreams: dict[str, Upstream] = {}
        for space in self._spaces:
            named = _named(self._space(space))
            listeners += named.listeners
            routes += named.routes
            plugins |= named.plugins
            for name, upstream in named.upstreams.items():
                upstreams.setdefault(name, upstream)
        admin = self._tables.get("admin")
        for owned in self._listeners if admin is not None else ():
            if admin is not None and owned.space is not admin.space and clash_of(admin.item, owned.item):
                told = f"admin.bind: listener {quote(owned.item.name)} already has {quote(owned.item.bind)}"
                self._tell(admin, ("admin", "bind"), told, f"it stands at {owned.where}")
        joined = replace(
            first,
            **{name: owned.item for name, owned in self._tables.items()},
            listeners=tuple(listeners),
            routes=tuple(routes),
            plugins=plugins,
            upstreams=upstreams,
            include=(),
            sources=_sources([space.config.sources for space in self._spaces]),
        )
        return joined, self._found

    def _space(self, space: Space) -> Space:
        """Checked against those before it, its names of files relative to the first one's folder."""
        root = space.document.root.name
        stem = FilePath(root).stem
        if stem in self._stems:
            told = f"its names would begin with {quote(stem + '/')}, as those of {self._stems[stem]}"
            self._found.append(Problem(root, 0, 0, told, "give one of the files another name"))
        self._stems.setdefault(stem, root)
        for name in _TABLES:
            if name in space.document.tables:
                self._take_table(_Owned(space, (name,), getattr(space.config, name)))
        for i, listener in enumerate(space.config.listeners):
            self._take_listener(_Owned(space, ("listeners", i), listener))
        for name, upstream in space.config.upstreams.items():
            path: Path = ("upstreams", name)
            if space.document.included(path):
                self._take_upstream(name, _Owned(space, path, upstream))
        home, here = self._spaces[0].document.folder(()), space.document.folder(())
        if here == home:
            return space
        base = os.path.abspath(here)
        return Space(space.document, rewritten(space.config, relocation(base)))

    def _take_table(self, owned: _Owned) -> None:
        first = self._tables.setdefault(str(owned.path[0]), owned)
        if first.file != owned.file:
            told = f"[{owned.path[0]}] is the process' own, and written twice"
            hint = f"the other stands at {first.where}; both may include it from one file"
            self._tell(owned, owned.path, told, hint)

    def _take_listener(self, owned: _Owned) -> None:
        for other in self._listeners:
            clash = "" if other.space is owned.space else clash_of(owned.item, other.item)
            if clash:
                verb = "already has" if clash == "same" else "overlaps: it has"
                told = f"bind: listener {quote(other.item.name)} {verb} {quote(other.item.bind)}"
                self._tell(owned, (*owned.path, "bind"), told, f"it stands at {other.where}")
                break
        self._listeners.append(owned)

    def _take_upstream(self, name: str, owned: _Owned) -> None:
        first = self._upstreams.setdefault(name, owned)
        if first.file != owned.file:
            told = f"upstream {quote(name)} of an included file is shared, and defined twice"
            hint = f"the other stands at {first.where}; rename one, or include one file in both"
            self._tell(owned, owned.path, told, hint)

    def _tell(self, owned: _Owned, path: Path, message: str, hint: str) -> None:
        _, name, line, column = owned.space.document.find(path, at_key=len(path) <= 2)
        self._found.append(Problem(name, line, column, message, hint))


def _named(space: Space) -> Config:
    config, document = space.config, space.document
    stem = FilePath(document.root.name).stem
    own = {name for name in config.upstreams if not document.included(("upstreams", name))}

    def name_of(form: str, text: str) -> str:
        if form in ("listener-ref", "plugin-ref", "acme-ref") or (form == "upstream-ref" and text in own):
            return f"{stem}/{text}"
        return text

    config = cast(Config, rewritten(config, name_of))
    every = tuple(f"{stem}/{listener.name}" for listener in config.listeners)
    return replace(
        config,
        listeners=tuple(replace(each, name=f"{stem}/{each.name}") for each in config.listeners),
        routes=tuple(
            replace(each, name=f"{stem}/{each.name}", listeners=each.listeners or every)
            for each in config.routes
        ),
        plugins={
            f"{stem}/{name}": replace(each, name=f"{stem}/{name}") for name, each in config.plugins.items()
        },
        acme={f"{stem}/{name}": each for name, each in config.acme.items()},
        upstreams={
            f"{stem}/{name}" if name in own else name: replace(
                each, name=f"{stem}/{name}" if name in own else name
            )
            for name, each in config.upstreams.items()
        },
    )


def _sources(each: list[Sources]) -> Sources:
    return Sources(
        roots=tuple(root for one in each for root in one.roots),
        texts={name: text for one in each for name, text in one.texts.items()},
        patterns=tuple(dict.fromkeys(pattern for one in each for pattern in one.patterns)),
        directory=each[0].directory,
        attached={name: digest for one in each for name, digest in one.attached.items()},
    )
