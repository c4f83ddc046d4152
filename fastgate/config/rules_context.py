"""What all rules work with: the configuration, what was written in the file, and where problems go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from fastgate.config.decode import label_of
from fastgate.config.document import Document
from fastgate.config.model import Config, RedisPlace, Route
from fastgate.config.part_graph import asked_upstreams
from fastgate.config.problems import Path, Problems, did_you_mean, either, quote


class Context:
    """``document``: what was written. Names that are in the file count as defined even where their table has
    errors.
    """

    def __init__(
        self,
        config: Config,
        document: Document,
        problems: Problems,
        read_endpoints: bool,
    ) -> None:
        self.config: Final = config
        self.problems: Final = problems
        self.read_endpoints: Final = read_endpoints
        self.document: Final = document
        self.upstream_names: Final = self._names("upstreams")
        self.plugin_names: Final = self._names("plugins")
        self.acme_names: Final = self._names("acme")
        # Kinds of names that were not found, and arrays with items that are no tables: what then seems unused
        # is more likely misspelt where it is used.
        self.misspelt: Final[set[str]] = set()
        self.incomplete: Final[set[str]] = set()
        self.listeners: Final = self.placed(("listeners",), config.listeners)
        self.routes: Final = self.placed(("routes",), config.routes)
        self.listener_names: Final = tuple(listener.name for _, listener in self.listeners)

    def _names(self, table: str) -> tuple[str, ...]:
        value = self.written((table,))
        return tuple(value) if isinstance(value, dict) else ()

    def written(self, path: Path) -> Any:
        """What the file says at ``path``; None where it says nothing."""
        here: Any = self.document.tables
        for part in path:
            if isinstance(part, str) and isinstance(here, dict):
                here = here.get(part)
            elif isinstance(part, int) and isinstance(here, list) and part < len(here):
                here = here[part]
            else:
                return None
        return here

    def item(self, path: Path, text: str) -> Path:
        """Where the array at ``path`` says ``text``: decoded, repeated items are left out of it."""
        written = self.written(path)
        return (*path, written.index(text)) if isinstance(written, list) and text in written else path

    def other(self, path: Path, first: Path) -> str:
        """A hint to the ``first`` of two things, where it stands in another file than ``path``."""
        if self.document.file(path) == self.document.file(first):
            return ""
        return f"the other stands at {self.document.where(first)}"

    def placed(self, path: Path, items: Sequence[Any]) -> list[tuple[Path, Any]]:
        """The decoded tables of the array at ``path``, each with its own path.

        A table that could not be decoded is missing from them, and then positions and indexes differ.
        """
        written = self.written(path)
        places = (
            [i for i, v in enumerate(written) if isinstance(v, dict)] if isinstance(written, list) else []
        )
        if isinstance(written, list) and len(places) != len(written):
            self.incomplete.add(str(path[0]))
        return [((*path, i), item) for i, item in zip(places, items, strict=True)] if items else []

    def exists(self, path: Path, noun: str, name: str, known: Collection[str]) -> bool:
        """Reports a name that is not among the ``known`` ones of the file."""
        if name in known:
            return True
        self.misspelt.add(noun)
        hint = did_you_mean(name, known)
        if not hint:
            hint = (
                f"there is {either(sorted(known)[:10], 'and')}" if known else f"the file defines no {noun}s"
            )
        self.problems.error(path, f"{label_of(path)}: no {noun} is named {quote(name)}", hint)
        return False

    def plugins_exist(self, path: Path, names: Iterable[str]) -> None:
        for i, name in enumerate(names):
            self.exists((*path, i), "plugin", name, self.plugin_names)

    def no_effect(self, path: Path, why: str, hint: str = "") -> None:
        self.problems.warning(path, f"{label_of(path)} has no effect: {why}", hint, at_key=True)

    def check_redis(self, path: Path, redis: RedisPlace) -> None:
        if bool(redis.sentinels) != bool(redis.sentinel_master):
            self.problems.error(path, "redis: `sentinels` and `sentinel_master` go together")
        if redis.sentinels and redis.cluster:
            self.problems.error(path, "redis: a cluster has no sentinels")

    def check_statuses(self, path: Path, on: Collection[str]) -> None:
        """``statuses`` counts only with "status" among the failures of ``on``."""
        if "status" not in on and self.written((*path, "statuses")) is not None:
            self.no_effect((*path, "statuses"), '`on` does not name "status"')


def upstreams_of(route: Route) -> tuple[str, ...]:
    """The upstreams among which a request of ``route`` goes to one: its own, or those of its split."""
    if route.split is not None:
        return tuple(target.upstream for target in route.split.to)
    return () if route.upstream is None else (route.upstream,)


def every_upstream_of(route: Route) -> tuple[str, ...]:
    """As ``upstreams_of``, with those of its fallback, its mirror, and the parts of its aggregation."""
    fallback = route.fallback.upstream if route.fallback is not None else None
    mirror = route.mirror.upstream if route.mirror is not None else None
    asked = () if route.aggregate is None else asked_upstreams(route.aggregate)
    return (*upstreams_of(route), *(name for name in (fallback, mirror) if name is not None), *asked)


def segment_hint(name: str, known: Collection[str], before: str = "") -> str:
    """To the {NAME} segments of a path. before: what stands before a name where it is used."""
    hint = did_you_mean(name, known)
    if hint:
        return f"did you mean {{{before}" + hint.removeprefix('did you mean "').removesuffix('"?') + "}?"
    return f"it has {', '.join('{' + k + '}' for k in known)}" if known else ""
